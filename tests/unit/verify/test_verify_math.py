"""The math verifier: equality as mathematics, real recorded answers, hung, killed and cancelled workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import VerifierError
from tfgrpo.testing import ScriptedScope
from tfgrpo.types import Reward, Task
from tfgrpo.verify import MathVerifier
from tfgrpo.verify import math as room

RECORDED = sorted(Path(__file__).parents[4].glob("shared/data/recorded/*.jsonl"))

#: Stands for a worker: answers, hangs or dies as the request's answer says.
FAKE = """
import json, os, sys, time
print("READY", flush=True)
for line in sys.stdin:
    answer = json.loads(line)["answer"]
    if answer == "hang":
        time.sleep(60)
    if answer == "die":
        os._exit(9)
    print(json.dumps({"value": 1.0, "answer": str(os.getpid())}), flush=True)
"""


@pytest.fixture
async def verifier() -> AsyncIterator[MathVerifier]:
    made = MathVerifier(workers=1)
    yield made
    await made.aclose()


@pytest.fixture
def fake_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "worker.py"
    script.write_text(FAKE)
    monkeypatch.setattr(room, "_SCRIPT", script)


async def grade(verifier: MathVerifier, reply: str, truth: str | None) -> Reward:
    return await verifier.verify(ScriptedScope(Task("t", "?", truth), answer=reply))


async def test_equal_as_mathematics(verifier: MathVerifier) -> None:
    right = [
        (r"Thus \boxed{\frac{1}{2}}.", "0.5", "1/2"),
        ("so the result is 1/2", r"\frac12", "1/2"),
        ("<answer>\n1,000\n</answer>", "1000", "1000"),
        (r"It is 3, no: $\sqrt{8}$", r"2\sqrt{2}", "sqrt(8)"),
        (r"\boxed{\{2, 1\}}", r"$\{1, 2\}$", "{1, 2}"),
        ("<answer>The answer is 30 dogs</answer>", "30", "30"),
        ("<answer>**30**</answer>", "30", "30"),
        (r"first \boxed{3} but really \boxed{4}", "4", "4"),
    ]
    for reply, truth, text in right:
        reward = await grade(verifier, reply, truth)
        assert (reward.value, reward.answer) == (1.0, text), reply
    for reply, truth in [
        (r"\boxed{3}", "4"),
        ("12, then 13", "12"),
        (r"\boxed{x+30}", "30"),
        ("<answer>log 8</answer>", "8"),
    ]:
        assert (await grade(verifier, reply, truth)).value == 0.0, reply
    nothing = await grade(verifier, "I cannot tell.", "4")
    assert (nothing.value, nothing.answer, nothing.detail) == (
        0.0,
        None,
        "no number or expression in the answer",
    )
    with pytest.raises(VerifierError, match=r"truth of task 't'.*holds no number"):
        await grade(verifier, "4", "")
    with pytest.raises(VerifierError, match="has no truth"):
        await grade(verifier, "4", None)


async def test_the_field_of_a_json_reply_is_an_expression(fake_worker: None) -> None:
    verifier = MathVerifier("x", workers=1)
    assert (await grade(verifier, '{"x": 5}', "5")).value == 1.0
    assert (await grade(verifier, "5", "5")).detail == "no field 'x' in the answer"
    await verifier.aclose()


@pytest.mark.skipif(not RECORDED, reason="the recorded answers are not part of the repository")
async def test_recorded_answers_are_graded_as_their_answer_tag_says() -> None:
    verifier = MathVerifier()
    rewards: list[tuple[dict[str, str], float]] = []

    async def grade_row(row: dict[str, str]) -> None:
        rewards.append((row, (await grade(verifier, row["final_output"], row["target"])).value))

    async with anyio.create_task_group() as group:
        for path in RECORDED:
            for line in path.read_text(encoding="utf-8").splitlines():
                group.start_soon(grade_row, json.loads(line))
    await verifier.aclose()
    for row, value in rewards:
        tag = row["final_output"].rpartition("<answer>")[2].partition("</answer>")[0].strip()
        if tag.isdigit():
            assert value == float(int(tag) == int(row["target"])), row["target"]
    # Real answers of real models to hard questions: some right, most wrong.
    assert 0.05 < sum(value for _, value in rewards) / len(rewards) < 0.5


async def test_a_hung_comparison_is_a_fault_and_its_worker_is_replaced(fake_worker: None) -> None:
    verifier = MathVerifier(timeout=0.3, workers=1)
    first = (await grade(verifier, "go", "1")).answer
    assert (await grade(verifier, "go", "1")).answer == first
    with pytest.raises(VerifierError, match=r"task 't' took longer than 0\.3 s"):
        await grade(verifier, "hang", "1")
    _assert_dead(first)
    assert (await grade(verifier, "go", "1")).answer != first
    await verifier.aclose()


async def test_a_dead_worker_is_a_fault_or_replaced(fake_worker: None) -> None:
    verifier = MathVerifier(workers=1)
    with pytest.raises(VerifierError, match="process that compared the answer to task 't' died"):
        await grade(verifier, "die", "1")
    idle = (await grade(verifier, "go", "1")).answer
    os.kill(int(idle or ""), signal.SIGKILL)
    await verifier._idle[0]._process.wait()
    assert (await grade(verifier, "go", "1")).answer != idle
    await verifier.aclose()


async def test_cancellation_kills_the_worker_and_frees_its_slot(fake_worker: None) -> None:
    verifier = MathVerifier(workers=1)
    first = (await grade(verifier, "go", "1")).answer
    with anyio.move_on_after(0.2) as scope:
        await grade(verifier, "hang", "1")
    assert scope.cancelled_caught
    _assert_dead(first)
    assert (await grade(verifier, "go", "1")).value == 1.0
    await verifier.aclose()
    await verifier.aclose()


async def test_no_more_workers_than_asked_for(fake_worker: None) -> None:
    verifier = MathVerifier(workers=2)
    seen: set[str | None] = set()

    async def one() -> None:
        seen.add((await grade(verifier, "go", "1")).answer)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(one)
    assert 1 <= len(seen) <= 2
    await verifier.aclose()
    for pid in seen:
        _assert_dead(pid)


async def test_a_worker_that_does_not_start_says_how_to_see_why(
    fake_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    room._SCRIPT.write_text("raise SystemExit(1)")
    with pytest.raises(VerifierError, match="import math_verify"):
        await grade(MathVerifier(workers=1), "1", "1")
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(VerifierError, match="cannot start a process"):
        await grade(MathVerifier(workers=1), "1", "1")


def _assert_dead(pid: str | None) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid or ""), 0)
