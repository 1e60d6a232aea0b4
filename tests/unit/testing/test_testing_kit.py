"""Scripts, fault plans, schema instances and the scripted model: functions of their arguments, all of them."""

from __future__ import annotations

import random
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo import errors
from tfgrpo.models import GroupRequestUnsupportedError, Model
from tfgrpo.testing import (
    FaultPlan,
    FaultType,
    PlannedFault,
    ScriptedModel,
    VirtualClock,
    instance_of,
    seeded,
)
from tfgrpo.testing.faults import Call
from tfgrpo.testing.scripts import CHOICES, answers, practice_script, tickets, truth_of, with_key
from tfgrpo.types import Choice, Message, ModelRequest, Usage

names = st.text("abcd", min_size=1, max_size=3)
leaves = st.one_of(
    st.builds(lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
              st.integers(0, 30), st.integers(0, 40)),
    st.builds(lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
              st.integers(-5, 5), st.integers(0, 5)),
    st.builds(lambda low: {"type": "integer", "exclusiveMinimum": low}, st.integers(-5, 5)),
    st.builds(lambda high: {"type": "number", "maximum": high}, st.floats(-50, 50)),
    st.just({"type": ["string", "null"]}),
    st.just({"type": "boolean"}),
    st.just({"const": 3}),
    st.just({"$ref": "#/$defs/tree"}),
    st.builds(lambda values: {"enum": values}, st.lists(st.integers(-9, 9) | st.text(max_size=5), min_size=1)),
)  # fmt: skip


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    required = sorted(properties)[::2]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(names, inner, max_size=4).map(_object),
        st.builds(lambda item, low, more: {"type": "array", "items": item, "minItems": low, "maxItems": low + more},
                  inner, st.integers(0, 3), st.integers(0, 3)),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    ),
    max_leaves=8,
)  # fmt: skip
TREE = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}


@given(schema=schemas, seed=st.integers())
def test_an_instance_is_valid_under_its_schema_and_repeats(schema: dict[str, Any], seed: int) -> None:
    schema = schema | {"$defs": {"tree": TREE}}
    value = instance_of(schema, random.Random(seed))
    jsonschema.validate(value, schema)
    assert instance_of(schema, random.Random(seed)) == value


def test_named_strings_and_keywords_not_understood() -> None:
    schema = _object({"target": {"type": "string"}})
    assert instance_of(schema, random.Random(0), named={"target": ["E7"]}) == {"target": "E7"}
    with pytest.raises(ValueError, match="pattern"):
        instance_of({"type": "string", "pattern": "a+"}, random.Random(0))


# --- scripts -----------------------------------------------------------------------------------------------


def ask(text: str, prior: str = "", **more: Any) -> ModelRequest:
    return ModelRequest((Message("system", prior), Message("user", text)), **more)


def _share(prior: str, **more: Any) -> float:
    right = 0
    for key in range(400):
        request = ask(with_key("Where?", key), prior, seed=key, **more)
        said = tickets(request)
        assert isinstance(said, str)
        answer = said if request.response_schema is None else orjson.loads(said)["queue"]
        right += answer == truth_of(request.messages[-1].content)
    return right / 400


def test_experiences_raise_the_share_of_right_answers() -> None:
    schema = _object({"queue": {"enum": list(CHOICES)}})
    assert 0.3 < _share("") < 0.5
    assert 0.6 < _share("Learned:\n[E1] When lost, ask.") < 0.8
    assert 0.6 < _share("[E1] When lost, ask.", response_schema=schema) < 0.8


@given(schema=schemas.filter(lambda schema: schema.get("type") == "object"))
def test_a_distillers_schema_is_obeyed(schema: dict[str, Any]) -> None:
    schema = schema | {"$defs": {"tree": TREE}}
    said = tickets(ask("Compare these attempts.", response_schema=schema))
    assert isinstance(said, str)
    jsonschema.validate(orjson.loads(said), schema)


@given(seed=st.integers(0, 1000), n=st.integers(1, 6))
def test_a_group_request_answers_as_its_single_requests(seed: int, n: int) -> None:
    group = answers(tickets, ask(with_key("Where?", 1), seed=seed, n=n))
    singles = [answers(tickets, ask(with_key("Where?", 1), seed=seed + place)) for place in range(n)]
    assert group == tuple(choice for (choice,) in singles)


def test_a_script_may_give_all_answers_itself_but_not_too_few() -> None:
    assert answers(lambda _: ["a", Choice("b")], ask("?", n=2)) == (Choice("a"), Choice("b"))
    with pytest.raises(ValueError, match="1 answers to a request for 2"):
        answers(lambda _: ["a"], ask("?", n=2))


def test_chance_depends_on_the_request_only() -> None:
    assert seeded(ask("a", n=2)).random() == seeded(ask("a")).random()
    assert seeded(ask("a", seed=1)).random() != seeded(ask("a", seed=2)).random()
    assert practice_script(base=1.0)(ask(with_key("x", 9))) == truth_of(with_key("y", 9))


# --- fault plans -------------------------------------------------------------------------------------------


@given(seed=st.integers(), keys=st.lists(st.text(), unique=True), order=st.randoms())
def test_a_random_plan_does_not_depend_on_the_order_of_calls(
    seed: int, keys: list[str], order: random.Random
) -> None:
    plan = FaultPlan.random(seed, 0.5)
    calls = [(key, attempt) for key in keys for attempt in (1, 2)]
    shuffled = order.sample(calls, len(calls))
    decided = {call: plan.decide(Call(*call, nth, ask("x"))) for nth, call in enumerate(calls, start=1)}
    again = {call: plan.decide(Call(*call, nth, ask("x"))) for nth, call in enumerate(shuffled, start=1)}
    assert decided == again


def test_rates_and_bounds_of_a_random_plan() -> None:
    def share(plan: FaultPlan, attempt: int) -> float:
        return sum(plan.decide(Call(f"k{i}", attempt, i, ask("x"))) is not None for i in range(1000)) / 1000

    assert share(FaultPlan.random(1, 0.0), 1) == 0.0
    assert share(FaultPlan.random(1, 1.0), 1) == 1.0
    assert 0.25 < share(FaultPlan.random(1, 0.3), 1) < 0.35
    assert share(FaultPlan.random(1, 1.0, attempts=2), 3) == 0.0


def test_rules_are_tried_in_order() -> None:
    plan = (
        FaultPlan()
        .at(2, FaultType.MALFORMED)
        .on_key("k", PlannedFault(FaultType.OVERLOADED, 3.0), attempts=2)
        .when(lambda call: call.request.n > 1, FaultType.SERVER_ERROR)
    )
    kinds = [
        plan.decide(Call(key, attempt, nth, ask("x", n=n)))
        for key, attempt, nth, n in [("k", 1, 1, 1), ("k", 2, 2, 1), ("k", 3, 3, 1), ("j", 1, 4, 2)]
    ]
    assert [fault and fault.type for fault in kinds] == ["overloaded", "malformed", None, "server_error"]


# --- the scripted model ------------------------------------------------------------------------------------


async def test_the_scripted_model_counts_and_prices_by_words() -> None:
    scripted = ScriptedModel(lambda _: "two words")
    model: Model = scripted
    reply = await model.complete(ask("three short words", n=2), key="k")
    assert reply.choices == (Choice("two words"),) * 2
    assert reply.usage == Usage(1, 3, 0, 4)
    await model.aclose()
    assert (scripted.calls["k"], scripted.served["k"], scripted.closed) == (1, 1, True)


@pytest.mark.parametrize("fault", [kind for kind in FaultType if not kind.answered])
async def test_a_planned_fault_is_raised_once_and_counted_when_paid(fault: FaultType) -> None:
    model = ScriptedModel(lambda _: "x", faults=FaultPlan().on_key("k", PlannedFault(fault, 2.0)))
    with pytest.raises(errors.ModelError) as caught:
        await model.complete(ask("?"), key="k")
    assert caught.value.retry_after == 2.0
    assert (await model.complete(ask("?"), key="k")).choices == (Choice("x"),)
    assert model.served["k"] == 1 + fault.paid


async def test_the_scripted_model_refuses_groups_beyond_its_limit() -> None:
    model = ScriptedModel(lambda _: "x", group_limit=2)
    assert len((await model.complete(ask("?", n=2))).choices) == 2
    with pytest.raises(GroupRequestUnsupportedError):
        await model.complete(ask("?", n=3))


def test_latency_passes_on_the_loops_clock() -> None:
    clock = VirtualClock()
    model = ScriptedModel(lambda _: "x", latency=lambda request: 100.0 * request.n)
    clock.run(model.complete, ask("?", n=3))
    assert clock.now == pytest.approx(300)
