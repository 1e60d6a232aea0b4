"""`result.json` and the published schemas of it and of the library file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from tests.unit.report.source import terms

from tfgrpo.library import ExperienceLibrary
from tfgrpo.models.pricing import saved_usd
from tfgrpo.report.build import Report, report_of
from tfgrpo.report.records import ArmRecords, ModelTerms, RunRecords
from tfgrpo.report.result import (
    ArmComparison,
    ArmResult,
    Cost,
    LibraryFile,
    Result,
    StepResult,
    decode,
    encode,
    json_schema,
)
from tfgrpo.types import Experience, Operation, OperationKind, Price, Role, Usage

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def build(
    arms: dict[str, ArmRecords],
    *,
    usage: dict[Role, Usage] | None = None,
    models: dict[Role, ModelTerms] | None = None,
) -> Result:
    run = RunRecords(
        terms=terms(
            *arms,
            kind="practice" if len(arms) > 1 else "evaluation",
            models=models or {role: ModelTerms("m", free=True) for role in Role},
        ),
        arms=arms,
        rows=(),
        library=ExperienceLibrary.empty(),
        steps=(),
        dropped=(),
        faults=(),
        usage=usage or {},
        failures={},
        open_intents=0,
        finished=101.0,
    )
    return report_of(run).result


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
    assert (body["format"], body["format_version"]) == ("tfgrpo-result", 2)


def test_every_field_is_explained_on_the_reference_page() -> None:
    text = (REFERENCE / "results.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    explained = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    for part in (Result, Cost, ArmResult, ArmComparison, StepResult, LibraryFile, Experience):
        assert set(part.__struct_fields__) <= explained, part


def test_means_are_over_the_paired_tasks_and_counts_over_all() -> None:
    baseline = ArmRecords({"a": [1.0, 0.0], "b": [1.0, 1.0], "c": []}, faulted=2)
    learned = ArmRecords({"a": [1.0, 1.0], "b": [], "c": [0.0]}, faulted=3)
    found = build({"baseline": baseline, "learned": learned})
    before, after = found.arms.values()
    assert (found.tasks, found.unpaired) == (1, ("b", "c"))
    assert (before.mean, after.mean, found.difference) == (0.5, 1.0, 0.5)
    assert (before.graded, after.graded, after.faulted) == (4, 3, 3)


def test_three_arms_are_three_rows_and_two_comparisons(three: Report, result: Result) -> None:
    found = three.result
    assert list(found.arms) == ["baseline", "shuffled", "learned"]
    assert [(one.arm, one.against, one.tasks) for one in found.comparisons] == [
        ("shuffled", "baseline", 118),
        ("learned", "baseline", 119),
    ]
    assert [one.unpaired for one in found.comparisons] == [("t007", "t008"), ("t007",)]
    assert list(three.comparisons) == ["shuffled", "learned"]
    assert three.comparison is three.comparisons["learned"]
    body = json.loads(encode(found))
    jsonschema.validate(body, published("result"))
    assert list(body["arms"]) == ["baseline", "shuffled", "learned"]
    assert decode(encode(found)) == found


def test_an_arm_in_the_middle_changes_nothing_of_the_headline(three: Report, result: Result) -> None:
    for name in ("verdict", "sentence", "tasks", "unpaired", "difference", "interval", "p_value", "test"):
        assert getattr(three.result, name) == getattr(result, name) == getattr(result.comparisons[-1], name)
    assert three.result.arms["baseline"] == result.arms["baseline"]
    assert three.result.arms["learned"] == result.arms["learned"]


def test_no_arm_is_special_but_by_its_place() -> None:
    rewards = {f"t{i}": [float(i % 2)] for i in range(6)}, {f"t{i}": [1.0] for i in range(6)}
    found = build({"x": ArmRecords(rewards[0]), "y": ArmRecords(rewards[1])})
    named = build({"baseline": ArmRecords(rewards[0]), "learned": ArmRecords(rewards[1])})
    assert found.sentence == named.sentence
    assert found.arms["y"] == named.arms["learned"]
    assert (found.comparisons[0].arm, found.comparisons[0].against) == ("y", "x")


def test_a_single_arm_has_no_verdict() -> None:
    rewards = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": []}
    found = build({"learned": ArmRecords(rewards)})
    assert (found.verdict, found.difference, found.interval, found.p_value) == (None,) * 4
    assert (list(found.arms), found.comparisons) == (["learned"], ())
    assert (found.tasks, found.unpaired) == (2, ("c",))
    assert found.sentence.startswith("mean reward 0.750 over n = 2 tasks (95 % interval ")
    assert build({"learned": ArmRecords({"a": []})}).sentence == "no task has a graded answer."
    jsonschema.validate(json.loads(encode(found)), published("result"))


PRICE = Price(input=2.0, output=8.0, cached_input=1.0)
ARMS = {"learned": ArmRecords({"a": [1.0]})}


def test_dollars_are_unknown_without_a_price_and_not_zero() -> None:
    usage = {Role.ROLLOUT: Usage(2, 100, 50, 10, 0.5), Role.DISTILLER: Usage(1, 10, 0, 5)}
    priced = build(ARMS, usage=usage, models={role: ModelTerms("m", PRICE) for role in Role}).usage
    assert (priced.total.usd, priced.total.calls, priced.total.cached_tokens) == (0.5, 3, 50)
    some = {Role.ROLLOUT: ModelTerms("m", PRICE), Role.DISTILLER: ModelTerms("d")}
    for models in (some, {Role.ROLLOUT: some[Role.ROLLOUT]}):
        unpriced = build(ARMS, usage=usage, models=models).usage
        assert unpriced.by_role["rollout"].usd == 0.5
        assert (unpriced.by_role["distiller"].usd, unpriced.total.usd) == (None, None)
    free = some | {Role.DISTILLER: ModelTerms("d", free=True)}
    assert build(ARMS, usage=usage, models=free).usage.total.usd == 0.5
    unused = build(ARMS, usage=usage | {Role.DISTILLER: Usage()}, models=some).usage
    assert (unused.total.usd, unused.by_role["distiller"].usd) == (0.5, 0.0)


def test_what_caching_saved_is_summed_and_unknown_without_a_price() -> None:
    usage = {
        Role.ROLLOUT: Usage(2, 1_000_000, 500_000, 10, 0.5),
        Role.DISTILLER: Usage(1, 250_000, 250_000, 5),
        Role.JUDGE: Usage(1, 0, 0, 5),
    }
    costs = build(ARMS, usage=usage, models={role: ModelTerms("m", PRICE) for role in Role}).usage
    assert (costs.total.saved_usd, costs.total.cached_share) == (0.75, 0.6)
    assert (costs.by_role["judge"].saved_usd, costs.by_role["judge"].cached_share) == (0.0, None)
    unpriced = build(ARMS, usage=usage, models={Role.ROLLOUT: ModelTerms("m", PRICE)}).usage
    assert (unpriced.by_role["distiller"].saved_usd, unpriced.total.saved_usd) == (None, None)


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (None, 0.0),
        (Price(input=2.0, output=8.0), 0.0),
        (Price(input=2.0, output=8.0, cached_input=0.5), 1.5),
        (Price(input=2.0, output=8.0, cached_input=2.5), -0.5),
    ],
)
def test_a_cached_token_saves_the_difference_of_the_prices(price: Price | None, dollars: float) -> None:
    assert saved_usd(Usage(1, 3_000_000, 1_000_000, 5), price) == dollars


def test_groups_are_summed_over_the_steps(result: Result) -> None:
    assert (result.groups.mixed, result.groups.uniform, result.groups.undergraded) == (57, 57, 6)
