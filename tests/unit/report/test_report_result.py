"""`result.json` and the published schemas of it and of the library file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from tfgrpo.config import PriceSection
from tfgrpo.library import ExperienceLibrary
from tfgrpo.models.pricing import saved_usd
from tfgrpo.report.comparison import compare
from tfgrpo.report.result import (
    Arm,
    ArmResult,
    Cost,
    LibraryFile,
    LibraryResult,
    Result,
    StepResult,
    build_result,
    decode,
    encode,
    json_schema,
)
from tfgrpo.types import Experience, Operation, OperationKind, Role, Usage

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
LIBRARY = LibraryResult(version=0, digest="d", size=0, tokens=0, in_prior=0)


def build(baseline: Arm | None, learned: Arm | None, **changes: Any) -> Result:
    both = baseline is not None and learned is not None
    comparison = compare(baseline.rewards, learned.rewards, samples=2) if baseline and learned else None
    parts: dict[str, Any] = {
        "kind": "practice" if both else "evaluation",
        "name": "n",
        "baseline": baseline,
        "learned": learned,
        "comparison": comparison,
        "confidence": 0.95,
        "usage": {},
        "faults": {},
        "library": LIBRARY,
        "models": {},
        "config_hash": "c",
        "data": {},
        "seed": 0,
        "started": 0.0,
        "finished": 1.0,
    }
    return build_result(**(parts | changes))


def published(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((REFERENCE / f"{name}.schema.json").read_bytes())
    return schema


@pytest.mark.parametrize(("name", "of"), [("result", Result), ("library", LibraryFile)])
def test_the_published_schema_is_the_generated_one(name: str, of: type[msgspec.Struct]) -> None:
    assert published(name) == json.loads(msgspec.json.encode(json_schema(of)))
    jsonschema.Draft202012Validator.check_schema(published(name))


def test_a_result_validates_and_a_changed_one_does_not(result: Result) -> None:
    body = json.loads(encode(result))
    jsonschema.validate(body, published("result"))
    for broken in (
        {**body, "verdict": "maybe"},
        {**body, "surprise": 1},
        {k: body[k] for k in body if k != "seed"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, published("result"))


def test_a_library_file_validates_against_its_schema() -> None:
    operations = [
        Operation(OperationKind.ADD, text=f"When {word}, do that.", source="1/t", sources=("1/t",), index=i)
        for i, word in enumerate(("late", "early"))
    ]
    library, _ = ExperienceLibrary.empty().apply(operations)
    body = json.loads(library.to_json())
    jsonschema.validate(body, published("library"))
    assert msgspec.convert(body, LibraryFile).entries == library.entries
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**body, "format": "other"}, published("library"))


def test_it_reads_back_and_writes_every_field(result: Result) -> None:
    assert decode(encode(result)) == result
    body = json.loads(encode(result))
    assert set(body) == set(Result.__struct_fields__)
    assert (body["format"], body["format_version"]) == ("tfgrpo-result", 1)


def test_every_field_is_explained_on_the_reference_page() -> None:
    text = (REFERENCE / "results.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    explained = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    for part in (Result, Cost, ArmResult, StepResult, LibraryFile, Experience):
        assert set(part.__struct_fields__) <= explained, part


def test_means_are_over_the_paired_tasks_and_counts_over_all() -> None:
    baseline = Arm(rewards={"a": [1.0, 0.0], "b": [1.0, 1.0], "c": []}, samples=2, faulted=2)
    learned = Arm(rewards={"a": [1.0, 1.0], "b": [], "c": [0.0]}, samples=2, faulted=3)
    found = build(baseline, learned)
    assert found.baseline is not None
    assert found.learned is not None
    assert (found.tasks, found.unpaired) == (1, ("b", "c"))
    assert (found.baseline.mean, found.learned.mean, found.difference) == (0.5, 1.0, 0.5)
    assert (found.baseline.graded, found.learned.graded, found.learned.faulted) == (4, 3, 3)


def test_an_evaluation_has_one_arm_and_no_verdict() -> None:
    rewards = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": []}
    found = build(None, Arm(rewards=dict(rewards), samples=2))
    assert (found.verdict, found.difference, found.interval, found.p_value, found.baseline) == (None,) * 5
    assert (found.tasks, found.unpaired) == (2, ("c",))
    assert found.sentence.startswith("mean reward 0.750 over n = 2 tasks (95 % interval ")
    assert build(None, Arm(rewards={"a": []}, samples=2)).sentence == "no task has a graded answer."
    jsonschema.validate(json.loads(encode(found)), published("result"))


def test_dollars_are_unknown_without_a_price_and_not_zero() -> None:
    usage = {Role.ROLLOUT: Usage(2, 100, 50, 10, 0.5), Role.DISTILLER: Usage(1, 10, 0, 5)}
    arm = Arm(rewards={"a": [1.0]}, samples=1)
    priced = build(None, arm, usage=usage).usage
    assert (priced.total.usd, priced.total.calls, priced.total.cached_tokens) == (0.5, 3, 50)
    unpriced = build(None, arm, usage=usage, unpriced=[Role.DISTILLER, Role.JUDGE]).usage
    assert unpriced.by_role["rollout"].usd == 0.5
    assert (unpriced.by_role["distiller"].usd, unpriced.total.usd) == (None, None)
    unused = build(None, arm, usage={Role.ROLLOUT: usage[Role.ROLLOUT]}, unpriced=[Role.JUDGE]).usage
    assert unused.total.usd == 0.5


def test_what_caching_saved_is_summed_and_unknown_without_a_price() -> None:
    usage = {Role.ROLLOUT: Usage(2, 100, 50, 10, 0.5), Role.DISTILLER: Usage(1, 0, 0, 5)}
    arm = Arm(rewards={"a": [1.0]}, samples=1)
    saved = {Role.ROLLOUT: 0.25, Role.DISTILLER: 0.125}
    costs = build(None, arm, usage=usage, saved=saved).usage
    assert (costs.total.saved_usd, costs.total.cached_share) == (0.375, 0.5)
    assert (costs.by_role["distiller"].saved_usd, costs.by_role["distiller"].cached_share) == (0.125, None)
    unpriced = build(None, arm, usage=usage, saved=saved, unpriced=[Role.DISTILLER]).usage
    assert (unpriced.by_role["distiller"].saved_usd, unpriced.total.saved_usd) == (None, None)


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (None, 0.0),
        (PriceSection(input=2.0, output=8.0), 0.0),
        (PriceSection(input=2.0, output=8.0, cached_input=0.5), 1.5),
        (PriceSection(input=2.0, output=8.0, cached_input=2.5), -0.5),
    ],
)
def test_a_cached_token_saves_the_difference_of_the_prices(
    price: PriceSection | None, dollars: float
) -> None:
    assert saved_usd(Usage(1, 3_000_000, 1_000_000, 5), price) == dollars


def test_groups_are_summed_over_the_steps(result: Result) -> None:
    assert (result.groups.mixed, result.groups.uniform, result.groups.undergraded) == (57, 57, 6)
