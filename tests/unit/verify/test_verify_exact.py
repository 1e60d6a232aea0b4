"""The exact verifier and the factory, by example."""

from __future__ import annotations

import pytest

from tfgrpo.config import VerifierSection
from tfgrpo.errors import VerifierError
from tfgrpo.run.build import build_verifier
from tfgrpo.run.session import close_verifier
from tfgrpo.testing import ScriptedScope
from tfgrpo.types import Reward, Task
from tfgrpo.verify import ExactVerifier, MathVerifier, PythonVerifier
from tfgrpo.verify.answer import final_answer


def said(task: Task, text: str) -> ScriptedScope:
    return ScriptedScope(task, answer=text)


@pytest.mark.parametrize(
    ("reply", "truth", "right"),
    [
        ("Billing", "billing", True),
        ('  "BILLING".\n', "billing", True),
        ("bill ing", "billing", False),
        ("The answer is billing", "billing", False),
        ("I weighed it.\n<answer>\nBilling\n</answer>", "billing", True),
        (r"First \boxed{refund}, no: \boxed{\text{a}b}", r"\text{a}b", True),
        (r"<answer>\boxed{7}</answer>", "7", True),
        ("\uff11\uff12", "12", True),
        ("straße", "STRASSE", True),
        ("?", "!", False),
        ("", "billing", False),
        ("", "", True),
    ],
)
async def test_exact_compares_the_whole_normalised_answer(reply: str, truth: str, right: bool) -> None:
    reward = await ExactVerifier().verify(said(Task("t", "?", truth), reply))
    assert reward.value == float(right)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"label": "Tax", "why": "{}"}', "tax"),
        ('Draft {"label": "old"}. ```json\n{"label": "new"}\n```', "new"),
        ('I would say {"label": "a"}, no, {"label": "b"} {"other": 1}', "b"),
        ('{"label": 3}', "3"),
        ('{"label": true}', "true"),
        ('{"label": ["b", "a"]}', '["b", "a"]'),
        ('{"label": "\\ud800"}', None),
        ('{"label": null}', None),
        ('{"Label": "x"}', None),
        ('["label"]', None),
        ("label: x", None),
        ('{"label": ' * 3000, None),
    ],
)
async def test_the_field_of_a_json_reply(reply: str, answer: str | None) -> None:
    reward = await ExactVerifier("label").verify(said(Task("t", "?", "tax"), reply))
    if answer is None and "ud800" not in reply:
        assert (reward.value, reward.answer, reward.detail) == (0.0, None, "no field 'label' in the answer")
    elif answer is not None:
        assert (reward.answer, reward.value) == (answer, float(answer == "tax"))
    else:
        assert (reward.answer or "").encode("utf-8") == b"?"


def test_an_unclosed_box_is_no_mark() -> None:
    assert final_answer(r"\boxed{1} and \boxed{2", None) == "1"


async def test_a_task_without_truth_is_an_error_and_not_a_zero() -> None:
    with pytest.raises(VerifierError, match=r"task 't9' has no truth"):
        await ExactVerifier().verify(said(Task("t9", "?"), "x"))


async def test_the_factory_builds_what_the_table_asks_for() -> None:
    kinds = {"exact": ExactVerifier, "math": MathVerifier, "python": PythonVerifier}
    for kind, expected in kinds.items():
        function = "builtins:len" if kind == "python" else None
        verifier = build_verifier(VerifierSection.model_validate({"kind": kind, "function": function}))
        assert type(verifier) is expected
        await close_verifier(verifier)
    exact = build_verifier(VerifierSection(field="label"))
    reward = await exact.verify(said(Task("t", "?", "x"), '{"label": "X"}'))
    assert isinstance(reward, Reward)
    assert reward.value == 1.0
