"""What every command shares: the console on stderr, JSON on stdout, exit codes, signals, errors in a paragraph."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from tfgrpo.errors import (
    ConfigError,
    InterruptedRunError,
    JournalError,
    LibraryError,
    LocalModelError,
    RunStoppedError,
    TfgrpoError,
    UnmeasuredError,
)
from tfgrpo.run.stop import StopSwitch

T = TypeVar("T")

#: timeout(1) and what hands signals on to its children deliver one signal twice; no hand is that quick (seconds).
SAME_SIGNAL = 0.2

DONE, BAD_INPUT, STOPPED, INTERRUPTED = 0, 2, 3, 130

console = Console(stderr=True, highlight=False)


def exit_code(error: TfgrpoError) -> int:
    """2 for what the user has to mend first, 3 for a run that stopped or measured nothing, 130 interrupted."""
    if isinstance(error, RunStoppedError):
        return INTERRUPTED if isinstance(error.reason, InterruptedRunError) else STOPPED
    if isinstance(error, ConfigError | LibraryError | LocalModelError):
        return BAD_INPUT
    return STOPPED if isinstance(error, JournalError | UnmeasuredError) else BAD_INPUT


def tell(error: TfgrpoError) -> None:
    """One paragraph on stderr, wrapped to the terminal, never a traceback."""
    width = min(console.width, 100)
    paragraph = textwrap.fill(
        f"tfgrpo: {error.message}", width=width, break_long_words=False, break_on_hyphens=False
    )
    console.print(paragraph, style="red", markup=False, soft_wrap=True)


def emit(value: Any) -> None:
    """The machine-readable result: one JSON document on stdout."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """A line of a human-readable result on stdout."""
    sys.stdout.write(text + "\n")


def run_job(job: Callable[[StopSwitch], Awaitable[T]]) -> T:
    """Run an asynchronous job on uvloop where there is one.

    The first SIGINT or SIGTERM lets calls in flight finish and keeps everything; the second, or the first
    while no run is connected, stops at once, and what was in flight counts as possibly paid. A second one within
    `SAME_SIGNAL` seconds is the first, delivered twice.

    Raises:
        RunStoppedError: the job was interrupted.
    """

    async def body() -> T:
        stop = StopSwitch()
        result: list[T] = []
        async with anyio.create_task_group() as group:
            group.start_soon(_watch_signals, stop, group.cancel_scope)
            result.append(await job(stop))
            group.cancel_scope.cancel()
        if not result:
            raise RunStoppedError(
                InterruptedRunError("Interrupted at once; everything acknowledged is kept.")
            )
        return result[0]

    try:
        return anyio.run(body, backend_options={"use_uvloop": sys.platform != "win32"})
    except BaseExceptionGroup as group:
        # the group of `body` holds the job's own error and nothing else
        raise group.exceptions[0] from None


async def _watch_signals(stop: StopSwitch, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        asked = 0.0
        async for _ in signals:
            if stop.stopped and anyio.current_time() - asked < SAME_SIGNAL:
                continue
            if stop.stopped or not stop.attached:
                scope.cancel()
                return
            asked = anyio.current_time()
            console.print("stopping: calls in flight may finish (again to stop at once)", style="yellow")
            stop.stop()


class Fetching:
    """The progress of a weights download, shown only when there is one."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._tenth = -1

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show how far it is."""
        if not console.is_terminal:
            tenth = done * 10 // max(total, 1)
            if tenth != self._tenth:
                self._tenth = tenth
                console.print(f"{what}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", markup=False)
            return
        if self._bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bars = Bars(*columns, console=console, transient=True)
            self._bars.start()
            self._bar = self._bars.add_task(what, total=total)
        if self._bar is not None:
            self._bars.update(self._bar, completed=done, total=total, description=what)
        if done >= total:
            self._bars.stop()


def is_run(path: Path) -> bool:
    """Whether a path is a run directory."""
    return (path / "journal.db").is_file()
