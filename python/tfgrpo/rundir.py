"""The layout of a run directory, and what a run was started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tfgrpo.errors import ConfigError, JournalError
from tfgrpo.keys import Key
from tfgrpo.types import Struct

Kind = Literal["practice", "evaluation"]

#: Where a run directory keeps its libraries, and the one it starts with.
LIBRARY = Path("library")
START = LIBRARY / "v0000.json"

#: The record "run" of this key holds the header.
RUN = Key("run")


class Header(Struct, frozen=True):
    """The start of a run, its first record: what it was started with. Resuming must find the same inputs."""

    kind: Kind
    config: str
    config_hash: str
    prompts: str
    held_out: str
    practice: str | None
    library: str
    started: float


def header_from(values: Mapping[str, Any], place: object) -> Header:
    """The header of a run, from the values that its store was made with.

    Raises:
        JournalError: they are no header.
    """
    try:
        return msgspec.convert(dict(values), Header)
    except msgspec.ValidationError as error:
        raise JournalError(f"{place}: the journal has no readable header: {error}.") from None


def journal_path(directory: Path) -> Path:
    """The journal of a run directory.

    Raises:
        ConfigError: there is no run directory, or it holds no journal.
    """
    path = directory / "journal.db"
    if not path.is_file():
        raise ConfigError(
            f"{directory}: is no run directory (it has no journal.db); name one, as in runs/demo-1a2b."
        )
    return path
