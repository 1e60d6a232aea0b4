"""Watching a run: adapters from events to terminals and logs, one a file."""

from tfgrpo.observe.progress import Progress

__all__ = ["Progress"]
