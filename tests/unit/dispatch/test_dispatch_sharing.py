"""Members of a group share an exchange only where they ask the same; each has its own answer, error and end."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dispatching import opened

from tfgrpo.dispatch import Dispatcher, PrefixCache, PrefixGroup, Sharing, Watcher, model_effect
from tfgrpo.errors import GroupRequestUnsupportedError, InvalidRequestError, TfgrpoError
from tfgrpo.journal import Journal, MemoryStore
from tfgrpo.keys import Key
from tfgrpo.protocols import Observer, Store
from tfgrpo.testing import FaultPlan, FaultType, ScriptedModel, VirtualClock
from tfgrpo.types import (
    EffectStatus,
    Ending,
    Message,
    ModelReply,
    ModelRequest,
    PriorRef,
    Role,
    Rollout,
    Trajectory,
    Usage,
)

OWNER = Key("practice", 1, task="t")


def echo(request: ModelRequest) -> Sequence[str]:
    """As many answers as asked for, all different, that begin with the question."""
    return [f"{request.messages[-1].content} {request.seed} {number}" for number in range(request.n)]


def sharing_of(dispatcher: Dispatcher, members: int, *, single: bool = False) -> Sharing:
    cache = PrefixCache(used=False)
    return Sharing(
        dispatcher,
        cache=cache,
        step=PrefixGroup(cache, 0),
        prompt=10,
        members=members,
        priority=0,
        single=single,
    )


def key_of(index: int) -> Key:
    return OWNER.of(index=index).do("model", "x", "0")


async def ask(sharing: Sharing, index: int, text: str, after: float = 0.0) -> ModelReply:
    member = sharing.member()
    request = ModelRequest((Message("user", text),), temperature=1.0)
    effect = model_effect(key_of(index), Role.ROLLOUT, request)
    await anyio.sleep(after)
    return await sharing.ask(member, effect, request, Watcher())


async def ask_all(sharing: Sharing, texts: Sequence[str], first: int = 0) -> dict[int, ModelReply]:
    replies: dict[int, ModelReply] = {}

    async def one(index: int, text: str) -> None:
        replies[index] = await ask(sharing, index, text)

    async with anyio.create_task_group() as group:
        for index, text in enumerate(texts, first):
            group.start_soon(one, index, text)
    return replies


@given(
    texts=st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
    limit=st.none() | st.integers(1, 4),
    single=st.booleans(),
)
def test_only_equal_requests_share_and_each_member_has_an_answer_of_its_own(
    texts: list[str], limit: int | None, single: bool
) -> None:
    model, store = ScriptedModel(echo, 1.0, group_limit=limit), MemoryStore()

    async def main() -> dict[int, ModelReply]:
        async with opened(model, store=store) as dispatcher:
            return await ask_all(sharing_of(dispatcher, len(texts), single=single), texts)

    replies = VirtualClock().run(main)
    for index, text in enumerate(texts):
        assert replies[index].content.split()[0] == text
    assert len({reply.content for reply in replies.values()}) == len(texts)
    asked: Counter[str] = Counter()
    for request in model.requests:
        asked[request.messages[-1].content] += request.n
        assert request.n <= (1 if single else limit or len(texts))
    assert asked == Counter(texts)
    if not single:
        fewest = sum(-(-count // (limit or count)) for count in asked.values())
        assert len(model.requests) == fewest
    spent = sum((reply.usage for reply in replies.values()), Usage())
    assert spent == store.usage()[Role.ROLLOUT]
    assert spent.calls == len(model.requests)


@given(
    calls=st.integers(0, 3),
    tokens=st.tuples(*[st.integers(0, 10**6)] * 3),
    usd=st.floats(0, 100),
    parts=st.integers(1, 16),
)
def test_shares_of_usage_sum_up(calls: int, tokens: tuple[int, int, int], usd: float, parts: int) -> None:
    usage = Usage(calls, *tokens, usd)
    shares = usage.split(parts)
    total = sum(shares, Usage())
    assert len(shares) == parts
    assert (total.calls, total.input_tokens, total.cached_tokens, total.output_tokens) == (calls, *tokens)
    assert total.usd == pytest.approx(usd)
    for field in ("input_tokens", "cached_tokens", "output_tokens"):
        counts = [getattr(share, field) for share in shares]
        assert counts == sorted(counts, reverse=True)
        assert max(counts) - min(counts) <= 1


def test_who_does_something_else_first_is_not_waited_for() -> None:
    model = ScriptedModel(echo, 1.0)

    async def main() -> None:
        async with opened(model) as dispatcher, anyio.create_task_group() as group:
            sharing = sharing_of(dispatcher, 3)
            for index, after in enumerate((0.0, 0.0, 10.0)):
                group.start_soon(ask, sharing, index, "q", after)

    clock = VirtualClock()
    clock.run(main)
    assert [request.n for request in model.requests] == [2, 1]
    assert clock.now == 11.0


@asynccontextmanager
async def stores(kind: str, folder: Path) -> AsyncIterator[Store]:
    if kind == "memory":
        async with MemoryStore() as memory:
            yield memory
    else:
        async with await Journal.create(folder / "journal.db", {}) as journal:
            yield journal


@pytest.mark.parametrize("kind", ["memory", "journal"])
def test_a_member_that_gives_up_does_not_end_the_exchange_of_the_others(kind: str, tmp_path: Path) -> None:
    """Its choice is paid for and kept, even where its own record is written meanwhile."""
    model = ScriptedModel(echo, 100.0)
    answered: list[ModelReply] = []

    async def main() -> EffectStatus:
        async with stores(kind, tmp_path) as store, opened(model, store=store) as dispatcher:
            sharing = sharing_of(dispatcher, 3)

            async def impatient() -> None:
                with anyio.move_on_after(10.0) as scope:
                    await ask(sharing, 0, "q")
                assert scope.cancelled_caught
                own = OWNER.of(index=0)
                ended = Rollout("t", 0, PriorRef(0, ""), Trajectory(()), Ending.FAULTED, key=own.text)
                await store.record("rollout", own, ended)

            async def patient(index: int) -> None:
                answered.append(await ask(sharing, index, "q"))

            async with anyio.create_task_group() as group:
                group.start_soon(impatient)
                group.start_soon(patient, 1)
                group.start_soon(patient, 2)
            known = await store.find(key_of(1), ModelReply)
            assert known is not None
            assert store.usage()[Role.ROLLOUT].calls == 1
            return known.status

    clock = VirtualClock()
    assert clock.run(main) is EffectStatus.COMPLETED
    assert [request.n for request in model.requests] == [3]
    assert len(answered) == 2
    assert 100.0 <= clock.now < 101.0


def test_the_last_member_that_gives_up_ends_the_exchange() -> None:
    ended: list[float] = []

    class Hanging(ScriptedModel):
        async def complete(
            self,
            request: ModelRequest,
            *,
            key: str = "",
            observer: Observer | None = None,
            stream: bool = False,
        ) -> ModelReply:
            try:
                return await super().complete(request, key=key, observer=observer, stream=stream)
            finally:
                ended.append(anyio.current_time())

    model, store = Hanging(echo, 1e6), MemoryStore()

    async def main() -> None:
        async with opened(model, store=store) as dispatcher:
            sharing = sharing_of(dispatcher, 2)

            async def one(index: int, seconds: float) -> None:
                with anyio.move_on_after(seconds):
                    await ask(sharing, index, "q")

            async with anyio.create_task_group() as group:
                group.start_soon(one, 0, 10.0)
                group.start_soon(one, 1, 1000.0)

    VirtualClock().run(main)
    assert ended == [1000.0]
    assert len(model.requests) == 1, "who gave up does not ask again"


class Refusing(ScriptedModel):
    """Says that it has no bound, and refuses more than some answers at once."""

    def __init__(self, most: int) -> None:
        super().__init__(echo, 1.0)
        self.most = most
        self.told: int | None = None

    @property
    def group_limit(self) -> int | None:
        return self.told

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        if request.n > self.most:
            self.requests.append(request)
            self.told = self.most
            raise GroupRequestUnsupportedError(f"n = {request.n}")
        return await super().complete(request, key=key, observer=observer, stream=stream)


def test_an_endpoint_that_refuses_group_requests_is_asked_one_by_one_from_then_on() -> None:
    model, store = Refusing(1), MemoryStore()

    async def main() -> int:
        async with opened(model, store=store) as dispatcher:
            replies = await ask_all(sharing_of(dispatcher, 3), ["q"] * 3)
            assert dispatcher.group_limit(Role.ROLLOUT) == 1
            assert len({reply.content for reply in replies.values()}) == 3
        seeds = [request.seed for request in model.requests[1:]]
        assert len(set(seeds)) == 3
        fresh = ScriptedModel(echo)
        async with opened(fresh, store=store.reopened()) as dispatcher:  # the next engine knows it, too
            await ask_all(sharing_of(dispatcher, 3), ["other"] * 3, first=3)
        return max(request.n for request in fresh.requests)

    assert VirtualClock().run(main) == 1
    assert [request.n for request in model.requests] == [3, 1, 1, 1]


def test_every_member_gets_an_error_of_its_own() -> None:
    faults = FaultPlan().when(lambda call: True, FaultType.INVALID_REQUEST)
    raised: list[TfgrpoError] = []

    async def main() -> None:
        async with opened(ScriptedModel(echo, 1.0, faults)) as dispatcher:
            sharing = sharing_of(dispatcher, 3)

            async def one(index: int) -> None:
                try:
                    await ask(sharing, index, "q")
                except InvalidRequestError as error:
                    raised.append(error)

            async with anyio.create_task_group() as group:
                for index in range(3):
                    group.start_soon(one, index)

    VirtualClock().run(main)
    assert len({id(error) for error in raised}) == 3
    assert len({error.message for error in raised}) == 1
