"""The store of a run in one SQLite file: a completed effect is never lost and never paid twice."""

from __future__ import annotations

from tfgrpo.journal.codec import digest_of
from tfgrpo.journal.journal import Journal
from tfgrpo.journal.memory import MemoryStore
from tfgrpo.journal.reader import CallSummary, JournalReader
from tfgrpo.journal.salvage import Salvage, salvage

__all__ = [
    "CallSummary",
    "Journal",
    "JournalReader",
    "MemoryStore",
    "Salvage",
    "digest_of",
    "salvage",
]
