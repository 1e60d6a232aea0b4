"""An index of rows by text that costs eight bytes an entry, for what is finished and only looked up now and then."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator

#: An entry is one number: 28 bits of the text's hash, 6 bits of a tag, and the row; 12 more bits of the hash choose
#: the bucket. With a million entries one text in a million that was never added finds somebody else's row.
_BUCKETS, _HASH, _TAG, _ROW = 1 << 12, (1 << 28) - 1, (1 << 6) - 1, (1 << 30) - 1

#: The largest tag.
LAST_TAG = _TAG


class Index:
    """Row numbers by tag and text, several a text if need be.

    The texts are not kept, so a row that is found has to be compared with what was looked for. The hash is Python's
    own, which differs from process to process: nothing of this is ever stored.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: list[array[int] | None] = [None] * _BUCKETS

    def add(self, tag: int, text: str, row: int) -> None:
        """Add an entry."""
        number = hash(text)
        insort(self._bucket(number % _BUCKETS), (number // _BUCKETS & _HASH) << 36 | tag << 30 | row)

    def append(self, tag: int, text: str, row: int) -> None:
        """Add an entry quickly; nothing is found before `sort`."""
        number = hash(text)
        self._bucket(number % _BUCKETS).append((number // _BUCKETS & _HASH) << 36 | tag << 30 | row)

    def _bucket(self, place: int) -> array[int]:
        bucket = self._buckets[place]
        if bucket is None:
            bucket = self._buckets[place] = array("Q")
        return bucket

    def sort(self) -> None:
        """Make what was appended known."""
        self._buckets = [bucket and array("Q", sorted(bucket)) for bucket in self._buckets]

    def rows(self, tag: int, text: str) -> list[int]:
        """The rows that may belong to a text under a tag, in ascending order."""
        number = hash(text)
        bucket = self._buckets[number % _BUCKETS]
        if not bucket:
            return []
        first = (number // _BUCKETS & _HASH) << 36 | tag << 30
        return _from(bucket, first, first | _ROW)

    def all_rows(self, text: str) -> list[int]:
        """The rows that may belong to a text under any tag."""
        number = hash(text)
        bucket = self._buckets[number % _BUCKETS]
        if not bucket:
            return []
        first = (number // _BUCKETS & _HASH) << 36
        return _from(bucket, first, first | _TAG << 30 | _ROW)

    def tagged(self, tag: int) -> Iterator[int]:
        """The rows under a tag, in no order; safe in another thread than the one that adds."""
        for bucket in self._buckets:
            for entry in bucket.tolist() if bucket is not None else ():
                if entry >> 30 & _TAG == tag:
                    yield entry & _ROW

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets if bucket is not None)


def _from(bucket: array[int], first: int, last: int) -> list[int]:
    place, found = bisect_left(bucket, first), []
    while place < len(bucket) and bucket[place] <= last:
        found.append(bucket[place] & _ROW)
        place += 1
    return found
