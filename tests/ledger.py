"""Short forms for tests that write to a store."""

from __future__ import annotations

from typing import Any

from tfgrpo.journal import digest_of
from tfgrpo.keys import Key
from tfgrpo.protocols import Effect, Store, Ticket
from tfgrpo.types import EffectKind, ModelReply, Role


def effect(key: Key, request: Any, role: Role = Role.ROLLOUT, kind: EffectKind = EffectKind.MODEL) -> Effect:
    """An effect with the digest of its request."""
    return Effect(key, kind, role, digest_of(request), request)


async def intend(store: Store, key: Key, request: Any, role: Role = Role.ROLLOUT) -> Ticket:
    """Intend one model call."""
    [ticket] = await store.intend([effect(key, request, role)])
    return ticket


async def pay(store: Store, key: Key, request: Any, reply: ModelReply, role: Role = Role.ROLLOUT) -> None:
    """Intend and complete one model call."""
    await store.complete(await intend(store, key, request, role), reply, reply.usage)
