"""First requests that are equal share an exchange: who leaves it, who breaks it, and what the store then holds."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import anyio
import pytest
from tests.support.dispatching import opened

from tfgrpo.dispatch import Dispatcher, Sharing, Watcher, model_effect
from tfgrpo.dispatch.prefix import PrefixCache, PrefixGroup
from tfgrpo.errors import ConnectionLostError, CutOffError, JournalError, ModelError
from tfgrpo.journal import MemoryStore
from tfgrpo.keys import Key
from tfgrpo.protocols import Ticket
from tfgrpo.testing import FaultPlan, FaultType, ScriptedModel, VirtualClock
from tfgrpo.types import Choice, Fault, Message, ModelReply, ModelRequest, Role, Usage

GROUP = Key("practice", 1, task="t")
REQUEST = ModelRequest((Message("user", "Which way?"),))
MEMBERS = 3


def model(**more: Any) -> ScriptedModel:
    return ScriptedModel(lambda request: Choice("north"), latency=10.0, **more)


class GivenUp(Watcher):
    """A call that is given up, whenever it is cancelled, because its group needs it no longer."""

    def abandoned(self) -> ModelError | None:
        """See `Watcher`."""
        return CutOffError("not needed")


class Group:
    """The members of one group, each of which asks the same."""

    def __init__(self, dispatcher: Dispatcher, watcher: Watcher | None = None) -> None:
        cache = PrefixCache(used=False)
        self.sharing = Sharing(
            dispatcher, cache=cache, step=PrefixGroup(cache, 0), prompt=3, members=MEMBERS, priority=0
        )
        self.watcher = watcher or Watcher()
        self.replies: dict[int, ModelReply] = {}
        self.errors: dict[int, Exception] = {}
        self.settled: dict[int, float] = {}

    async def ask(self, index: int, seconds: float | None = None) -> None:
        """Ask, for so many seconds at most."""
        member = self.sharing.member()
        effect = model_effect(GROUP.of(index=index).do("model", "0"), Role.ROLLOUT, REQUEST)
        try:
            with anyio.move_on_after(seconds):
                self.replies[index] = await self.sharing.ask(member, effect, REQUEST, self.watcher)
        except Exception as error:  # noqa: BLE001
            self.errors[index] = error
        self.sharing.arrive(member)
        await self.sharing.settled(member)
        self.settled[index] = anyio.current_time()


def run(main: Any) -> None:
    VirtualClock().run(main)


def test_members_who_leave_before_anything_is_sent_send_nothing() -> None:
    told: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        asked = model()
        async with opened(asked) as dispatcher:
            group = Group(dispatcher)
            async with anyio.create_task_group() as tasks:
                for index in range(MEMBERS - 1):  # the third has not asked yet: the others wait for it
                    tasks.start_soon(group.ask, index)
                await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            await anyio.sleep(1.0)
        assert asked.requests == []

    run(main)
    assert told == []


def test_who_leaves_is_settled_when_the_exchange_is_over_and_the_others_have_their_answers() -> None:
    async def main() -> None:
        asked, store = model(), MemoryStore()
        async with opened(asked, store=store) as dispatcher:
            group = Group(dispatcher)
            async with anyio.create_task_group() as tasks:
                for index, seconds in enumerate((1.0, None, None)):
                    tasks.start_soon(group.ask, index, seconds)
        assert [request.n for request in asked.requests] == [3]
        assert set(group.replies) == {1, 2}
        assert group.settled[0] >= 10.0
        assert store.open_intents() == 0

    run(main)


@pytest.mark.parametrize(("watcher", "left"), [(Watcher(), MEMBERS), (GivenUp(), 0)])
def test_the_exchange_ends_with_the_last_of_its_members(watcher: Watcher, left: int) -> None:
    async def main() -> None:
        store = MemoryStore()
        async with opened(model(), store=store) as dispatcher:
            group = Group(dispatcher, watcher)
            async with anyio.create_task_group() as tasks:
                for index, seconds in enumerate((1.0, 2.0, 3.0)):
                    tasks.start_soon(group.ask, index, seconds)
            assert anyio.current_time() < 4.0
        assert set(group.settled) == {0, 1, 2}
        assert store.open_intents() == left
        assert store.faults() == ({} if left else {"CutOffError": MEMBERS})

    run(main)


class Refusing(MemoryStore):
    """Takes intents and no outcome."""

    async def complete(self, ticket: Ticket, result: Any, usage: Usage) -> None:
        """As said."""
        await anyio.sleep(1.0)
        raise JournalError("The disk is gone.")


def test_a_store_that_refuses_tells_every_member_by_an_error_of_its_own() -> None:
    async def main() -> None:
        async with opened(model(), store=Refusing()) as dispatcher:
            group = Group(dispatcher)
            async with anyio.create_task_group() as tasks:
                for index in range(MEMBERS):
                    tasks.start_soon(group.ask, index)
        assert Counter(type(error) for error in group.errors.values()) == {JournalError: MEMBERS}
        assert len({id(error) for error in group.errors.values()}) == MEMBERS

    run(main)


class SlowToFail(MemoryStore):
    """Takes a failure at once, and a second to say so, as a disk does."""

    async def fail(self, ticket: Ticket, fault: Fault, *, maybe_paid: bool, usage: Usage = Usage()) -> None:  # noqa: B008
        """As said."""
        await super().fail(ticket, fault, maybe_paid=maybe_paid, usage=usage)
        await anyio.sleep(1.0)


def test_a_failure_that_is_cancelled_is_written_for_every_member() -> None:
    async def main() -> None:
        store = SlowToFail()
        asked = model(faults=FaultPlan().when(lambda call: True, FaultType.RESET_AFTER))
        async with opened(asked, store=store) as dispatcher:
            group = Group(dispatcher)
            async with anyio.create_task_group() as tasks:
                for index in range(MEMBERS):
                    tasks.start_soon(group.ask, index)
                await anyio.sleep(10.5)
                tasks.cancel_scope.cancel()
        assert store.open_intents() == 0
        assert store.faults() == {ConnectionLostError.__name__: MEMBERS}

    run(main)
