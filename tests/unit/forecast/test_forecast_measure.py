"""Agents with any number of turns: nothing is invented beforehand, and a run tells what an attempt takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.steady import SteadyClock
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.config import Config
from tfgrpo.errors import ConfigError
from tfgrpo.events import Event, Noted
from tfgrpo.forecast.estimate import Estimate
from tfgrpo.forecast.refine import refine
from tfgrpo.run.forecasting import FIRST_ATTEMPTS, FirstAttempts, estimate_practice, first_attempts
from tfgrpo.run.inputs import Inputs
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Ending, Message, ModelRequest, PriorRef, Rollout, Trajectory, Usage

ATTEMPTED = ("baseline", "practice", "learned")


def run(job: Callable[..., Awaitable[object]], config: Config, **arguments: Any) -> None:
    """Run a job in virtual time: which attempts share a request is then no matter of the machine's load."""

    async def main() -> None:
        await job(config, **arguments)

    SteadyClock().run(main)


class Turns:
    """Asks three times, one question behind the other."""

    async def attempt(self, scope: tfgrpo.Scope) -> str:
        said = scope.messages
        for _ in range(2):
            reply = await scope.ask(ModelRequest(said))
            said = (*said, reply.message, Message("user", "Go on."))
        return (await scope.ask(ModelRequest((*said, *scope.messages)))).content


def test_a_run_of_an_agent_with_turns_tells_what_the_same_run_takes(tmp_path: Path) -> None:
    config = make_config(tmp_path, practice__epochs=2)
    model = ScriptedModel(practice_script())
    run(tfgrpo.practice, config, agent=Turns(), models=models(model), run_dir=tmp_path / "run")
    found = estimate_practice(config, tmp_path / "run", agent=Turns())
    for line in found.lines:
        if line.phase in ATTEMPTED:
            assert line.calls is not None
            assert line.calls.middle > 2 * line.attempts.middle  # only the first turn is shared
    assert found.total.calls is not None
    assert found.total.calls.middle == pytest.approx(sum(model.served.values()), rel=0.15)
    assert found.total.calls.low <= sum(model.served.values()) <= found.total.calls.high
    assert "an attempt makes 3 calls" in " ".join(found.assumptions)
    assert "limits.concurrency" in {floor.limit for floor in found.floors}
    # Another plan with the same agent: twice the answers take about twice the calls.
    more = estimate_practice(
        make_config(tmp_path, practice__epochs=2, evaluation__samples=4), tmp_path / "run", agent=Turns()
    )
    calls = [next(line.calls for line in one.lines if line.phase == "baseline") for one in (found, more)]
    assert calls[0] is not None
    assert calls[1] is not None
    assert calls[1].middle / calls[0].middle == pytest.approx(2, rel=0.15)


def test_one_phase_tells_what_an_attempt_takes_in_the_others(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    model = ScriptedModel(practice_script())
    run(tfgrpo.evaluate, config, agent=Turns(), models=models(model), run_dir=tmp_path / "run")
    found = {line.phase: line for line in estimate_practice(config, tmp_path / "run", agent=Turns()).lines}
    assert found["learned"].calls is not None
    assert found["learned"].calls.middle == sum(model.served.values())
    assert found["baseline"].calls == found["learned"].calls
    assert found["practice"].calls is not None
    assert found["practice"].calls.middle == 6 * (1 + 3 * 2)  # a shared first turn, and two more each
    # The library that the run learns stands in every prompt of its evaluation, and in none of the baseline.
    before, after = found["baseline"].input_tokens, found["learned"].input_tokens
    assert before is not None
    assert after is not None
    assert after.middle > before.middle


def test_the_calls_of_a_judge_have_a_line(tmp_path: Path) -> None:
    class Judging:
        async def verify(self, scope: tfgrpo.Scope) -> float:
            await scope.judge(ModelRequest((Message("user", f"Is {scope.answer} right?"),)))
            return float(scope.answer == scope.task.truth)

    config = make_config(tmp_path)
    model = ScriptedModel(practice_script())
    run(tfgrpo.practice, config, verifier=Judging(), models=models(model), run_dir=tmp_path / "run")
    found = estimate_practice(config, tmp_path / "run")
    line = found.lines[-1]
    assert (line.role, line.phase) == ("judge", "judge")
    assert line.calls is not None
    assert line.calls.middle == pytest.approx(line.attempts.middle)


def unknown(folder: Path) -> Estimate:
    return estimate_practice(make_config(folder, budget__tokens=5), agent=Turns())


def test_without_a_run_only_attempts_are_told(tmp_path: Path) -> None:
    found = unknown(tmp_path)
    lines = {line.phase: line for line in found.lines}
    assert lines["practice"].attempts.middle == 6 * 3
    assert lines["practice"].calls is lines["practice"].output_tokens is lines["practice"].usd is None
    assert found.total.calls is found.total.input_tokens is None
    assert found.total.attempts.middle == 5 * 2 * 2 + 6 * 3
    assert lines["advantage"].calls is not None  # of the distiller it is known
    assert found.warnings == ()
    assert "an unknown number of calls" in found.assumptions[0]


def test_a_run_directory_without_calls_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"")
    with pytest.raises((ConfigError, tfgrpo.JournalError)):
        estimate_practice(make_config(tmp_path), tmp_path)


# --- from the first attempts of the run itself


def rollout(usd: float = 0.01) -> Rollout:
    return Rollout(
        "t",
        0,
        PriorRef(0, ""),
        Trajectory(()),
        Ending.COMPLETED,
        started=10.0,
        finished=14.0,
        usage=Usage(3, 900, 0, 100, usd),
    )


def test_the_first_attempts_tell_the_rest(tmp_path: Path) -> None:
    told = refine(unknown(tmp_path), [rollout()] * 8).message
    assert told.startswith("after 8 attempts: one takes about 3 calls, 1,000 tokens ($0.0100) and 4 s;")
    assert "the other 30 will take about 90 calls, 30,000 tokens and $0.30;" in told
    assert "the distiller will be asked about" in told
    assert "$" not in refine(unknown(tmp_path), [rollout(0.0)]).message


def test_a_run_says_it_once_after_its_first_attempts(tmp_path: Path) -> None:
    config = make_config(tmp_path, held_out=15)
    inputs = Inputs.load("practice", config)
    assert first_attempts(inputs, None, ()) == ()  # of the direct agent all is known before
    notes: list[Event] = []
    (hook,) = first_attempts(inputs, Turns(), [notes.append])
    assert isinstance(hook, FirstAttempts)
    model = ScriptedModel(practice_script())
    run(tfgrpo.practice, config, agent=Turns(), models=models(model), run_dir=tmp_path / "run", hooks=[hook])
    (note,) = notes
    assert isinstance(note, Noted)
    assert note.message.startswith(f"after {FIRST_ATTEMPTS} attempts: one takes about 2.5 calls")
