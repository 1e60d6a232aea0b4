"""The journal: a completed call is never lost and never paid twice."""

from __future__ import annotations

from tfgrpo.journal.codec import request_digest
from tfgrpo.journal.journal import CallState, Journal
from tfgrpo.journal.reader import CallSummary, JournalReader
from tfgrpo.journal.rows import CallStatus
from tfgrpo.journal.salvage import Salvage, salvage

__all__ = [
    "CallState",
    "CallStatus",
    "CallSummary",
    "Journal",
    "JournalReader",
    "Salvage",
    "request_digest",
    "salvage",
]
