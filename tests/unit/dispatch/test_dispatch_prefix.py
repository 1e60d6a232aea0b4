"""Leaders and followers: who goes first, who waits for whom, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.support.steady import SteadyClock
from tests.support.streamed import StreamedModel
from tests.support.world import Recorded, make_config

import tfgrpo
from tfgrpo.config import Endpoint, PriceSection
from tfgrpo.dispatch.prefix import LONGEST_HOLD, SHORTEST_HOLD, WORTHWHILE, PrefixCache, PrefixGroup, leading
from tfgrpo.errors import RunStoppedError
from tfgrpo.events import EffectFinished, Event
from tfgrpo.keys import Key
from tfgrpo.run.build import build_cache
from tfgrpo.testing import VirtualClock
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Role, Task, Usage

SCRIPT = practice_script()
SYSTEM = " ".join(f"rule{number}" for number in range(100))
REMOTE = Endpoint(base_url="https://api.example.com/v1", name="m")
TASKS = [Task(str(number), f"question {number}") for number in range(6)]


def run(
    folder: Path, model: StreamedModel, *, clock: SteadyClock | None = None, **overrides: Any
) -> tfgrpo.Run:
    folder.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {
        "practice": 4,
        "held_out": 2,
        "agent__system": SYSTEM,
        "model__prefix_cache": "on",
    }
    config = make_config(folder, **(defaults | overrides))

    async def main() -> tfgrpo.Run:
        return await tfgrpo.practice(config, models=dict.fromkeys(Role, model), run_dir=folder / "run")

    return (clock or SteadyClock()).run(main)


def gaps(model: StreamedModel, phase: str = "practice") -> dict[str, list[float]]:
    """When the calls of each group of a phase were sent, counted from the first."""
    times = model.times(f"{phase}/")
    start = min(times.values())
    groups: dict[str, list[float]] = {}
    for key, at in sorted(times.items(), key=lambda item: item[1]):
        groups.setdefault(Key.parse(key).task or "", []).append(round(at - start, 3))
    return groups


# --- in a run ----------------------------------------------------------------------------------------------


def test_one_prompt_leads_the_step_and_one_each_group(tmp_path: Path) -> None:
    model = StreamedModel(SCRIPT, first=2.0, rest=30.0)
    run(tmp_path, model)
    groups = gaps(model)
    first, *others = groups.values()
    assert first == [0.0, 2.0, 2.0]
    assert others == [[2.0, 4.0, 4.0]] * 3
    practice = [sent for sent in model.sent if sent.key.startswith("practice/")]
    assert sum(sent.stream for sent in practice) == 4, "leaders are streamed, and only they"


def test_two_questions_lead_where_the_provider_wants_two(tmp_path: Path) -> None:
    model = StreamedModel(SCRIPT, first=2.0, rest=30.0)
    run(tmp_path, model, model__prefix_leaders=2)
    assert sorted(group[0] for group in gaps(model).values()) == [0.0, 0.0, 2.0, 2.0]


def test_with_group_requests_only_the_step_is_led(tmp_path: Path) -> None:
    model = StreamedModel(SCRIPT, first=2.0, rest=30.0, group_limit=None)
    run(tmp_path, model)
    assert sorted(gaps(model).values()) == [[0.0], [2.0], [2.0], [2.0]]


def test_leading_pays_and_costs_two_first_tokens(tmp_path: Path) -> None:
    """What it is for: prompt tokens found in the cache. What it costs: two first tokens in each of three phases."""
    led, free = (StreamedModel(SCRIPT, first=2.0, rest=30.0) for _ in range(2))
    clocks = SteadyClock(), SteadyClock()
    run(tmp_path / "on", led, clock=clocks[0])
    run(tmp_path / "off", free, clock=clocks[1], model__prefix_cache="off")
    assert Recorded(tmp_path / "on").library.digest == Recorded(tmp_path / "off").library.digest
    assert {s.key for s in led.sent} == {s.key for s in free.sent}
    paid = [sum(s.fresh for s in model.sent if "distill" not in s.key) for model in (led, free)]
    assert paid[0] < 0.7 * paid[1]
    assert clocks[0].now - clocks[1].now <= 3 * 2 * 2.0 + 0.1


def test_a_leader_that_fails_holds_nobody(tmp_path: Path) -> None:
    def broken(key: str) -> bool:
        return key.startswith("practice/") and Key.parse(key).index == 0

    model = StreamedModel(SCRIPT, first=2.0, rest=30.0, broken=broken)
    run(tmp_path, model, limits__attempts=1)
    groups = gaps(model)
    first, *others = groups.values()
    assert first[:3] == [0.0, 2.0, 2.0]
    # Who waited goes; of each group the first to ask fails as well.
    assert all(group[:3] == [2.0, 4.0, 4.0] for group in others)


def test_a_leader_without_a_first_token_holds_followers_for_a_bounded_time(tmp_path: Path) -> None:
    def first(key: str) -> float:
        return 400.0 if key.startswith("practice/") and Key.parse(key).index == 0 else 2.0

    model = StreamedModel(SCRIPT, first=first, rest=30.0)
    run(tmp_path, model)
    # Earlier leaders took 2 s, so 6 s are patience enough.
    assert next(iter(gaps(model).values()))[:3] == [0.0, 6.0, 6.0]


def test_auto_leads_once_the_provider_showed_a_cache(tmp_path: Path) -> None:
    silent, telling = (StreamedModel(SCRIPT, 2.0, 30.0, cached=cached) for cached in (False, True))
    run(tmp_path / "silent", silent, model__prefix_cache="auto", evaluation__samples=3)
    run(tmp_path / "telling", telling, model__prefix_cache="auto", evaluation__samples=3)
    assert not any(sent.stream for sent in silent.sent)
    assert set(map(tuple, gaps(silent).values())) == {(0.0, 0.0, 0.0)}
    # All of the baseline leaves at once; what it stored is found, and told, by practice.
    assert set(map(tuple, gaps(telling).values())) == {(0.0, 0.0, 0.0)}
    assert sorted(gaps(telling, "learned").values()) == [[0.0, 2.0, 2.0], [2.0, 4.0, 4.0]]


def test_short_prompts_wait_for_nobody(tmp_path: Path) -> None:
    model = StreamedModel(SCRIPT, first=2.0, rest=30.0)
    run(tmp_path, model, agent__system="")
    assert set(map(tuple, gaps(model).values())) == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("after", [1, 5, 9, 13, 17])
def test_a_resumed_run_is_led_by_what_is_still_to_be_sent(tmp_path: Path, after: int) -> None:
    run(tmp_path / "whole", StreamedModel(SCRIPT, 2.0, 5.0))
    config = make_config(tmp_path, practice=4, held_out=2, agent__system=SYSTEM, model__prefix_cache="on")
    stop, seen = tfgrpo.StopSwitch(), 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, EffectFinished)
        if seen >= after:
            stop.stop()

    first, second = StreamedModel(SCRIPT, 2.0, 5.0), StreamedModel(SCRIPT, 2.0, 5.0)

    async def begin() -> None:
        await tfgrpo.practice(
            config, models=dict.fromkeys(Role, first), run_dir=tmp_path / "run", hooks=[interrupt], stop=stop
        )

    async def go_on() -> tfgrpo.Run:
        return await tfgrpo.resume(tmp_path / "run", models=dict.fromkeys(Role, second))

    with pytest.raises(RunStoppedError):
        SteadyClock().run(begin)
    SteadyClock().run(go_on)
    assert Recorded(tmp_path).library.digest == Recorded(tmp_path / "whole").library.digest
    assert not {s.key for s in first.sent} & {s.key for s in second.sent}


# --- a prefix group by itself -------------------------------------------------------------------------------


def prefix(cache: PrefixCache, different: int = 1, shared: int = WORTHWHILE) -> PrefixGroup:
    return PrefixGroup(cache, shared, different)


def used() -> PrefixCache:
    return PrefixCache(used=True)


async def travel(
    one: PrefixGroup, task: Task, went: list[tuple[str, float]], ride: Callable[[Any], Awaitable[None]]
) -> None:
    """Join, note when the call could go, and make it."""
    with leading() as places:
        places.add(await one.join(task.input))
        went.append((task.id, anyio.current_time()))
        await ride(places)


async def drive(ride: Callable[[Any], Awaitable[None]], one: PrefixGroup, tasks: list[Task]) -> list[Any]:
    went: list[tuple[str, float]] = []
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(travel, one, task, went, ride)
    return went


async def ordinary(places: Any) -> None:
    places.launched()
    await anyio.sleep(3.0)
    places.first_token()
    await anyio.sleep(50.0)


def test_equal_questions_do_not_lead_twice() -> None:
    tasks = [TASKS[0], Task("again", TASKS[0].input), TASKS[1], TASKS[2]]
    went = VirtualClock().run(drive, ordinary, prefix(used(), different=2), tasks)
    assert went == [("0", 0.0), ("1", 0.0), ("again", 3.0), ("2", 3.0)]


def test_who_waited_for_a_leader_that_was_never_sent_takes_its_place() -> None:
    async def replayed_first(places: Any) -> None:
        if len(seen) == 0:
            seen.append(1)
            await anyio.sleep(1.0)
            places.first_token()  # the journal answered
        else:
            await ordinary(places)

    seen: list[int] = []
    went = VirtualClock().run(drive, replayed_first, prefix(used()), TASKS[:4])
    assert went == [("0", 0.0), ("1", 1.0), ("2", 4.0), ("3", 4.0)]


def test_a_leader_that_waits_for_its_slot_is_waited_for() -> None:
    async def queued(places: Any) -> None:
        if places.own:
            await anyio.sleep(500.0)
        await ordinary(places)

    went = VirtualClock().run(drive, queued, prefix(used()), TASKS[:3])
    assert went == [("0", 0.0), ("1", 503.0), ("2", 503.0)]


def test_the_next_to_come_leads_after_a_failure() -> None:
    one = prefix(used())

    async def failing(places: Any) -> None:
        places.launched()
        await anyio.sleep(1.0)

    async def main() -> list[Any]:
        went = await drive(failing, one, TASKS[:3])
        return went + await drive(ordinary, one, TASKS[3:6])

    went = VirtualClock().run(main)
    assert [at for _, at in went] == [0.0, 1.0, 1.0, 2.0, 5.0, 5.0]


def test_a_cancelled_leader_frees_its_followers() -> None:
    one = prefix(used())
    went: list[tuple[str, float]] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(cancelled)
            await anyio.lowlevel.checkpoint()
            group.start_soon(travel, one, TASKS[1], went, ordinary)

    async def cancelled() -> None:
        with anyio.move_on_after(7.0):
            await travel(one, TASKS[0], [], forever)

    async def forever(places: Any) -> None:
        await anyio.sleep_forever()

    VirtualClock().run(main)
    assert went == [("1", 7.0)]


def test_patience_follows_what_first_tokens_take() -> None:
    cache = used()
    assert cache.hold == LONGEST_HOLD
    for seconds in (2.0, 2.0, 300.0):
        cache.took(seconds)
    assert cache.hold == 6.0
    for _ in range(32):
        cache.took(0.01)
    assert cache.hold == SHORTEST_HOLD
    for _ in range(32):
        cache.took(100.0)
    assert cache.hold == LONGEST_HOLD


def test_what_auto_rests_on() -> None:
    price = PriceSection(input=1.0, output=1.0, cached_input=0.1)
    local = Endpoint(local="default", price=price)
    assert not build_cache(REMOTE).used
    assert build_cache(REMOTE.model_copy(update={"price": price})).used
    assert not build_cache(local).used
    for endpoint, then in (
        (REMOTE, True),
        (local, False),
        (REMOTE.model_copy(update={"prefix_cache": "off"}), False),
    ):
        cache = build_cache(endpoint)
        cache.reported(Usage(1, 100, 0, 1))
        assert not cache.used
        cache.reported(Usage(1, 100, 64, 1))
        assert cache.used == then
    assert build_cache(local.model_copy(update={"prefix_cache": "on"})).used


def test_deepseek_wants_two_leaders() -> None:
    assert REMOTE.leading_questions == 1
    deepseek = Endpoint(base_url="https://api.deepseek.com/v1", name="deepseek-chat")
    assert deepseek.leading_questions == 2
    assert build_cache(deepseek).leading_questions == 2
    assert deepseek.model_copy(update={"prefix_leaders": 1}).leading_questions == 1
