"""What a run was started with, and where it lies: the first row of its journal."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from tfgrpo.config import Config, resolve_config, shaping_overrides, speed_keys
from tfgrpo.errors import ConfigError, JournalError
from tfgrpo.types import Struct

Kind = Literal["practice", "evaluation"]

#: Where a run directory keeps the library it starts with.
START = Path("library") / "v0000.json"


class Header(Struct, frozen=True):
    """What a run was started with; the first row of its journal. Resuming must find the same inputs."""

    kind: Kind
    config: str
    config_hash: str
    prompts: str
    held_out: str
    practice: str | None
    library: str
    started: float


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


def read_header(header: Mapping[str, Any], directory: Path) -> Header:
    """The header of a run's journal.

    Version 0.1 hashed other keys, and kept a configuration without a recipe. Such a run is known by the hash that
    its values have now, so that it can still be resumed.

    Raises:
        JournalError: it is not one of ours.
    """
    try:
        read = msgspec.convert(header, Header)
    except msgspec.ValidationError as error:
        raise JournalError(f"{directory}: the journal has no readable header: {error}.") from None
    if "recipe" in tomllib.loads(read.config):
        return read
    return msgspec.structs.replace(read, config_hash=run_config(read, directory).digest())


def run_config(header: Header, directory: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration a run was started with; overrides may change the keys that are marked as speed.

    Raises:
        ConfigError: an override is of a key that shapes results.
    """
    if shaping := shaping_overrides(overrides or {}):
        raise ConfigError(
            f"--set {shaping[0]}: a run keeps the settings that shape its results; only these may change on "
            f"resume: {', '.join(speed_keys())}. Start a new run to change others."
        )
    body = tomllib.loads(header.config)
    return resolve_config(body, dict(overrides or {}), place=str(directory), environment=False)
