"""The page: self-contained, deterministic, safe against what models write, and complete."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import msgspec
import pytest

from tfgrpo.report import figures
from tfgrpo.report.comparison import Estimate
from tfgrpo.report.html import fault_rows
from tfgrpo.report.page import FaultRow, TaskRow, page
from tfgrpo.report.result import ArmResult, Result
from tfgrpo.types import (
    DroppedOperation,
    Experience,
    Fault,
    FaultKind,
    Operation,
    OperationKind,
    Revision,
)

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
def whole(result: Result, library: tuple[Experience, ...], tasks: tuple[TaskRow, ...]) -> str:
    return page(result, library=library, tasks=tasks, settings="[run]\nseed = 7\n")


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
    text = unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", whole[whole.index("<header>") :])))
    assert (
        text.index("The learned library helps.")
        < text.index("Better at n = 119")
        < text.index("Baseline, Mean@4")
    )
    assert result.sentence[1:] in text


def test_the_page_tells_what_was_cached_and_what_that_saved(whole: str) -> None:
    text = " ".join(unescape(re.sub(r"<[^>]+>", " ", whole)).split())
    assert "caching saved $0.1304" in text
    assert "rollout some-model 1,460 812,331 640,112 (79%) 48,120 $0.4127 $0.1280" in text
    assert "total 1,552 874,201 652,116 (75%) 58,101 $0.4761 $0.1304" in text


@pytest.mark.parametrize(
    ("verdict", "heading"),
    [("worse", "The learned library does harm."), ("not distinguishable", "No difference can be shown.")],
)
def test_every_verdict_has_its_heading(result: Result, verdict: str, heading: str) -> None:
    assert f">{heading}</h1>" in page(msgspec.structs.replace(result, verdict=verdict))


def test_the_same_arguments_give_the_same_bytes(
    whole: str, result: Result, library: tuple[Experience, ...], tasks: tuple[TaskRow, ...]
) -> None:
    assert page(result, library=library, tasks=tasks[::-1], settings="[run]\nseed = 7\n") == whole


def test_what_models_and_users_write_cannot_become_markup(result: Result) -> None:
    text = page(
        msgspec.structs.replace(
            result, name=HOSTILE, sentence=HOSTILE, models={"rollout": HOSTILE}, unpaired=(HOSTILE,)
        ),
        library=[
            Experience(
                id=HOSTILE,
                text=HOSTILE,
                sources=(HOSTILE,),
                parents=(HOSTILE,),
                history=(Revision(1, OperationKind.ADD, HOSTILE, (HOSTILE,)),),
            )
        ],
        tasks=[
            TaskRow(
                task_id=HOSTILE,
                input=HOSTILE,
                truth=HOSTILE,
                baseline_mean=0.0,
                learned_mean=1.0,
                baseline_answers=(HOSTILE,),
                learned_answers=(HOSTILE,),
            )
        ],
        dropped=[DroppedOperation(Operation(OperationKind.ADD, HOSTILE, HOSTILE, source=HOSTILE), HOSTILE)],
        faults=[FaultRow(kind="model", error=HOSTILE, count=1, message=HOSTILE)],
        settings=HOSTILE,
    )
    elements = parse(text)
    assert not {tag for tag, _ in elements.seen} & {"script", "img"}
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 17
    assert "{{ 7 * 7 }}" in text
    assert text.count("</pre>") == text.count("<pre>")


def test_changed_tasks_come_first_and_the_rest_is_counted(result: Result) -> None:
    rows = [TaskRow(task_id=f"same{i}", input="?", baseline_mean=0.5, learned_mean=0.5) for i in range(450)]
    rows += [TaskRow(task_id="moved", input="?", baseline_mean=1.0, learned_mean=0.0)]
    rows += [TaskRow(task_id="broken", input="?", baseline_mean=None, learned_mean=0.0)]
    text = page(result, tasks=rows)
    assert text.index(">moved<") < text.index(">broken<") < text.index(">same0<")
    assert "52 tasks that changed less are not shown." in text
    assert "0 did better, 1 worse." in text


def test_an_empty_evaluation_still_has_a_page(result: Result) -> None:
    arm = ArmResult(
        mean=None, interval=(0.0, 1.0), pass_at_k=None, samples=4, graded=0, truncated=0, faulted=9
    )
    bare = msgspec.structs.replace(
        result, kind="evaluation", verdict=None, sentence="no task has a graded answer.", tasks=0, baseline=None,
        learned=arm, difference=None, interval=None, interval_method=None, p_value=None, test=None, steps=(),
    )  # fmt: skip
    text = page(bare)
    parse(text)
    assert "No task has a graded answer." in text
    assert "The library is empty." in text
    assert "<svg" not in text


def test_long_answers_are_cut_and_json_is_laid_out(result: Result) -> None:
    answers = ('{"a": 1}', "x" * 5_000, "[" * 5_000)
    row = TaskRow(task_id="t", input="?", baseline_mean=0.0, learned_mean=1.0, learned_answers=answers)
    text = page(result, tasks=[row])
    assert "{\n  &#34;a&#34;: 1\n}" in text
    assert "x" * 2_001 not in text
    assert text.count("… 3,000 more characters") == 2


def test_faults_are_counted_by_error_with_a_message_that_helps() -> None:
    rows = fault_rows(
        [
            Fault(FaultKind.VERIFIER, "VerifierError", "mend it"),
            Fault(FaultKind.MODEL, "ServerError", "overloaded; lower limits.concurrency"),
            Fault(FaultKind.MODEL, "ServerError", "again"),
        ]
    )
    assert [(row.kind, row.error, row.count, row.message) for row in rows] == [
        ("model", "ServerError", 2, "overloaded; lower limits.concurrency"),
        ("verifier", "VerifierError", 1, "mend it"),
    ]


def test_figures_are_labelled_and_coloured_by_the_page() -> None:
    drawn = [
        figures.effect(0.1, (-0.02, 0.2), alt='a "quoted" <label>'),
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
