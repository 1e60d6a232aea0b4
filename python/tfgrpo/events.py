"""What happens in a run, as data: hooks receive these events, nothing flows back up.

A hook is any callable that takes one event; it must be quick and must not raise (one that raises stops the
run with its own error, because silent hooks hide bugs). Events are emitted from the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


Event = PhaseStarted | StepStarted | RolloutFinished | GroupFinished | CallFinished | StepFinished | Warned
Hook = Callable[[Event], None]


class Hooks:
    """The hooks of a run, called in the order given."""

    def __init__(self, hooks: Iterable[Hook] = ()) -> None:
        self._hooks = tuple(hooks)

    def emit(self, event: Event) -> None:
        """Hand an event to every hook."""
        for hook in self._hooks:
            hook(event)
