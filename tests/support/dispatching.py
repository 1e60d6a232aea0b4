"""A dispatcher in front of a model, with all that it needs, for tests of what goes through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from tfgrpo.dispatch import Admission, Budget, Dispatcher, Provider
from tfgrpo.events import Hook, Hooks
from tfgrpo.journal import MemoryStore
from tfgrpo.protocols import Model, Store
from tfgrpo.types import Role


@asynccontextmanager
async def opened(
    model: Model,
    *,
    store: Store | None = None,
    hooks: Iterable[Hook] = (),
    attempts: int = 6,
    budget: Budget | None = None,
    concurrency: int = 64,
) -> AsyncIterator[Dispatcher]:
    """An open dispatcher, whose provider has a known rate, so that nothing has to be felt out."""
    provider = Provider(model, Admission(concurrency=concurrency, requests_per_minute=60_000_000))
    dispatcher = Dispatcher(
        MemoryStore() if store is None else store,
        dict.fromkeys(Role, provider),
        budget or Budget(),
        Hooks(hooks),
        attempts=attempts,
    )
    async with dispatcher.opened():
        yield dispatcher
