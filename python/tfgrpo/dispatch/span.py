"""The span of one attempt at an effect, for the hooks that want it."""

from __future__ import annotations

import anyio

from tfgrpo.dispatch.admission import Lease
from tfgrpo.events import EffectFinished, EffectStarted, Hooks
from tfgrpo.protocols import Effect
from tfgrpo.types import Fault, Usage


def span_of(hooks: Hooks, effect: Effect, lease: Lease) -> Span | None:
    """The span of an attempt that queues now; None where no hook wants it."""
    if hooks.wants(EffectFinished) or hooks.wants(EffectStarted):
        return Span(hooks, effect, lease)
    return None


class Span:
    """The span of one attempt, from queueing for its slot: emits its start and its end."""

    __slots__ = ("_attempt", "_effect", "_first", "_hooks", "_queued", "_sent")

    def __init__(self, hooks: Hooks, effect: Effect, lease: Lease) -> None:
        self._hooks = hooks
        self._effect = effect
        self._queued = self._sent = anyio.current_time()
        self._first: float | None = None
        self._attempt = 0
        sent, token = lease.on_sent, lease.on_first_token

        def on_sent() -> None:
            self._sent = anyio.current_time()
            if sent is not None:
                sent()

        def on_first_token() -> None:
            if self._first is None:
                self._first = anyio.current_time()
            if token is not None:
                token()

        lease.on_sent, lease.on_first_token = on_sent, on_first_token

    def started(self, attempt: int) -> None:
        """The intent is durable: the request is about to be sent."""
        self._attempt = attempt
        effect = self._effect
        self._hooks.emit(
            EffectStarted(
                key=effect.key.text,
                parent=effect.key.owner.text,
                kind=effect.kind,
                role=effect.role,
                attempt=attempt,
            )
        )

    def ended(self, usage: Usage, total: Usage, fault: Fault | None = None) -> None:
        """The outcome is durable."""
        effect = self._effect
        self._hooks.emit(
            EffectFinished(
                key=effect.key.text,
                parent=effect.key.owner.text,
                kind=effect.kind,
                role=effect.role,
                attempt=self._attempt,
                queued=self._sent - self._queued,
                first_token=None if self._first is None else self._first - self._sent,
                seconds=anyio.current_time() - self._queued,
                usage=usage,
                total=total,
                fault=fault,
            )
        )
