"""What is open while effects are made: models, account, admissions, dispatcher; the same for runs and engines."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from tfgrpo.dispatch import Budget, Dispatcher
from tfgrpo.dispatch.sample import sampling
from tfgrpo.events import Hooks, Warned
from tfgrpo.models import Model
from tfgrpo.protocols import Store, Verifier
from tfgrpo.run.providers import open_providers
from tfgrpo.run.stop import StopSwitch
from tfgrpo.types import Limits, Price, Role, Usage


@asynccontextmanager
async def open_dispatcher(
    store: Store,
    models: Mapping[Role, Model],
    hooks: Hooks,
    *,
    limits: Limits,
    budget: Budget,
    prices: Mapping[Role, Price | None],
    seed: int,
    stop: StopSwitch | None = None,
) -> AsyncIterator[Dispatcher]:
    """Open the dispatcher for the length of a block.

    Args:
        store: an open one; the block's end leaves it open.
        models: by role.
        hooks: receive events.
        limits: of each provider.
        budget: the account, which goes on counting from what the store holds.
        prices: by role.
        seed: of the run.
        stop: asks it to launch nothing more.

    Raises:
        JournalError: the store cannot be read.

    Cancellation: propagates.
    """
    budget.spent = sum(store.usage().values(), Usage())
    budget.warn = lambda message: hooks.emit(Warned(message))
    providers = open_providers(models, limits, prices)
    dispatcher = Dispatcher(store, providers, budget, hooks, attempts=limits.attempts, seed=seed)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(dispatcher.opened())
        admissions = {role: provider.admission for role, provider in providers.items()}
        await stack.enter_async_context(sampling(hooks, admissions, budget, dispatcher.waits))
        if stop is not None:
            stop.attach(dispatcher.halt)
        yield dispatcher


def window_of(limits: Limits) -> int:
    """How many groups are under way at once: enough that a place never waits for one to be opened."""
    return max(2 * limits.concurrency, 64)


async def close_verifier(verifier: Verifier) -> None:
    """Let a verifier free what it holds, where it has an `aclose`."""
    close = getattr(verifier, "aclose", None)
    if close is not None and inspect.isawaitable(done := close()):
        await done
