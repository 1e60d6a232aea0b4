"""Tasks from JSON lines: one object a line with `id`, `input`, `truth` (optional); all else is metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import orjson

from tfgrpo.errors import DataError
from tfgrpo.types import Task


class Dataset(msgspec.Struct, frozen=True):
    """The tasks of one file in file order, and the digest of the file's bytes."""

    path: str
    tasks: tuple[Task, ...]
    digest: str


def load_dataset(path: Path, *, key: str) -> Dataset:
    """Read a data file.

    Args:
        path: the JSON-lines file, UTF-8.
        key: the configuration key that named it, for messages ("data.practice").

    Raises:
        DataError: missing, unreadable, empty, not UTF-8, a line that is no object, a record without `input`,
            a duplicate id; the message names file and line.
    """
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{key}: there is no file {path}; check the path in the configuration.") from None
    except OSError as error:
        raise DataError(f"{key}: {path} cannot be read: {error.strerror}.") from None
    tasks: dict[str, Task] = {}
    for number, line in _lines(body, path):
        task = _task(line, path, number)
        if task.id in tasks:
            raise DataError(f"{path}, line {number}: the id {task.id!r} stands twice; ids must be unique.")
        tasks[task.id] = task
    if not tasks:
        raise DataError(f"{path}: holds no task; {key} needs at least one JSON object a line.")
    return Dataset(str(path), tuple(tasks.values()), hashlib.sha256(body).hexdigest())


def _lines(body: bytes, path: Path) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(body.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: is not UTF-8 (byte {error.start + 1} of the line); "
                "convert the file to UTF-8."
            ) from None
        if line:
            yield number, line


def _task(line: str, path: Path, number: int) -> Task:
    place = f"{path}, line {number}"
    try:
        record: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{place}: is not valid JSON: {error}.") from None
    if not isinstance(record, dict):
        raise DataError(f"{place}: is not a JSON object with id and input.")
    for name in ("id", "input"):
        if name not in record:
            raise DataError(f"{place}: the record has no {name!r}.")
    text = record.pop("input")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{place}: 'input' must be a non-empty text.")
    ident = record.pop("id")
    if isinstance(ident, bool) or not isinstance(ident, str | int) or not str(ident):
        raise DataError(f"{place}: 'id' must be a non-empty text or a whole number.")
    truth = record.pop("truth", None)
    if isinstance(truth, bool) or not isinstance(truth, str | int | float | None):
        raise DataError(f"{place}: 'truth' must be a text or a number, or be left out.")
    return Task(str(ident), text, None if truth is None else str(truth), record)
