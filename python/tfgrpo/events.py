"""What happens in a run, as data: hooks receive these events, nothing flows back up.

A hook is any callable that takes one event; it must be quick and must not raise (one that raises stops the
run with a `HookError`, because silent hooks hide bugs). Events are emitted from the event loop's thread.

`Sampled` is for displays: it comes on a timer, so that nobody has to draw once a call. It costs a timer, and is
therefore only emitted where a hook has the attribute `sample_every`, the seconds between two samples it wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from tfgrpo.errors import HookError
from tfgrpo.types import ApplyReport, Group, Rollout, Struct, Usage


class PhaseStarted(Struct, frozen=True):
    """A phase begins: "baseline", "practice" or "learned"; `rollouts` are planned in it."""

    phase: str
    tasks: int
    rollouts: int


class StepStarted(Struct, frozen=True):
    """One step of the practice loop begins; numbers count from 1."""

    step: int
    steps: int
    epoch: int
    tasks: int


class RolloutFinished(Struct, frozen=True):
    """One attempt reached its terminal record; `replayed` when it came from the journal of an earlier run."""

    phase: str
    rollout: Rollout
    replayed: bool


class GroupFinished(Struct, frozen=True):
    """A group of a practice step closed with its signal."""

    step: int
    group: Group


class CallFinished(Struct, frozen=True):
    """One paid call ended well; `total` is the usage of the whole run so far."""

    key: str
    usage: Usage
    total: Usage


class StepFinished(Struct, frozen=True):
    """A step ended: what was applied and whether the new library replaced the old one."""

    step: int
    report: ApplyReport
    accepted: bool
    version: int
    entries: int


class Warned(Struct, frozen=True):
    """Something a person should know now: a budget at 80 %, an endpoint that refuses group requests."""

    message: str


class Noted(Struct, frozen=True):
    """Something a person may want to know, and no trouble: which limit will bind."""

    message: str


class AdmissionState(Struct, frozen=True):
    """How calls to one provider pass at one instant.

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
    """How the run stands at one instant, every so many seconds.

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
    | StepStarted
    | RolloutFinished
    | GroupFinished
    | CallFinished
    | StepFinished
    | Warned
    | Noted
    | Sampled
)
Hook = Callable[[Event], None]


class Hooks:
    """The hooks of a run, called in the order given."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)

    @property
    def sample_every(self) -> float | None:
        """Seconds between two `Sampled`: the least that any hook asks for; None when none does."""
        wanted = (getattr(hook, "sample_every", None) for hook in self._hooks)
        return min((float(seconds) for seconds in wanted if seconds is not None), default=None)

    def emit(self, event: Event) -> None:
        """Hand an event to every hook.

        Raises:
            HookError: a hook raised.
        """
        try:
            for hook in self._hooks:
                hook(event)
        except Exception as error:
            raise HookError(
                f"A hook raised {type(error).__name__} on {type(event).__name__}: {error}. Mend the hook, or go on "
                "without it; everything is kept."
            ) from error
