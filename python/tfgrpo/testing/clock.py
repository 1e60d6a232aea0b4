"""A clock without waiting: an asyncio loop whose time jumps to the next timer when nothing else can run.

How it decides to jump: before every wait the loop polls its real selector. While work is known to be outstanding, a
job of `run_in_executor` or anything inside `VirtualClock.hold()`, it waits for as long as that takes, and while a
thread of `anyio.to_thread` works, for some seconds of real time: longer ones hang. With no thread alive but those it
knows, and no socket registered, nothing but a timer can wake it, so it jumps at once. Otherwise it first waits a short
grace of real time for threads and sockets.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

import anyio

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

#: A timer further away than this (seconds) is a bound that nobody expects to be reached: before the clock jumps
#: to it, threads get `_LONG_GRACE` times the usual grace, or a slow disk would look like a call that hangs.
_FAR, _LONG_GRACE = 600.0, 50

#: Real seconds that a thread of `anyio.to_thread` gets before each jump: those that need more may never end.
_WORKER_GRACE = 10.0

#: Real seconds after which a held clock looks if it is still held: the end of a `hold` wakes nobody.
_PATIENCE = 0.005

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualClock:
    """Time that passes only when everything waits.

    `clock.run(main)` runs a test body; `clock.new_event_loop` is the loop factory for other runners
    (`anyio.run(…, backend_options={"loop_factory": clock.new_event_loop})`, `asyncio.Runner`, or the hook of
    pytest-asyncio). `anyio.sleep`, `anyio.fail_after` and `loop.call_later` all follow it, in the order of
    their deadlines.

    Args:
        start: the first reading, in seconds.
        grace: real seconds that threads and sockets get before each jump, where there are any.

    Limits: `time.monotonic` and blocking calls know nothing of it: code under test reads
    `anyio.current_time()`. A thread that is no executor job, none of `anyio.to_thread` nor inside `hold()` and needs
    longer than `grace` sees timers fire early; raise `grace` or hold the clock. uvloop keeps its own time and
    cannot be used. One loop at a time.
    """

    def __init__(self, start: float = 0.0, *, grace: float = 0.005) -> None:
        self.now = start
        self.jumps = 0
        self._grace = grace
        self._held = 0
        self._lock = threading.Lock()
        self._executors: weakref.WeakSet[Any] = weakref.WeakSet()

    def run(self, main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run an async function to its end in a fresh loop on this clock; returns what it returns.

        Raises:
            RuntimeError: every task waits and nothing can wake any of them (a deadlock).
        """
        return anyio.run(main, *args, backend_options={"loop_factory": self.new_event_loop})

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A new selector event loop that reads its time here."""
        return _Loop(self)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the clock from jumping while real work is under way elsewhere; from any thread, nestable."""
        with self._lock:
            self._held += 1
        try:
            yield
        finally:
            with self._lock:
                self._held -= 1

    @property
    def held(self) -> bool:
        """Tell whether real work is known to be outstanding."""
        return self._held > 0

    @staticmethod
    def _workers() -> tuple[int, bool]:
        """The number of threads of `anyio.to_thread`, and whether one of them works."""
        workers = [thread for thread in threading.enumerate() if hasattr(thread, "idle_workers")]
        return len(workers), any(worker not in worker.idle_workers for worker in workers)

    def _strange_threads(self, workers: int) -> bool:
        """Tell if there is a thread whose work is not known here."""
        alive = (
            threading.active_count()
        )  # before the others: a thread that ends meanwhile must not hide a strange one
        threads = (list(getattr(executor, "_threads", ())) for executor in self._executors)
        known = sum(thread.is_alive() for executor in threads for thread in executor)
        return bool(alive > 1 + workers + known)

    def _advance(self, seconds: float) -> None:
        self.now += seconds
        self.jumps += 1


class _Selector(selectors.BaseSelector):
    """The real selector, except that waiting for a timer moves the clock instead."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return self._real.select(0)
        clock = self._clock
        while True:
            if clock.held:
                if timeout is None:
                    return self._real.select(None)
                if ready := self._real.select(_PATIENCE):
                    return ready
                continue
            # The loop's own wake-up pipe is always registered; more than that is real I/O.
            workers, working = clock._workers()
            alone = len(self._real.get_map()) <= 1 and not working and not clock._strange_threads(workers)
            if timeout is None:
                if alone and not (ready := self._real.select(0)):
                    raise RuntimeError(
                        "VirtualClock: every task waits and nothing can wake one of them: a deadlock."
                    )
                return ready if alone else self._real.select(None)
            grace = clock._grace * (_LONG_GRACE if timeout > _FAR else 1)
            if working:
                grace = max(grace, _WORKER_GRACE)
            ready = self._real.select(0 if alone else grace)
            if ready:
                return ready
            if not clock.held:
                clock._advance(timeout)
                return []

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class _Loop(asyncio.SelectorEventLoop):
    """The standard loop on a virtual clock; jobs of the executor hold the clock until they end."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        hold = self._clock.hold()
        hold.__enter__()
        try:
            future: asyncio.Future[T] = super().run_in_executor(executor, func, *args)
        except BaseException:
            hold.__exit__(None, None, None)
            raise
        if (known := executor or getattr(self, "_default_executor", None)) is not None:
            self._clock._executors.add(known)
        future.add_done_callback(lambda _: hold.__exit__(None, None, None))
        return future
