"""The judge of `bench.engine`: a wrong engine must not win, and no bound may be higher than what is possible."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from bench.engine import lessons, work
from bench.engine.child import Tally, fan_out
from bench.engine.definition import Definition, Expect, Gate, read, read_all
from bench.engine.figures import lower_bound, middle, of_calls, of_practice, of_resume
from bench.engine.protocol import Answer
from bench.engine.runner import RIVALS, Bench
from bench.engine.table import markdown, terminal, verdict, verdicts
from hypothesis import given
from hypothesis import strategies as st

BENCH = Path(__file__).parents[2] / "bench"
DEFINITIONS = BENCH / "engine" / "definitions"


def counted(**other: Any) -> dict[str, Any]:
    """What the server says after ten calls that went well."""
    counts = {
        "requests": 10,
        "served": 10,
        "streamed": 0,
        "rate_limited": 0,
        "tokens": 7000,
        "marks": 55,
        "peak_in_flight": 4,
        "permitted": 0.0,
        "permitted_admitted": 0.0,
        "permitted_tokens": 0.0,
    }
    return counts | other


def told(**other: Any) -> dict[str, Any]:
    """What the client says of them."""
    return {"answered": 10, "marks": 55, "tokens": 7000, "cpu": 0.02, "wall": 2.0, "rss": 50.0} | other


def test_figures_of_calls() -> None:
    found = of_calls({"calls": 10, "in_flight": 4}, told(), counted())
    assert found["cpu"] == pytest.approx(2.0)
    assert (found["answered"], found["served"], found["right"], found["lost"]) == (1.0, 1.0, 1.0, 0.0)
    assert "used" not in found
    assert "share of the possible rate" not in found


@pytest.mark.parametrize(
    ("client", "server", "figure", "value"),
    [
        ({"marks": 54}, {}, "right", 0.0),
        ({"tokens": 0}, {}, "right", 0.0),
        ({"answered": 8}, {}, "lost", 2.0),
        ({}, {"served": 12}, "served", 1.2),
        ({}, {"rate_limited": 5, "requests": 15}, "429 share", pytest.approx(1 / 3)),
        ({}, {"permitted": 12.5}, "used", 0.8),
        ({}, {"permitted": 12.5, "permitted_admitted": 10.0}, "used to the last admission", 1.0),
        ({}, {"permitted_tokens": 10_000.0}, "used tokens", 0.7),
        ({"late p99": 0.02}, {}, "late p99", 20.0),
    ],
)
def test_what_goes_wrong_shows_in_a_figure(
    client: dict[str, Any], server: dict[str, Any], figure: str, value: float
) -> None:
    found = of_calls({"calls": 10, "in_flight": 4}, told(**client), counted(**server))
    assert found[figure] == value


def test_the_possible_rate_counts_whole_waves_and_lost_calls() -> None:
    ask = {"calls": 10, "in_flight": 4, "seconds": 0.5}
    assert of_calls(ask, told(), counted())["share of the possible rate"] == pytest.approx(0.75)
    assert of_calls(ask, told(answered=5), counted())["share of the possible rate"] == pytest.approx(0.375)


def call(latency: float, tokens: float = 100.0, served: int = 1) -> dict[str, float]:
    return {"latency": latency, "tokens": tokens, "served": served}


STEP = {
    "practice/0001/t1/0000x1": call(1.0),
    "practice/0001/t1/0001x1": call(5.0),
    "distill/0001/t1/summary/0000": call(2.0),
    "distill/0001/t1/summary/0001": call(1.0),
    "distill/0001/t1/advantage": call(1.0),
    "distill/0001/t1/advantage/repair/0": call(0.5),
    "distill/0001/t1/propose": call(0.25),
    "practice/0001/t2/0000x1": call(6.0),
    "consolidate/0001": call(0.25),
}


def test_the_critical_path_is_the_slowest_group_and_what_follows_it() -> None:
    bounds = lower_bound(STEP, places=32)
    assert bounds["critical path"] == pytest.approx(5.0 + 2.0 + 1.0 + 0.5 + 0.25 + 0.25)
    assert bounds["lower bound"] == bounds["critical path"]


def test_places_calls_and_tokens_bound_a_step_too() -> None:
    assert lower_bound(STEP, places=1)["lower bound"] == pytest.approx(17.0)
    by_calls = lower_bound(STEP, 32, {"rate": 0.5, "burst": 1.0})
    assert by_calls["lower bound"] == by_calls["calls by limit"] == pytest.approx(16.0)
    by_tokens = lower_bound(STEP, 32, {"tokens_per_minute": 1200.0, "token_burst": 100.0})
    assert by_tokens["lower bound"] == by_tokens["tokens by limit"] == pytest.approx(40.0)


@given(
    st.lists(st.lists(st.floats(0.01, 9.0), min_size=3, max_size=3), min_size=1, max_size=6),
    st.integers(1, 8),
)
def test_no_schedule_beats_the_bound(groups: list[list[float]], places: int) -> None:
    """A greedy schedule on so many places, each group's stages one after another, is never below the bound."""
    calls = {}
    for number, (rollout, advantage, proposal) in enumerate(groups):
        calls[f"practice/0001/t{number}/0000x1"] = call(rollout)
        calls[f"distill/0001/t{number}/advantage"] = call(advantage)
        calls[f"distill/0001/t{number}/propose"] = call(proposal)
    calls["consolidate/0001"] = call(1.0)
    free = [0.0] * places
    ready = [(0.0, number, 0) for number in range(len(groups))]
    ends = []
    while ready:
        since, number, stage = ready.pop(ready.index(min(ready)))
        place = free.index(min(free))
        free[place] = max(free[place], since) + groups[number][stage]
        if stage < 2:
            ready.append((free[place], number, stage + 1))
        else:
            ends.append(free[place])
    assert max(ends) + 1.0 >= lower_bound(calls, places)["lower bound"] - 1e-9


def test_a_step_that_pays_twice_is_seen() -> None:
    keys = {"practice/0001/t1/0000x1": call(1.0), "practice/0001/t1/0001x1": call(1.0, served=2)}
    counts = counted(keys=keys, served=3)
    found = of_practice({"in_flight": 2}, {"wall": 1.5, "cpu": 0.1, "taught": 1, "entries": 2}, counts, {})
    assert (found["once"], found["over the bound"]) == (0.5, 1.5)


def test_the_median_of_rounds() -> None:
    assert middle([{"cpu": 1.0}, {"cpu": 9.0}, {"cpu": 2.0, "late": 1.0}]) == {"cpu": 2.0, "late": 1.0}


def definition(*gates: Gate, expect: tuple[Expect, ...] = ()) -> Definition:
    return Definition("d", "d", "calls", 3, ("ours", "rival"), {"cpu": "s"}, expect, gates, {}, {}, {}, "")


def test_gates_are_ratios_of_the_same_run() -> None:
    made = definition(
        Gate("cpu", "rival", 8.0, None, 20.0),
        Gate("cpu", "rival", None, 1.5, 0.1),
        Gate("cpu", None, None, 1.0, None),
        Gate("none", None, 1.0, None, None),
    )
    rows = verdicts(made, {"ours": {"cpu": 2.0}, "rival": {"cpu": 18.0}})["gates"]
    assert [row["value"] for row in rows] == [9.0, pytest.approx(1 / 9), 2.0, None]
    assert [row["reached"] for row in rows] == [True, True, False, None]
    assert [row["stretched"] for row in rows] == [False, False, False, None]
    assert [verdict(row) for row in rows] == ["met", "met", "**missed**", "not measured"]


def test_the_stretch_is_said() -> None:
    made = definition(Gate("used", None, 0.97, None, 0.99), Gate("lost", None, None, 0.0, 0.0))
    rows = verdicts(made, {"ours": {"used": 0.995, "lost": 0.0}})["gates"]
    assert [verdict(row) for row in rows] == ["met, stretch too"] * 2


@pytest.mark.parametrize("found", [{"cpu": 1.0, "served": 1.01}, {"cpu": 1.0}])
def test_who_counts_wrongly_or_not_at_all_reaches_no_gate(found: dict[str, float]) -> None:
    made = definition(Gate("cpu", "rival", 3.0, None, None), expect=(Expect("*", "served", 1.0, 1.0),))
    judged = verdicts(made, {"ours": found, "rival": {"cpu": 35.0, "served": 1.0}})
    (row,) = judged["gates"]
    assert row["reached"] is False
    assert "our counts" in verdict(row)


def test_a_wrong_rival_is_said_beside_the_gate() -> None:
    made = definition(Gate("cpu", "rival", 3.0, None, None), expect=(Expect("*", "served", 1.0, 1.0),))
    judged = verdicts(made, {"ours": {"cpu": 1.0, "served": 1.0}, "rival": {"cpu": 35.0, "served": 0.5}})
    assert "the rival's counts" in verdict(judged["gates"][0])


def test_every_row_and_every_complaint_is_printed() -> None:
    made = definition(Gate("cpu", "rival", 3.0, None, 9.0), expect=(Expect("*", "served", 1.0, 1.0),))
    figures = {"ours": {"cpu": 1.0, "served": 1.0}, "rival": {"cpu": 4.0, "served": 0.5}}
    result = {
        "title": "A title",
        "note": "A note.",
        "ask": {"calls": 4000, "stream": True},
        "rounds": 3,
        "show": made.show,
        "engines": {"ours": "what we are"},
        "failed": {"third": "no such package"},
        "errors": {"rival": {"TimeoutError": 7}},
        "figures": figures,
    } | verdicts(made, figures)
    record = {
        "machine": {"processor": "p", "cores": 2, "python": "3.11"},
        "server": {"calls a second": 80_000.0, "microseconds a call": 11.0},
        "load before": 0.5,
        "minutes": 1.0,
        "definitions": {"d": result},
    }
    for text in (terminal(result), markdown(record)):
        assert "cpu: ≥ 3× less than rival" in text
        assert "third failed: no such package" in text
        assert "rival lost calls: TimeoutError (7×)" in text
        assert "wrong: rival has served 0.5, expected 1 to 1" in text
    assert "80,000 calls a second" in markdown(record)


@pytest.mark.parametrize("quick", [False, True])
def test_the_definitions_are_read_and_each_engine_has_its_file(quick: bool) -> None:
    made = read_all(DEFINITIONS, quick=quick)
    assert len(made) >= 13
    for one in made:
        assert hasattr(Bench, one.do)
        assert all((BENCH / "engines" / f"{name}.py").exists() for name in (*one.engines, *one.each))
        assert quick or {gate.rival for gate in one.gates} - {None} <= set(one.engines)
        assert one.expect, "a wrong engine could win"
        assert one.gates


def test_each_rival_has_pinned_requirements() -> None:
    for folder in set(RIVALS.values()):
        text = (BENCH / "engine" / f"requirements-{folder}.txt").read_text(encoding="utf-8")
        assert "--hash=sha256:" in text


def test_a_quick_run_has_its_own_numbers() -> None:
    path = DEFINITIONS / "01-calls-256.toml"
    whole, quick = read(path), read(path, quick=True)
    assert quick.rounds < whole.rounds
    assert quick.server == whole.server
    assert quick.each["openai_aiohttp"]["calls"] < whole.each["openai_aiohttp"]["calls"]


@pytest.mark.parametrize(
    "wrong",
    [
        '[[gate]]\nfigure = "q"\nat_best = 1.0\n',
        '[[gate]]\nfigure = "q"\n',
        '[[expect]]\nfigure = "q"\nleast = 1\nmost = 1\nmore = 2\n',
    ],
)
def test_an_unknown_word_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f'title = "t"\ndo = "calls"\nrounds = 3\nengines = []\n[show]\n{wrong}')
    with pytest.raises(SystemExit):
        read(path)


def test_calls_have_distinct_keys_and_five_share_their_messages() -> None:
    assert len({work.key(index) for index in range(1000)}) == 1000
    texts = {work.messages(index)[1]["content"] for index in range(1000)}
    assert len(texts) == 1000 // work.GROUP


def test_the_provider_tells_distiller_and_rollout_apart() -> None:
    assert all(lessons.OBJECTIVE not in work.messages(index)[1]["content"] for index in range(100))
    assert lessons.OBJECTIVE not in work.SYSTEM
    assert [rule["contains"] for rule in lessons.ANSWERS][-1] == ""


def test_a_client_that_fails_loses_the_call_and_goes_on() -> None:
    async def ask(index: int) -> Answer:
        if index == 2:
            raise RuntimeError("status 429")
        return Answer(f"{index:08x} text", 10)

    figures = asyncio.run(fan_out(ask, range(5), 2)).figures()
    assert figures["answered"] == 4
    assert figures["marks"] == 0 + 1 + 3 + 4
    assert figures["errors"] == {"RuntimeError: status 429": 1}


def test_what_is_not_answered_by_the_deadline_lacks() -> None:
    async def ask(index: int) -> Answer:
        if index > 0:
            await asyncio.Event().wait()
        return Answer(f"{index:08x} text", 10)

    assert asyncio.run(fan_out(ask, range(5), 2, 0.01)).answered == 1


def test_an_answer_that_is_not_the_servers_is_no_answer() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Tally().count(Answer("no mark here", 1))


def test_a_resume_that_asks_again_is_wrong() -> None:
    told_of = {"known": True, "mark": 7, "rss": 80.0, "cpu whole": 0.9}
    counts = {"first": 101.25, "served": 1, "marks": 7}
    found = of_resume(told_of, counts, 100.0)
    assert (found["start to first request"], found["right"]) == (1.25, 1.0)
    assert of_resume(told_of | {"known": False}, counts, 100.0)["right"] == 0.0
    assert of_resume(told_of, counts | {"marks": 8}, 100.0)["right"] == 0.0
