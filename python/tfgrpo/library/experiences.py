"""`ExperienceLibrary`: an immutable snapshot of lessons with stable ids, a version and a digest.

The algebra is in Rust (`rust/core`); this facade decodes it into the types of `tfgrpo.types`, reads and
writes files, and turns refusals into `LibraryError`.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from tfgrpo import _core
from tfgrpo.errors import LibraryError
from tfgrpo.library.similar import Duplicate, Embedder, Judgement, Neighbour, Vectors
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
    and leaves out credit (bookkeeping about a library), token counts and vectors (derived).

    Ids ("E7-1f0c66ba") are made of an experience's origin: the same replies give the same ids, and libraries that
    learned different lessons share none. Within a library the number alone ("E7") names an experience as well.

    A change costs what it changes, not what the library holds: snapshots share the rest.

    Make one with `empty`, `load` or `from_json`.
    """

    def __init__(self, core: _core.Library, embedder: Embedder | None = None) -> None:
        self._core = core
        self._embedder = embedder

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
        """Reads a library file, and the index beside it (`<path>.index`) if one of this very library is there.

        The index is mapped, not read: a large library opens without deriving anything again.

        Raises:
            LibraryError: the file cannot be read, is refused as `from_json` does, or its index is damaged; the path
                is named.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
            index = _mapped(_index_path(path))
        except OSError as error:
            raise LibraryError(
                f"cannot read the experience library {path}: {error.strerror}; "
                "give the path of a file such as runs/<run>/library/v0001.json."
            ) from error
        try:
            with _refusals():
                return cls(_core.Library.from_json(data, index))
        except LibraryError as error:
            raise LibraryError(f"{path}: {error.message}") from error

    def save(self, path: str | Path, *, index: bool = False) -> None:
        """Writes the library file, all of it or nothing: neither a reader nor a crash finds half of one.

        Args:
            path: where to.
            index: also write `<path>.index`, which lets `load` open a library of 100,000 or more quickly.

        Raises:
            LibraryError: the file cannot be written; what was there before is untouched.
        """
        path = Path(path)
        try:
            _replace(path, self.to_json())
            if index:
                _replace(_index_path(path), self._core.to_index())
        except OSError as error:
            raise LibraryError(
                f"cannot write the experience library {path}: {error.strerror}; "
                "see that its directory exists, is writable and has space."
            ) from error

    def with_embedder(self, embedder: Embedder | None) -> ExperienceLibrary:
        """The same library, version and digest, with vectors by `embedder`; None: by the word table we ship.

        Raises:
            LibraryError: the embedder's vectors are not one row of its dimensions a text.
        """
        if embedder is None:
            return ExperienceLibrary.from_json(self.to_json())
        vectors = _embedded(embedder, [entry.text for entry in self.entries])
        with _refusals():
            return ExperienceLibrary(self._core.with_vectors(vectors, embedder.dimensions), embedder)

    def with_tokenizer(self, tokenizer: str) -> ExperienceLibrary:
        """The same library, version and digest, its experiences counted by `tokenizer`.

        Args:
            tokenizer: "o200k" or "cl100k"; see `tokenizer_for_model`.

        Raises:
            LibraryError: there is no such tokenizer.
        """
        with _refusals():
            return ExperienceLibrary(self._core.with_tokenizer(tokenizer), self._embedder)

    @property
    def tokenizer(self) -> str:
        """What its tokens are counted by."""
        return self._core.tokenizer

    def count(self, text: str) -> int:
        """The tokens of a text, by the library's tokenizer.

        Raises:
            LibraryError: the text is no Unicode text (a lone surrogate).
        """
        with _refusals():
            return _core.count_tokens(text, self._core.tokenizer)

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

    def apply(self, operations: Iterable[Operation]) -> tuple[ExperienceLibrary, ApplyReport]:
        """Applies operations, whose order does not matter, and reports what became of each.

        Without an effective operation the same version and digest come back. An operation that cannot be
        applied (unknown, stale or missing target, empty text, a text that duplicates a living one, …) is dropped
        and reported with the reason, never an error. What a duplicate is the guard decides: see `judge`.
        A merge is an ADD with `parents` and a DELETE for each parent that it replaces.

        Raises:
            LibraryError: an operation is no Unicode text (a lone surrogate) or has a negative number.
        """
        operations = tuple(operations)
        vectors = None
        if self._embedder is not None:
            vectors = _embedded(self._embedder, [operation.text for operation in operations])
        with _refusals():
            core, report = self._core.apply(msgspec.json.encode(operations), vectors)
        return ExperienceLibrary(core, self._embedder), msgspec.json.decode(report, type=ApplyReport)

    def with_credit(self, credit: Mapping[str, float]) -> ExperienceLibrary:
        """The same library, version and digest with new credits; who is not named keeps theirs.

        Args:
            credit: experience id, or number alone, to what it was measured to be worth, in any unit; the higher
                enters a prior first.

        Raises:
            LibraryError: an id is not in the library, or a credit is not finite.
        """
        with _refusals():
            return ExperienceLibrary(self._core.with_credit(dict(credit)), self._embedder)

    def diff(self, other: ExperienceLibrary) -> LibraryDiff:
        """What happened between this library and `other`, the later one."""
        before = {entry.id: entry for entry in self.entries}
        after = {entry.id: entry for entry in other.entries}
        return LibraryDiff(
            added={key: entry.text for key, entry in after.items() if key not in before},
            modified={
                key: (entry.text, after[key].text)
                for key, entry in before.items()
                if key in after and entry.text != after[key].text
            },
            deleted={key: entry.text for key, entry in before.items() if key not in after},
        )

    def judge(self, text: str, k: int = 8) -> Judgement:
        """Whether a text is new, and its `k` nearest experiences.

        Similarity only proposes neighbours. A guard compares the words: `duplicate` means that every word that
        differs is harmless, `conflict` that one changes the sense (a number, a negation, an opposite, …).

        Raises:
            LibraryError: the text is no Unicode text (a lone surrogate), or `k` is negative.
        """
        vector = None if self._embedder is None else _embedded(self._embedder, [text])
        with _refusals():
            return msgspec.json.decode(self._core.judge(text, k, vector), type=Judgement)

    def neighbours(self, text: str, k: int = 8) -> tuple[Neighbour, ...]:
        """The `k` experiences nearest to a text: duplicates first, then by similarity. See `judge`."""
        return self.judge(text, k).neighbours

    def deduplicate(self, texts: Sequence[str]) -> tuple[Duplicate, ...]:
        """Which texts say what an experience, or an earlier text that is no duplicate itself, says already.

        Texts are compared with those that share a hash of words and bigrams, in one batch over all processors.

        Returns:
            The duplicates, in the order of the texts.

        Raises:
            LibraryError: a text is no Unicode text (a lone surrogate).
        """
        with _refusals():
            encoded = [text.encode() for text in texts]
            offsets = np.zeros(len(encoded) + 1, np.uint64)
            np.cumsum([len(text) for text in encoded], out=offsets[1:])
            earlier, known = self._core.deduplicate(b"".join(encoded), offsets)
        texts_, experiences = np.frombuffer(earlier, np.int64), np.frombuffer(known, np.uint64)
        places = np.flatnonzero((texts_ >= 0) | (experiences > 0))
        return tuple(
            Duplicate(int(place), experience=self._core.id_of(f"E{experiences[place]}"))
            if experiences[place]
            else Duplicate(int(place), text=int(texts_[place]))
            for place in places
        )

    def relevant(self, texts: Sequence[str], each: int = 8) -> tuple[Experience, ...]:
        """The experiences nearest to any of the texts: at most `each` for a text, the most relevant first.

        Raises:
            LibraryError: a text is no Unicode text (a lone surrogate).
        """
        vectors = None if self._embedder is None else _embedded(self._embedder, texts)
        with _refusals():
            found = self._core.relevant(list(texts), each, vectors)
        return tuple(self[experience_id] for experience_id in found)

    def pack(
        self, heading: str, token_budget: int, questions: Sequence[str] = (), each: int = 0
    ) -> tuple[str, tuple[str, ...], int, str, tuple[int, int]]:
        """Text, ids, tokens, digest and (character, token) of the end of the stable part of the prior.

        What `PromptAssembler` rests on; see there.

        Raises:
            LibraryError: a text is no Unicode text, or the budget is negative.
        """
        vectors = None
        if self._embedder is not None and questions:
            vectors = _embedded(self._embedder, questions)
        with _refusals():
            text, ids, tokens, digest, stable = self._core.prior(
                heading, token_budget, list(questions), each, vectors
            )
        return text, tuple(ids), tokens, digest, stable

    def __len__(self) -> int:
        return len(self._core)

    def __iter__(self) -> Iterator[Experience]:
        return iter(self.entries)

    def __contains__(self, experience_id: object) -> bool:
        return isinstance(experience_id, str) and self._core.id_of(experience_id) is not None

    def __getitem__(self, experience_id: str) -> Experience:
        """The living experience of this id, or of this number alone ("E7").

        Raises:
            KeyError: there is none.
        """
        entry = self._core.entry_json(experience_id)
        if entry is None:
            raise KeyError(experience_id)
        return msgspec.json.decode(entry, type=Experience)

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
        raise LibraryError(f"a number is out of range: {error}; budgets and counts start at 0.") from error
    except (_core.CoreError, _core.InvariantError) as error:
        raise LibraryError(f"{error}.") from error


def _embedded(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """The embedder's vectors, in the form that the core takes."""
    vectors = np.ascontiguousarray(embedder.embed(texts), np.float32)
    if vectors.shape != (len(texts), embedder.dimensions):
        raise LibraryError(
            f"the embedder gave an array of shape {vectors.shape} for {len(texts)} texts and {embedder.dimensions} "
            "dimensions; give one row a text."
        )
    if not np.isfinite(vectors).all():
        raise LibraryError("the embedder gave a number that is not finite; give finite vectors.")
    return vectors


def _index_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.index")


def _mapped(path: Path) -> mmap.mmap | None:
    """A file as read-only memory; None where there is none, or nothing in it."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError):
        return None


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
