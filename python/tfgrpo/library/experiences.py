"""`ExperienceLibrary`: an immutable snapshot of lessons with stable ids, a version and a digest.

The algebra is in Rust (`rust/core`); this facade decodes it into the types of `tfgrpo.types`, reads and
writes files, and turns refusals into `LibraryError`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import msgspec

from tfgrpo import _core
from tfgrpo.errors import LibraryError
from tfgrpo.types import ApplyReport, Experience, Operation, Struct


class LibraryDiff(Struct, frozen=True):
    """What differs between two libraries, by id: texts of one side, or (before, after), in id order."""

    added: dict[str, str]
    modified: dict[str, tuple[str, str]]
    deleted: dict[str, str]

    def __bool__(self) -> bool:
        """True if anything differs."""
        return bool(self.added or self.modified or self.deleted)


class ExperienceLibrary:
    """Lessons in natural language that steer a frozen model. Immutable; `apply` gives the next one.

    Two libraries are equal exactly if their digests are: the digest covers version, ids, texts and lineage,
    and leaves out credit (bookkeeping about a library) and token counts (derived).

    Make one with `empty`, `load` or `from_json`.
    """

    def __init__(self, core: _core.Library) -> None:
        self._core = core

    @classmethod
    def empty(cls) -> ExperienceLibrary:
        """The library before any practice: version 0, no experience."""
        return cls(_core.Library())

    @classmethod
    def from_json(cls, data: bytes) -> ExperienceLibrary:
        """Reads what `to_json` wrote and verifies its digest.

        Raises:
            LibraryError: not a library, another format version, or a digest that does not match.
        """
        with _refusals():
            return cls(_core.Library.from_json(data))

    def to_json(self) -> bytes:
        """The library file: indented JSON with one experience and its lineage an entry."""
        return self._core.to_json()

    @classmethod
    def load(cls, path: str | Path) -> ExperienceLibrary:
        """Reads a library file.

        Raises:
            LibraryError: the file cannot be read, or is refused as `from_json` does; the path is named.
        """
        try:
            return cls.from_json(Path(path).read_bytes())
        except OSError as error:
            raise LibraryError(
                f"cannot read the experience library {path}: {error.strerror}; "
                "give the path of a file such as runs/<run>/library/v0001.json."
            ) from error
        except LibraryError as error:
            raise LibraryError(f"{path}: {error.message}") from error

    def save(self, path: str | Path) -> None:
        """Writes the library file, all of it or nothing: neither a reader nor a crash finds half of one.

        Raises:
            LibraryError: the file cannot be written; what was there before is untouched.
        """
        path = Path(path)
        try:
            _replace(path, self.to_json())
        except OSError as error:
            raise LibraryError(
                f"cannot write the experience library {path}: {error.strerror}; "
                "see that its directory exists, is writable and has space."
            ) from error

    @property
    def version(self) -> int:
        """The number of changes since the empty library."""
        return self._core.version

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that the library says."""
        return self._core.digest

    @cached_property
    def entries(self) -> tuple[Experience, ...]:
        """The living experiences, in the order of their ids' numbers."""
        return msgspec.json.decode(self._core.entries_json(), type=tuple[Experience, ...])

    @cached_property
    def _by_id(self) -> dict[str, Experience]:
        return {entry.id: entry for entry in self.entries}

    def apply(self, operations: Iterable[Operation]) -> tuple[ExperienceLibrary, ApplyReport]:
        """Applies operations, whose order does not matter, and reports what became of each.

        Without an effective operation the same version and digest come back. An operation that cannot be
        applied (unknown, stale or missing target, empty or duplicate text, …) is dropped and reported with
        the reason, never an error.
        A merge is an ADD with `parents` and a DELETE for each parent that it replaces.

        Raises:
            LibraryError: an operation is no Unicode text (a lone surrogate) or has a negative number.
        """
        with _refusals():
            core, report = self._core.apply(msgspec.json.encode(tuple(operations)))
        return ExperienceLibrary(core), msgspec.json.decode(report, type=ApplyReport)

    def with_credit(self, credit: Mapping[str, float]) -> ExperienceLibrary:
        """The same library, version and digest with new credits; who is not named keeps theirs.

        Args:
            credit: experience id to what it was measured to be worth, in any unit; the higher enters a prior
                first.

        Raises:
            LibraryError: an id is not in the library, or a credit is not finite.
        """
        with _refusals():
            return ExperienceLibrary(self._core.with_credit(dict(credit)))

    def diff(self, other: ExperienceLibrary) -> LibraryDiff:
        """What happened between this library and `other`, the later one."""
        before, after = self._by_id, other._by_id
        return LibraryDiff(
            added={key: entry.text for key, entry in after.items() if key not in before},
            modified={
                key: (entry.text, after[key].text)
                for key, entry in before.items()
                if key in after and entry.text != after[key].text
            },
            deleted={key: entry.text for key, entry in before.items() if key not in after},
        )

    def pack(self, heading: str, token_budget: int) -> tuple[str, tuple[str, ...], int, str]:
        """Text, ids, tokens and digest of the prior: what `PromptAssembler` rests on.

        Raises:
            LibraryError: the heading is no Unicode text, or the budget is negative.
        """
        with _refusals():
            text, ids, tokens, digest = self._core.prior(heading, token_budget)
        return text, tuple(ids), tokens, digest

    def __len__(self) -> int:
        return len(self._core)

    def __iter__(self) -> Iterator[Experience]:
        return iter(self.entries)

    def __contains__(self, experience_id: object) -> bool:
        return experience_id in self._by_id

    def __getitem__(self, experience_id: str) -> Experience:
        """The living experience of this id.

        Raises:
            KeyError: there is none.
        """
        return self._by_id[experience_id]

    def __bool__(self) -> bool:
        """A library is a library, be it empty."""
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExperienceLibrary) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"ExperienceLibrary(version={self.version}, size={len(self)}, digest={self.digest[:12]!r})"


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the Rust module refuses into a `LibraryError`."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise LibraryError(
            f"the text holds the lone surrogate {error.object[error.start]!r}, which is no Unicode text; "
            "decode it with errors='replace'."
        ) from error
    except OverflowError as error:
        raise LibraryError(f"a number is out of range: {error}; token budgets start at 0.") from error
    except _core.CoreError as error:
        raise LibraryError(f"{error}.") from error


def _replace(path: Path, data: bytes) -> None:
    """Puts `data` in the place of the file `path`, durably and at once."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
