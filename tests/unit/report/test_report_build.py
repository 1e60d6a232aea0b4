"""From a store to a report: result and page of whole runs, two arms and three."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import jsonschema
from tests.unit.report.source import FakeSource, by_chance, practised, terms

from tfgrpo.library import ExperienceLibrary
from tfgrpo.report.build import Report, build_report
from tfgrpo.report.html import render
from tfgrpo.report.records import ModelTerms
from tfgrpo.report.result import decode, encode
from tfgrpo.types import Price, Role, Usage

SCHEMA = Path(__file__).parents[3] / "docs" / "reference" / "result.schema.json"
CHANCES = {"baseline": 0.0, "shuffled": 0.02, "learned": 0.4}
START = ExperienceLibrary.empty()
TRUTHS: dict[str, str | None] = {f"t{number:05d}": f"truth of {number}" for number in range(40)}


def source_of(*arms: str) -> FakeSource:
    source = FakeSource(make=by_chance(CHANCES, answer='{"total": 42}'))
    for arm in arms:
        source.evaluate(arm, 40, 2)
    source.spent = {Role.ROLLOUT: Usage(160, 16_000, 8_000, 800, 0.25)}
    source.left_open = 1
    return source


async def practice(*arms: str) -> tuple[Report, ExperienceLibrary]:
    source = source_of(*arms)
    library = practised(source)
    models = {role: ModelTerms(f"{role.value}-model", Price(2.0, 8.0, 1.0)) for role in Role}
    return await build_report(source, terms(*arms, models=models, truths=TRUTHS), START), library


async def test_the_result_of_a_practice_run() -> None:
    report, library = await practice("baseline", "learned")
    result = report.result
    assert report.comparison is report.comparisons["learned"]
    assert (result.kind, result.name, result.verdict, result.tasks) == ("practice", "tickets", "better", 40)
    assert list(result.arms) == ["baseline", "learned"]
    assert result.sentence == report.comparison.sentence
    assert (result.library.version, result.library.size, result.library.digest) == (2, 6, library.digest)
    assert result.library.in_prior == 6
    assert result.library.tokens > 20
    assert [step.reward.mean for step in result.steps] == [(0.5 + 1 / 3) / 2] * 2
    assert (result.groups.mixed, result.groups.uniform, result.groups.undergraded) == (2, 2, 2)
    assert result.faults == {"distiller": 2}
    assert (result.usage.total.usd, result.usage.total.saved_usd) == (0.25, 0.008)
    assert result.models["judge"] == "judge-model"
    assert (result.started, result.finished, result.open_intents) == (100.0, 200.0, 1)
    body = encode(result)
    assert decode(body) == result
    jsonschema.validate(json.loads(body), json.loads(SCHEMA.read_bytes()))


async def test_three_arms_from_the_store_to_the_page() -> None:
    report, _ = await practice("baseline", "shuffled", "learned")
    two, _ = await practice("baseline", "learned")
    assert {name: found.verdict for name, found in report.comparisons.items()} == {
        "shuffled": "not distinguishable",
        "learned": "better",
    }
    assert report.comparison == two.comparison
    jsonschema.validate(json.loads(encode(report.result)), json.loads(SCHEMA.read_bytes()))
    page = render(report.result, report.records)
    assert '<table class="arms">' in page
    assert page.count("<td>not distinguishable</td>") == 1


async def test_an_evaluation_has_one_arm_and_the_library_it_began_with() -> None:
    library = practised(FakeSource())
    report = await build_report(source_of("learned"), terms("learned", kind="evaluation"), library)
    assert (report.comparison, report.comparisons, report.result.comparisons) == (None, {}, ())
    assert report.result.library.digest == library.digest
    assert report.result.steps == ()
    assert "Evaluated, Mean@2" in render(report.result, report.records)


async def test_the_page_shows_every_task_and_experience() -> None:
    report, library = await practice("baseline", "learned")
    text = unescape(render(report.result, report.records))
    for number in range(40):
        task = f"t{number:05d}"
        assert f"<summary>{task}</summary>\n<pre>What is {task}?</pre>" in text
        assert f"Truth: <b>truth of {number}</b>" in text
    for entry in library.entries:
        assert f'<p>{entry.text}</p>\n<div class="tag"><b>{entry.id}</b>' in text
    assert text.count('{\n  "total": 42\n}') == 80
    assert "<li>Learned from: step 2, task p1</li>" in text
    assert "step 1, task p0" in text[text.index("not applied") :]
    assert report.result.config_hash in text
    assert 'name = "' in text[text.index("as resolved") :]


async def test_the_page_is_the_same_again() -> None:
    (one, _), (other, _) = await practice("baseline", "learned"), await practice("baseline", "learned")
    assert one.result == other.result
    assert render(one.result, one.records) == render(other.result, other.records)
