"""The events of a run, as data: spans that start and end, and remarks; nothing flows back up.

A span is known by its key (`tfgrpo.keys`): phases hold steps, steps hold groups, groups hold rollouts, rollouts hold
effects; `parent` is the key of the span around it, "" at the top. An effect has one pair of events an attempt.

A hook is any callable that takes one event. It runs beside the call path: one that raises is switched off with one
warning, and the run goes on. It must be quick, for it is called in the event loop's thread. A hook with an attribute
`wants`, a collection of event classes, receives only those, and what nobody wants is never made. `Sampled` comes on a
timer, for displays: only where a hook has the attribute `sample_every`, the seconds between two samples.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from tfgrpo.errors import ConfigError, HookError
from tfgrpo.types import ApplyReport, EffectKind, Fault, Group, Role, Rollout, Struct, Usage

_LOG = logging.getLogger(__name__)


class Span(Struct, frozen=True, kw_only=True):
    """Base of the events that start or end a span; `at` is in seconds since the epoch."""

    key: str
    parent: str = ""
    at: float = msgspec.field(default_factory=time.time)


class PhaseStarted(Span, frozen=True, kw_only=True):
    """A phase begins: "practice", or the evaluation of an arm; `rollouts` are planned in it."""

    phase: str
    tasks: int
    rollouts: int


class PhaseFinished(Span, frozen=True, kw_only=True):
    """A phase has ended; `usage` is that of the whole run so far."""

    phase: str
    usage: Usage = Usage()


class StepStarted(Span, frozen=True, kw_only=True):
    """One step of the practice loop begins; numbers count from 1."""

    step: int
    steps: int
    epoch: int
    tasks: int


class StepFinished(Span, frozen=True, kw_only=True):
    """A step ended: what was applied and whether the new library replaced the old one."""

    step: int
    report: ApplyReport
    accepted: bool
    version: int
    entries: int


class GroupStarted(Span, frozen=True, kw_only=True):
    """The attempts at one task of a practice step begin."""

    step: int
    task_id: str


class GroupFinished(Span, frozen=True, kw_only=True):
    """A group of a practice step closed with its signal."""

    step: int
    group: Group


class RolloutStarted(Span, frozen=True, kw_only=True):
    """One attempt at a task begins."""

    phase: str
    task_id: str
    index: int


class RolloutFinished(Span, frozen=True, kw_only=True):
    """One attempt reached its terminal record; `replayed` when it came from the store of an earlier engine."""

    phase: str
    rollout: Rollout
    replayed: bool = False


class EffectStarted(Span, frozen=True, kw_only=True):
    """One attempt at an effect has its slot, and its intent is durable: it is about to be sent."""

    kind: EffectKind
    role: Role
    attempt: int


class EffectFinished(Span, frozen=True, kw_only=True):
    """One attempt at an effect ended.

    In seconds: `queued` for slot and budget, `first_token` from sending to the first piece of the answer (None
    where it was not seen), `seconds` from queueing to the end. `total` is the usage of the whole run so far; `fault`
    is None where it went well.
    """

    kind: EffectKind
    role: Role
    attempt: int
    queued: float
    seconds: float
    usage: Usage
    total: Usage
    first_token: float | None = None
    fault: Fault | None = None


class Warned(Struct, frozen=True):
    """Something a person should know now: a budget at 80 %, an endpoint that refuses group requests."""

    message: str


class Noted(Struct, frozen=True):
    """Something a person may want to know, and no trouble: which limit will bind."""

    message: str


class AdmissionState(Struct, frozen=True):
    """The state of one provider's admission at one instant.

    `in_flight` and `waiting` count calls; `paused_until` is the `anyio.current_time()` at which a pause that the
    provider asked for ends, while there is one. `binding` is what the head of the queue waits for: "none",
    "provider cut", "concurrency", "requests", "tokens", "input tokens", "output tokens", "ramp" or
    "hidden limit". `places` is how many calls may be in flight now, None without a bound; `permitted` how many
    calls a second the binding limit permits now, None where that is unknown or unlimited; `achieved` how many a
    second were started over the last ten seconds or so; `limited` counts the 429s so far.
    """

    in_flight: int
    waiting: int
    paused_until: float | None = None
    binding: str = "none"
    places: int | None = None
    permitted: float | None = None
    achieved: float = 0.0
    limited: int = 0


class Sampled(Struct, frozen=True):
    """The state of a run at one instant, every so many seconds.

    `at` is `anyio.current_time()`. `admissions` are named after the first role that calls through them (roles
    with the same endpoint share one). `usage` is that of the whole run so far, `budget` the share of the
    tightest budget that is spent, None without a budget. `waits` counts the calls that wait for something else
    than an admission: "budget", "disk full", "provider down", and "retry: KIND" with the error's class.
    """

    at: float
    admissions: dict[str, AdmissionState]
    usage: Usage
    budget: float | None = None
    waits: dict[str, int] = msgspec.field(default_factory=dict)


Event = (
    PhaseStarted
    | PhaseFinished
    | StepStarted
    | StepFinished
    | GroupStarted
    | GroupFinished
    | RolloutStarted
    | RolloutFinished
    | EffectStarted
    | EffectFinished
    | Warned
    | Noted
    | Sampled
)
Hook = Callable[[Event], None]

_STRICT: ContextVar[bool] = ContextVar("strict_hooks", default=False)


@contextmanager
def strict_hooks() -> Iterator[None]:
    """Let the error of a hook stop the run, as a `HookError`: for tests, in which a silent hook hides bugs."""
    token = _STRICT.set(True)
    try:
        yield
    finally:
        _STRICT.reset(token)


class Hooks:
    """The hooks of a run, called in the order given.

    Raises:
        ConfigError: a hook cannot be called, or is a coroutine function.
    """

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = list(hooks)
        self._strict = _STRICT.get()
        self._takers: dict[type[Event], list[Hook]] = {}
        self._off: dict[int, Hook] = {}
        for hook in self._hooks:
            called = hook if inspect.isroutine(hook) else getattr(hook, "__call__", None)  # noqa: B004
            if called is None or inspect.iscoroutinefunction(called):
                raise ConfigError(
                    f"The hook {_name(hook)} is no plain function: give one that takes an event and returns at once; "
                    "an async hook can start its own work from there."
                )

    @property
    def sample_every(self) -> float | None:
        """Seconds between two `Sampled`: the least that any hook asks for; None when none does."""
        wanted = (getattr(hook, "sample_every", None) for hook in self._hooks)
        return min((float(seconds) for seconds in wanted if seconds is not None), default=None)

    def wants(self, event: type[Event]) -> bool:
        """Tell whether any hook takes events of this class: what nobody wants need not be made."""
        return bool(self._taking(event))

    def emit(self, event: Event) -> None:
        """Hand an event to every hook that wants it; a hook that raises is switched off.

        Raises:
            HookError: a hook raised, and hooks are strict (`tfgrpo.testing.strict_hooks`).
        """
        for hook in tuple(self._taking(type(event))):
            if self._off and id(hook) in self._off:
                continue  # by a warning about the hook before it
            try:
                hook(event)
            except Exception as error:  # noqa: BLE001 - a stranger's hook must not stop a paid run
                self._switch_off(hook, event, error)

    def _taking(self, event: type[Event]) -> list[Hook]:
        takers = self._takers.get(event)
        if takers is None:
            takers = [hook for hook in self._hooks if event in getattr(hook, "wants", (event,))]
            self._takers[event] = takers
        return takers

    def _switch_off(self, hook: Hook, event: Event, error: Exception) -> None:
        told = (
            f"The hook {_name(hook)} raised {type(error).__name__} on {type(event).__name__}: {error}. It is switched "
            "off, and the run goes on without it; mend the hook before the next run."
        )
        if self._strict:
            raise HookError(told) from error
        _LOG.warning(told, exc_info=error)
        self._off[id(hook)] = hook
        self._hooks = [other for other in self._hooks if other is not hook]
        self._takers.clear()
        self.emit(Warned(told))


def _name(hook: object) -> str:
    return getattr(hook, "__qualname__", None) or type(hook).__qualname__
