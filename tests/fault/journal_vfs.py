"""A file layer for SQLite that notes what is written and synced, and fails where it is told to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import apsw

from tfgrpo.journal.schema import Files, renew_log

_numbers = itertools.count()

#: One thing that happened to a file: (kind, file name, offset or size, data).
Event = tuple[str, str, int, bytes]


class RecordingVFS(apsw.VFS):
    """Passes everything on to the system's layer.

    Attributes:
        name: what to open connections with.
        events: writes, truncations, syncs and deletions, in order.
        before: called with (kind, file name) before each; raises to make it fail.
        record: whether to note events.
    """

    def __init__(self, *, record: bool = True) -> None:
        self.name = f"tfgrpo-test-{next(_numbers)}"
        self.events: list[Event] = []
        self.record = record
        self.before: Callable[[str, str], None] = lambda kind, name: None
        super().__init__(self.name, base="")

    @property
    def files(self) -> Files:
        """For the `files` of a `Disk`."""
        return Files(self.name, self._renew_log)

    def _renew_log(self, path: Path) -> None:
        if path.is_file() and (data := path.read_bytes()):
            self.note("write", path.name, 0, data)
            self.note("sync", path.name)
        renew_log(path)

    def note(self, kind: str, name: str, place: int = 0, data: bytes = b"") -> None:
        self.before(kind, name)
        if self.record:
            self.events.append((kind, name, place, data))

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return _File(self, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802
        self.note("delete", Path(name).name)
        super().xDelete(name, sync)


class _File(apsw.VFSFile):
    def __init__(self, vfs: RecordingVFS, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = Path(text or "temporary").name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._vfs.note("write", self._name, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._vfs.note("truncate", self._name, size)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.note("sync", self._name)
        super().xSync(flags)


def io_error(kind: str) -> Exception:
    """What SQLite makes of a refused write, truncation or sync."""
    error: Any = apsw.IOError(f"injected: {kind}")
    codes = {
        "write": apsw.SQLITE_IOERR_WRITE,
        "truncate": apsw.SQLITE_IOERR_TRUNCATE,
        "sync": apsw.SQLITE_IOERR_FSYNC,
    }
    error.extendedresult = codes.get(kind, apsw.SQLITE_IOERR)
    return cast(Exception, error)


def full_error() -> Exception:
    """What SQLite makes of a write to a full disk."""
    error: Any = apsw.FullError("injected: no space left")
    error.extendedresult = apsw.SQLITE_FULL
    return cast(Exception, error)
