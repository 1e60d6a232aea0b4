"""Laws of answer extraction and normalisation."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfgrpo.testing import ScriptedScope
from tfgrpo.types import Task
from tfgrpo.verify import ExactVerifier, normalise
from tfgrpo.verify.answer import final_answer, marked_answer

texts = st.text(st.characters(codec="utf-8"), max_size=60)
plain = st.text(st.characters(codec="utf-8", exclude_characters="\\{}<>"), max_size=40)


@settings(deadline=None)
@given(texts)
@example("'' .")
@example('"."')
@example("ﬀ ẞ Å ͅΐ")
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@settings(deadline=None)
@given(texts)
def test_normalising_never_empties_an_answer_that_says_something(text: str) -> None:
    assert bool(normalise(text)) == bool(unicodedata.normalize("NFKC", text).strip())


@settings(deadline=None)
@given(texts, st.sampled_from(["{}", " {} ", '"{}"', "'{}'", "“{}”", "{}.", "`{}`;", "\n{}\t"]))
def test_wrapping_with_quotes_space_or_a_full_stop_changes_nothing(text: str, wrap: str) -> None:
    inner = normalise("a" + text + "b")
    assert normalise(wrap.format(inner)) == inner


@settings(deadline=None)
@given(plain, plain, plain)
def test_the_last_mark_is_the_answer(before: str, first: str, last: str) -> None:
    assert marked_answer(f"{before}\\boxed{{{first}}} then <answer>{last}</answer>") == last.strip()
    assert marked_answer(f"{before}<answer>{first}</answer> then \\boxed{{{last}}}") == last.strip()


@settings(deadline=None)
@given(st.recursive(plain, lambda inner: inner.map(lambda text: f"{{{text}}}"), max_leaves=4), plain)
def test_a_box_keeps_its_inner_braces(content: str, after: str) -> None:
    assert final_answer(f"so \\boxed{{{content}}} {after}", None) == content.strip()


@settings(deadline=None)
@given(texts, st.dictionaries(texts, st.one_of(texts, st.integers(), st.booleans()), max_size=4), plain)
def test_the_field_is_found_plain_fenced_or_in_prose(
    value: str, others: dict[str, str | int | bool], prose: str
) -> None:
    body = json.dumps({**others, "label": value})
    for reply in (body, f"{prose}\n```json\n{body}\n```\n{prose}", f"{prose} {body} {prose}"):
        assert final_answer(reply, "label") == value


@settings(deadline=None)
@given(st.text(max_size=200), texts)
def test_any_reply_gets_an_answer_or_none_and_never_an_exception(reply: str, field: str) -> None:
    found = final_answer(reply, field)
    assert found is None or found.encode("utf-8") is not None
    assert final_answer(reply, None) is not None


@settings(deadline=None)
@given(texts, texts)
async def test_exact_means_equal_normal_forms(reply: str, truth: str) -> None:
    reward = await ExactVerifier().verify(ScriptedScope(Task("t", "?", truth), answer=reply))
    answer = final_answer(reply, None)
    assert answer is not None
    assert reward.answer == normalise(answer)
    assert reward.value == float(reward.answer == normalise(truth))
