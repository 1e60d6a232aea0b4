"""The estimate against small runs of a scripted model, and its own laws."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.steady import SteadyClock
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.config import Config
from tfgrpo.errors import ConfigError
from tfgrpo.forecast.estimate import Estimate, Line, estimate, rollout_size
from tfgrpo.forecast.guesses import Guesses, guessed
from tfgrpo.forecast.measure import phase_of
from tfgrpo.forecast.ranges import Range, around, flat
from tfgrpo.forecast.sizes import message_count
from tfgrpo.journal import JournalReader
from tfgrpo.keys import Key
from tfgrpo.models.pricing import cost
from tfgrpo.run.forecasting import facts_of, measure
from tfgrpo.run.inputs import Inputs
from tfgrpo.run.providers import price_of
from tfgrpo.testing import ScriptedModel, seeded
from tfgrpo.testing.scripts import practice_script, prompt_tokens
from tfgrpo.types import EffectStatus, Message, ModelRequest, Usage

ADDED = {"practice__propose": "add", "practice__consolidate": "none"}
GAIN = {"practice__select": "gain", "practice__gate_tasks": 10, "practice__candidates": 2, **ADDED}
PRICE = {"model__price": {"input": 2.0, "cached_input": 0.5, "output": 8.0}}


def small(folder: Path, **overrides: Any) -> Config:
    sizes = {"practice__batch_size": 12, "practice__group_size": 5, "agent__max_tokens": 2}
    return make_config(folder, practice=24, held_out=20, **(sizes | overrides))


def estimated(config: Config, guesses: Guesses | None = None) -> Estimate:
    """Counted as the loopback server counts: in words."""
    return estimate(facts_of(Inputs.load("practice", config)), guesses, prompt_tokens)


def known(line: Line) -> tuple[Range, Range, Range, Range]:
    """Calls, input, cached and output tokens of a line in which nothing is unknown."""
    found = (line.calls, line.input_tokens, line.cached_tokens, line.output_tokens)
    calls, read, cached, written = (quantity or Range() for quantity in found)
    assert None not in found
    return calls, read, cached, written


def calls_of(found: Estimate) -> dict[str, Range]:
    """Calls by phase."""
    return {line.phase: known(line)[0] for line in found.lines}


def practise(config: Config, model: ScriptedModel, run: Path) -> None:
    """Practise in virtual time: which members of a group share a request is then no matter of the machine's load."""

    async def main() -> None:
        await tfgrpo.practice(config, models=models(model), run_dir=run)

    SteadyClock().run(main)


def spent(run: Path) -> tuple[Counter[str], Usage]:
    calls: Counter[str] = Counter()
    with JournalReader(run / "journal.db") as reader:
        for call in reader.calls():
            assert call.state is EffectStatus.COMPLETED or call.usage.calls == 0
            calls[phase_of(call.key) or ""] += call.usage.calls
        return calls, sum(reader.usage_by_role().values(), Usage())


@pytest.mark.parametrize(
    ("overrides", "group_limit"),
    [
        pytest.param({**ADDED, **PRICE}, None, id="as guessed"),
        pytest.param({**ADDED, "practice__epochs": 2}, 1, id="no group requests"),
        pytest.param({"model__group_requests": "never", **ADDED}, 1, id="never"),
        pytest.param({}, None, id="batch"),
        pytest.param({"practice__summaries": "always", "practice__consolidate": "strategy"}, None, id="told"),
        pytest.param(GAIN, None, id="gain"),
    ],
)
def test_a_real_run_stays_inside_the_range(
    tmp_path: Path, overrides: dict[str, Any], group_limit: int | None
) -> None:
    # One answer in five is right, so two groups in three are mixed, as the guess has it; experiences do not help.
    config = small(tmp_path, **overrides)
    before = estimated(config)
    practise(config, ScriptedModel(practice_script(0.2, 0.0), group_limit=group_limit), tmp_path / "run")
    calls, usage = spent(tmp_path / "run")
    by_phase = calls_of(before)
    for phase, count in calls.items():
        assert by_phase[phase].low <= count <= by_phase[phase].high, phase
    total, read, _, written = known(before.total)
    assert total.low <= usage.calls <= total.high
    assert read.low <= usage.input_tokens <= read.high
    assert usage.output_tokens <= written.high
    if before.total.usd is not None:
        usd = cost(usage, price_of(config.model.price))
        assert before.total.usd.low <= usd <= before.total.usd.high
    # With the means of the run in place of the guesses, the likely course is what was spent.
    facts = facts_of(Inputs.load("practice", config))
    total, read, _, _ = known(estimated(config, measure(facts, tmp_path / "run")).total)
    assert read.middle == pytest.approx(usage.input_tokens, rel=0.15)
    assert total.middle == pytest.approx(usage.calls, rel=0.15)
    assert total.low <= usage.calls <= total.high


def as_guessed(request: ModelRequest) -> str:
    """Two groups in three are mixed, whatever the seeds; every lesson has the 22 words that the guess gives it."""
    if request.schema_name != "advantage":
        key = request.messages[-1].content.rpartition("(key: ")[2].rstrip(")")
        return str(practice_script(0.5 if int(key, 16) % 3 else 0.0, 0.0)(request))
    words = [seeded(request).choice(("north", "east", "south", "west")) for _ in range(21)]
    return json.dumps({"when": " ".join(words[:14]), "do": f"{' '.join(words[14:])} {request.seed}"})


def test_where_the_guesses_hold_the_input_is_met(tmp_path: Path) -> None:
    config = small(tmp_path, **ADDED)
    total, read, _, _ = known(estimated(config).total)
    practise(config, ScriptedModel(as_guessed), tmp_path / "run")
    _, usage = spent(tmp_path / "run")
    assert read.middle == pytest.approx(usage.input_tokens, rel=0.15)
    assert total.middle == pytest.approx(usage.calls, rel=0.15)


SHAPES: list[dict[str, Any]] = [
    {},
    {"practice__epochs": 3, "practice__library_tokens": 60},
    {"practice__group_size": 1, "practice__ground_truth": True},
    {"practice__ground_truth": False, "practice__summaries": "never"},
    {"practice__summaries": "always", "agent__max_tokens": 3000, "agent__system": "word " * 1200},
    {**GAIN, "practice__probe_tasks": 0},
    {**GAIN, "practice__consolidate": "batch"},
    {"model__structured": "prompt", "agent__response_schema": {"type": "object"}},
    {"model__group_requests": "always"},
    {"practice__consolidate": "strategy"},
    {"practice__oversample": 3, "practice__max_staleness": 1, "model__group_requests": "never"},
]


@pytest.mark.parametrize("overrides", SHAPES)
def test_low_middle_and_high_are_in_order(tmp_path: Path, overrides: dict[str, Any]) -> None:
    found = estimated(small(tmp_path, limits__requests_per_minute=60, **PRICE, **overrides))
    for line in (*found.lines, found.total):
        _, read, saved, _ = ranges = known(line)
        for wanted in [line.attempts, *ranges, *([line.usd] if line.usd is not None else [])]:
            assert 0 <= wanted.low <= wanted.middle <= wanted.high, (line.phase, wanted)
        for cached, whole in zip(ends(saved), ends(read), strict=True):
            assert cached <= whole
    assert known(found.total)[0].middle == sum(calls.middle for calls in calls_of(found).values())
    assert {line.phase for line in found.lines} >= {"baseline", "practice", "learned", "advantage"}


def ends(wanted: Range) -> tuple[float, float, float]:
    return wanted.low, wanted.middle, wanted.high


def test_what_is_certain_is_exact(tmp_path: Path) -> None:
    calls = calls_of(estimated(small(tmp_path, evaluation__samples=2)))
    assert ends(calls["baseline"])[:2] == (20, 20)
    assert calls["practice"].low == 24
    single = estimated(small(tmp_path, model__group_requests="never", practice__refills=0))
    assert ends(calls_of(single)["practice"]) == (24 * 5,) * 3
    assert single.lines[0].phase == "baseline"
    assert known(single.lines[0])[1].middle == 20 * 2 * 7  # seven words a question
    assert ends(single.total.attempts)[:2] == (20 * 2 * 2 + 24 * 5,) * 2


def test_what_an_oversampled_group_may_start_is_at_the_high_end(tmp_path: Path) -> None:
    spare = {"practice__oversample": 3, "practice__refills": 0}
    assert ends(calls_of(estimated(small(tmp_path, **spare)))["practice"]) == (24, 24, 24 * 8)
    never = estimated(small(tmp_path, model__group_requests="never", **spare))
    assert ends(calls_of(never)["practice"]) == (24 * 5, 24 * 8, 24 * 8)


def test_a_long_common_beginning_counts_as_cached(tmp_path: Path) -> None:
    short = known(estimated(small(tmp_path, agent__system="word " * 500)).lines[0])[2]
    long = known(estimated(small(tmp_path, agent__system="word " * 1100)).lines[0])[2]
    assert (short.low, short.middle) == (0, 0)
    assert long.middle == 19 * 1100
    assert short.high > 0


def test_the_embedded_model_costs_nothing_and_takes_groups_of_four(tmp_path: Path) -> None:
    config = small(tmp_path, evaluation__samples=6)
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"base_url": None, "name": None, "local": "default"})}
    )
    found = estimated(config)
    assert ends(calls_of(found)["baseline"])[:2] == (40, 40)
    assert found.total.usd == flat(0)


def test_time_is_told_by_the_limit_that_binds(tmp_path: Path) -> None:
    free = small(tmp_path, limits__requests_per_minute=None)
    assert estimated(free).least_seconds is None
    found = estimated(small(tmp_path, limits__requests_per_minute=60, limits__tokens_per_minute=100))
    floors = {floor.limit: floor.seconds for floor in found.floors}
    calls, read, _, written = known(found.total)
    assert floors["limits.requests_per_minute"].middle == calls.middle
    assert floors["limits.tokens_per_minute"].middle == pytest.approx((read.middle + written.middle) * 0.6)
    assert found.least_seconds == floors["limits.tokens_per_minute"]


def test_limits_hold_for_each_provider(tmp_path: Path) -> None:
    other = {"base_url": "http://127.0.0.1:8/v1", "name": "other"}
    found = estimated(small(tmp_path, limits__requests_per_minute=60, model__distiller=other))
    assert [floor.provider for floor in found.floors] == ["rollout", "distiller"]
    assert sum(floor.seconds.middle for floor in found.floors) == known(found.total)[0].middle


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"budget__tokens": 100}, "budget.tokens = 100 cannot be enough"),
        ({"budget__tokens": 5_000}, "will probably end the run early"),
        ({"budget__tokens": 50_000}, "is likely to be enough, but not for the high end"),
        ({"budget__usd": 1.0}, "budget.usd cannot bind"),
        ({"budget__usd": 0.000001, **PRICE}, "budget.usd = $0.00 cannot be enough"),
    ],
)
def test_the_budget_is_compared(tmp_path: Path, overrides: dict[str, Any], words: str) -> None:
    (warning,) = estimated(small(tmp_path, **overrides)).warnings
    assert words in warning
    assert estimated(small(tmp_path, budget__tokens=10_000_000)).warnings == ()


def test_the_guesses_are_told(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__group_size=3)
    facts = facts_of(Inputs.load("practice", config))
    assert guessed(facts.method, facts.agent, facts.distill).teaching.middle == 0.5
    text = " ".join(estimated(config).assumptions)
    for part in ("50% of the groups teach", "agent.max_tokens is not set", "n = group_size", "o200k"):
        assert part in text


def test_a_run_that_is_none_or_empty_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with pytest.raises(ConfigError, match="no run directory"):
        measure(facts_of(Inputs.load("practice", config)), tmp_path)


def test_prompts_are_counted_with_their_frames() -> None:
    count = message_count("gpt-4o")
    assert count([Message("system", "one two three"), Message("user", "four")]) == 4 + 2 * 4


def test_a_call_of_the_rollouts_has_a_size(tmp_path: Path) -> None:
    found = estimated(small(tmp_path, evaluation__samples=1, practice__group_size=1))
    tokens_in, tokens_out = rollout_size(found) or (0, 0)
    assert 7 < tokens_in < 200
    assert tokens_out == 2.0


def test_keys_belong_to_phases() -> None:
    distill = Key("distill", 1, task="t")
    keys = {
        Key("practice", 1, task="t", index=0).do("rollout", "00ff", "0"): "practice",
        Key("gate", 1, "old", "t", 2).do("rollout", "00ff", "0"): "gate",
        distill.do("summary", "0003"): "summarize",
        distill.do("advantage"): "advantage",
        distill.do("advantage", "repair", "0"): "advantage",
        distill.do("propose"): "propose",
        distill.do("other"): None,
        Key("consolidate", 1).do("3"): "consolidate",
        Key("doctor"): None,
    }
    assert {key: phase_of(key) for key in keys} == keys


def test_lines_add_up_in_ranges() -> None:
    assert Range(1, 2, 3) + Range(1, 1, 1) == Range(2, 3, 4)
    assert Range(1, 2, 3) * 2 == Range(1, 2, 3) * Range(2, 2, 2) == Range(2, 4, 6)
    assert Range(1.2, 2.5, 3.1).whole() == Range(1, 2, 4)
    assert (Range(-1, 2, 9).least(0), Range(-1, 2, 9).most(3)) == (Range(0, 2, 9), Range(-1, 2, 3))
    assert around(10) == Range(8, 10, 12.5)
