"""The page: self-contained, deterministic, safe against what models write, and complete."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tfgrpo.report import figures, html
from tfgrpo.report.build import Report
from tfgrpo.report.comparison import Estimate
from tfgrpo.report.html import render
from tfgrpo.report.records import ArmRecords, FaultRow, RunRecords, TaskRow
from tfgrpo.report.result import Result
from tfgrpo.types import DroppedOperation, Experience, Operation, OperationKind, Revision

HOSTILE = "<script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;{{ 7 * 7 }}</pre>]]>"


class Elements(HTMLParser):
    """Collects elements, checks that they nest, and gathers ids and outward references."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parse(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    elements.close()
    assert elements.open == []
    return elements


@pytest.fixture(scope="module")
def whole(result: Result, records: RunRecords) -> str:
    return render(result, records)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without figures, which take seconds."""
    monkeypatch.setattr(html, "_figures", lambda _: {})
    monkeypatch.setattr(html, "_pairs", lambda _: [])


def changed(records: RunRecords, **changes: Any) -> RunRecords:
    """Records with other parts; `entries` is another library, `settings` another term."""
    if "entries" in changes:
        changes["library"] = SimpleNamespace(entries=changes.pop("entries"))
    if "settings" in changes:
        changes["terms"] = msgspec.structs.replace(records.terms, settings=changes.pop("settings"))
    return replace(records, **changes)


def words(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page[page.index("<header>") :])).split())


def test_it_is_one_file_without_scripts_or_outward_references(whole: str) -> None:
    elements = parse(whole)
    tags = {tag for tag, _ in elements.seen}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert "svg" in tags
    for tag, attributes in elements.seen:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert (value or "").startswith("#"), (tag, value)
    assert "url(http" not in whole
    ids = [attributes["id"] for _, attributes in elements.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', whole):
        assert reference in ids


def test_the_verdict_comes_first(whole: str, result: Result) -> None:
    text = words(whole)
    assert (
        text.index("The learned library helps.")
        < text.index("Better at n = 119")
        < text.index("Baseline, Mean@4")
    )
    assert result.sentence[1:] in text


def test_the_page_tells_what_was_cached_and_what_that_saved(whole: str) -> None:
    text = words(whole)
    assert "caching saved $0.1304" in text
    assert "rollout some-model 1,460 812,331 640,112 (79%) 48,120 $0.4127 $0.1280" in text
    assert "total 1,552 874,201 652,116 (75%) 58,101 $0.4761 $0.1304" in text


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("verdict", "heading"),
    [("worse", "The learned library does harm."), ("not distinguishable", "No difference can be shown.")],
)
def test_every_verdict_has_its_heading(
    result: Result, records: RunRecords, verdict: str, heading: str
) -> None:
    assert f">{heading}</h1>" in render(msgspec.structs.replace(result, verdict=verdict), records)


def test_the_same_arguments_give_the_same_bytes(whole: str, result: Result, records: RunRecords) -> None:
    assert render(result, records) == whole


def test_two_arms_have_a_column_each_and_their_change(whole: str, records: RunRecords) -> None:
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", whole[whole.index("Task by task") :])
    assert heads[:4] == ["Held-out task", "Baseline", "Learned", "Change"]
    assert whole.count("before and after") == 1
    assert '<table class="arms">' not in whole
    row = records.rows[0]
    assert f"{row.task_id} {row.input} Truth: billing Baseline" in words(whole)


def test_three_arms_are_three_rows_everywhere(three: Report) -> None:
    text = render(three.result, three.records)
    parse(text)
    table = text[text.index('<table class="arms">') :]
    rows = [
        words(f"<header>{row}") for row in re.findall(r"<tr>(.*?)</tr>", table[: table.index("</table>")])
    ]
    assert [row.split()[0] for row in rows] == ["Arm", "Baseline", "Shuffled", "Learned"]
    assert rows[1] == "Baseline 0.416 0.366 to 0.471 0.798 476 3 4 – – – –"
    assert rows[2].endswith("not distinguishable")
    assert rows[3].startswith("Learned 0.569 0.515 to 0.624 0.916 480 0 0 +0.153 +0.103 to +0.206 < 0.001")
    effect = text[text.index('<figure class="effect">') : text.index("</figure>")]
    assert "shuffled: difference −0.017" in effect
    assert "learned: difference +0.153" in effect
    assert [effect.count(f">{name}</text>") for name in ("shuffled", "learned")] == [1, 1]
    assert [text.count(f"before and after, {name};") for name in ("shuffled", "learned")] == [1, 1]
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", text[text.index("Task by task") :])
    assert heads[:6] == ["Held-out task", "Baseline", "Shuffled", "Change", "Learned", "Change"]
    assert "the verdict above is that of learned" in words(text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_what_models_and_users_write_cannot_become_markup(three: Report) -> None:
    names = dict(zip(three.result.arms, ("baseline", HOSTILE, "learned"), strict=True))
    result = msgspec.structs.replace(
        three.result,
        name=HOSTILE,
        sentence=HOSTILE,
        models={"rollout": HOSTILE},
        unpaired=(HOSTILE,),
        arms={names[name]: arm for name, arm in three.result.arms.items()},
        comparisons=tuple(
            msgspec.structs.replace(one, arm=names[one.arm]) for one in three.result.comparisons
        ),
    )
    text = render(
        result,
        changed(
            three.records,
            arms={names[name]: arm for name, arm in three.records.arms.items()},
            entries=[
                Experience(
                    id=HOSTILE,
                    text=HOSTILE,
                    sources=(HOSTILE, f"practice/step=0001/task={HOSTILE}"),
                    parents=(HOSTILE,),
                    history=(Revision(1, OperationKind.ADD, HOSTILE, (HOSTILE,)),),
                )
            ],
            rows=[
                TaskRow(
                    task_id=HOSTILE,
                    input=HOSTILE,
                    truth=HOSTILE,
                    means=(0.0, 1.0, None),
                    answers=((HOSTILE,), (HOSTILE,), (HOSTILE,)),
                )
            ],
            dropped=[
                DroppedOperation(Operation(OperationKind.ADD, HOSTILE, HOSTILE, source=HOSTILE), HOSTILE)
            ],
            faults=[FaultRow(kind="model", error=HOSTILE, count=1, message=HOSTILE)],
            failures={HOSTILE: 1},
            settings=HOSTILE,
        ),
    )
    elements = parse(text)
    assert not {tag for tag, _ in elements.seen} & {"script", "img"}
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 26
    assert "{{ 7 * 7 }}" in text
    assert text.count("</pre>") == text.count("<pre>")


def test_tasks_that_are_not_shown_are_counted(result: Result, records: RunRecords) -> None:
    text = render(result, changed(records, rows=records.rows[:68]))
    assert "52 tasks that changed less are not shown." in text
    assert "65 did better, 18 worse." in text  # of all


@pytest.mark.usefixtures("plain")
def test_dropped_operations_that_are_not_shown_are_counted(result: Result, records: RunRecords) -> None:
    drop = DroppedOperation(
        Operation(OperationKind.DELETE, "E9", source="practice/step=0002/task=p7"), "gone"
    )
    text = words(render(result, changed(records, dropped=[drop] * 5)))
    assert "12 proposed operations were not applied" in text
    assert "delete E9 step 2, task p7 gone" in text
    assert "7 later ones are not shown." in text


def test_a_single_arm_has_a_page_without_changes(single: Report) -> None:
    text = render(single.result, single.records)
    parse(text)
    assert f">{single.result.name}</h1>" in text
    assert "Evaluated, Mean@4" in text
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", text[text.index("Task by task") :])
    assert heads[:2] == ["Held-out task", "Evaluated"]
    assert "Change" not in text
    assert "<svg" not in text


def test_an_empty_evaluation_still_has_a_page(single: Report) -> None:
    arm = msgspec.structs.replace(single.result.arms["learned"], mean=None, interval=(0.0, 1.0), graded=0)
    bare = msgspec.structs.replace(
        single.result, arms={"learned": arm}, sentence="no task has a graded answer.", tasks=0
    )
    arms = {"learned": ArmRecords({"a": []}, faulted=9)}
    text = render(bare, changed(single.records, rows=(), arms=arms, entries=()))
    parse(text)
    assert "No task has a graded answer." in text
    assert "The library is empty." in text
    assert "<svg" not in text


@pytest.mark.usefixtures("plain")
def test_long_answers_are_cut_and_json_is_laid_out(result: Result, records: RunRecords) -> None:
    answers = ('{"a": 1}', "x" * 5_000, "[" * 5_000)
    row = TaskRow(task_id="t", input="y" * 5_000, means=(0.0, 1.0), answers=((), answers))
    text = render(result, changed(records, rows=[row]))
    assert "{\n  &#34;a&#34;: 1\n}" in text
    assert "x" * 2_001 not in text
    assert text.count("… 3,000 more characters") == 3


def test_lineage_names_steps_and_tasks_and_leaves_other_text(whole: str) -> None:
    text = words(whole)
    assert "Learned from: step 1, task p01" in text
    assert "v3, modify (a talk; step 3, task p02): When a ticket names" in text
    assert "step=0001" not in text


def test_failed_attempts_are_told_beside_faults(whole: str) -> None:
    text = words(whole)
    assert "model ServerError 3 overloaded" in text
    assert "those that a later attempt made good: 17 RateLimitError, 5 ServerError." in text


def test_figures_are_labelled_and_coloured_by_the_page() -> None:
    drawn = [
        figures.effect([figures.Effect("b", 0.1, (-0.02, 0.2))], against="a", alt='a "quoted" <label>'),
        figures.learning_curve([(1, Estimate(0.5, 0.0, 1.0, 1))], alt="one step"),
        figures.before_after([(0.0, 1.0), (0.0, 1.0), (1.0, 0.5)], alt="pairs"),
    ]
    assert 'aria-label="a &quot;quoted&quot; &lt;label&gt;"' in drawn[0]
    for svg in drawn:
        assert svg.startswith("<svg viewBox=")
        assert 'role="img"' in svg
        assert "var(--ink)" in svg
        assert not re.search(r"#0[1-6]0[1-6]0[1-6]", svg)
        assert "DejaVu" not in svg


def test_names_in_figures_are_text() -> None:
    name = "$x^2$ <b>&"
    effects = [figures.Effect(name, 0.1, (-0.02, 0.2)), figures.Effect("n" * 60, 0.0, (0.0, 0.0))]
    drawn = [
        figures.effect(effects, against=name, alt=""),
        figures.before_after([(0.0, 1.0)], before=name, after=name, alt=""),
    ]
    for svg in drawn:
        assert "$x^2$ &lt;b&gt;&amp;" in svg
        assert "<b>" not in svg
    assert f">{'n' * 23}…<" in drawn[0]
