"""Laws of the forecast: whatever the plan, a run asks for no less and no more than was foretold, phase by phase."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.steady import SteadyClock
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.config import Config
from tfgrpo.events import EffectFinished, Event, PhaseStarted, RolloutFinished
from tfgrpo.forecast.measure import phase_of
from tfgrpo.keys import Key
from tfgrpo.run.forecasting import estimate_practice
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import practice_script

RUNS = settings(
    max_examples=max(20, settings().max_examples // 10),  # whole runs: fewer of them, more at night
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

PLANS = st.fixed_dictionaries(
    {
        "practice__group_size": st.integers(1, 4),
        "practice__epochs": st.integers(1, 2),
        "practice__batch_size": st.integers(1, 5),
        "practice__oversample": st.sampled_from([0, 0, 2]),
        "practice__max_staleness": st.sampled_from([0, 0, 1]),
        "practice__summaries": st.sampled_from(["auto", "always", "never"]),
        "practice__propose": st.sampled_from(["model", "add"]),
        "practice__consolidate": st.sampled_from(["batch", "strategy", "none"]),
        "practice__select": st.sampled_from(["none", "gain"]),
        "practice__candidates": st.integers(1, 3),
        "practice__probe_tasks": st.integers(0, 2),
        "practice__gate_tasks": st.integers(1, 4),
        "practice__gate_samples": st.integers(1, 2),
        "evaluation__samples": st.integers(1, 3),
        "model__group_requests": st.sampled_from(["auto", "never"]),
        "run__seed": st.integers(0, 9),
    }
)


class Asked:
    """A hook that counts calls and attempts by phase."""

    wants = (EffectFinished, RolloutFinished, PhaseStarted)

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.planned: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, EffectFinished):
            self.calls[phase_of(Key.parse(event.key)) or "none"] += event.usage.calls
        elif isinstance(event, RolloutFinished):
            self.attempts[event.phase] += 1
        elif isinstance(event, PhaseStarted):
            self.planned[event.phase] = event.rollouts


def asked(config: Config, model: ScriptedModel) -> Asked:
    """Practise, and count."""
    counts = Asked()

    async def main() -> None:
        async with tfgrpo.MemoryStore() as store:
            await tfgrpo.practice(config, models=models(model), store=store, hooks=[counts])

    SteadyClock().run(main)
    return counts


@RUNS
@given(PLANS, st.sampled_from([0.0, 0.4, 0.8, 1.0]), st.sampled_from([-0.3, 0.0, 0.5]), st.booleans())
def test_a_run_asks_for_what_was_foretold(
    plan: dict[str, Any], base: float, gain: float, refuses: bool
) -> None:
    limit = 1 if refuses or plan["model__group_requests"] == "never" else None
    with TemporaryDirectory() as folder:
        config = make_config(Path(folder), practice=4, held_out=3, **plan)
        foretold = {line.phase: line for line in estimate_practice(config).lines}
        counts = asked(config, ScriptedModel(practice_script(base, gain), group_limit=limit))
    for phase in counts.calls.keys() | counts.attempts.keys() | foretold.keys():
        line = foretold.get(phase)
        assert line is not None, f"{phase}: {counts.calls[phase]} calls that were not foretold"
        assert line.calls is not None
        assert line.calls.low <= counts.calls[phase] <= line.calls.high, (phase, line.calls)
        if phase in counts.attempts:
            assert line.attempts.low <= counts.attempts[phase] <= line.attempts.high, (phase, line.attempts)
    for phase in ("baseline", "practice", "learned"):  # the engine announces what the plan says
        assert foretold[phase].attempts.low == counts.planned[phase]
