"""`tfgrpo config show`: every effective value of a configuration, its mark, and its origin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from tfgrpo.config import Effective
from tfgrpo.types import Struct

HEADINGS = ("key", "mark", "origin", "value")


class Row(Struct, frozen=True):
    """One key as it is shown: spelled as in a file; the value is None where the key is not set."""

    key: str
    mark: str
    origin: str
    value: Any


def rows(settings: Sequence[Effective]) -> list[Row]:
    """The rows of a configuration, everyday keys first."""
    shown = [
        Row(each.setting.spelled, each.setting.mark.value, each.origin, _plain(each.value))
        for each in settings
    ]
    everyday = {each.setting.spelled for each in settings if each.setting.everyday}
    return sorted(shown, key=lambda row: row.key not in everyday)


def lines(shown: Sequence[Row]) -> Iterator[str]:
    """Yield a line for each row in aligned columns, never wrapped; the value comes last, as it may be long."""
    cells = [HEADINGS, *((row.key, row.mark, row.origin, _text(row.value)) for row in shown)]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    for *aligned, value in cells:
        padded = (cell.ljust(width) for cell, width in zip(aligned, widths, strict=True))
        yield "  ".join((*padded, value))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    """The value on one line, as JSON, which TOML reads too for all but tables."""
    return "unset" if value is None else orjson.dumps(value).decode()
