"""The trajectory does not know what finished first: conversations in parallel stand one behind the other."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.rollout.trajectory import Trace
from tfgrpo.types import Message, ToolUse, Trajectory

PROMPT = (Message("system", "s"), Message("user", "q"))


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def held(lengths: list[int], order: list[int]) -> Trajectory:
    """Conversations of so many turns each, begun in their order, whose turns go on in some order of finishing."""
    trace = Trace(PROMPT)
    said: list[tuple[Message, ...]] = [(*PROMPT, user(f"branch {number}")) for number in range(len(lengths))]
    waiting: list[Any] = [trace.ask(messages) for messages in said]
    left = list(lengths)
    for choice in order:
        open_ = [number for number, turns in enumerate(left) if turns]
        if not open_:
            break
        number = open_[choice % len(open_)]
        answer = assistant(f"{number}.{lengths[number] - left[number]}")
        trace.answered(waiting[number], answer)
        left[number] -= 1
        said[number] = (*said[number], answer, user("more"))
        if left[number]:
            waiting[number] = trace.ask(said[number])
    assert not any(left)
    return trace.trajectory


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_the_same_conversations_are_the_same_trajectory_in_any_finishing_order(
    data: st.DataObject, lengths: list[int]
) -> None:
    turns = sum(lengths)
    order = data.draw(st.lists(st.integers(0, 11), min_size=turns, max_size=turns))
    trajectory = held(lengths, order)
    assert trajectory == held(lengths, [0] * turns)
    contents = [m.content for m in trajectory.messages if m.role == "assistant"]
    assert contents == [f"{number}.{turn}" for number, turns in enumerate(lengths) for turn in range(turns)]
    assert trajectory.messages[:2] == PROMPT


def test_a_conversation_that_goes_on_tells_its_beginning_once() -> None:
    trace = Trace(PROMPT)
    first = trace.ask(PROMPT)
    trace.answered(first, assistant("a"))
    second = trace.ask((*PROMPT, assistant("a"), user("why?")))
    trace.answered(second, assistant("b"))
    assert trace.trajectory.messages == (*PROMPT, assistant("a"), user("why?"), assistant("b"))


def test_a_request_without_an_answer_is_kept() -> None:
    trace = Trace(PROMPT)
    trace.ask((*PROMPT, user("hello?")))
    assert trace.trajectory.messages == (*PROMPT, user("hello?"))


def test_equal_requests_stand_in_the_order_of_asking() -> None:
    trace = Trace(PROMPT)
    one, other = trace.ask(PROMPT), trace.ask(PROMPT)
    trace.answered(other, assistant("second"))
    trace.answered(one, assistant("first"))
    assert trace.trajectory.messages == (*PROMPT, assistant("first"), assistant("second"))


def test_another_prompt_than_the_assembled_one_stands_behind_it_whole() -> None:
    trace = Trace(PROMPT)
    turn = trace.ask((user("something else"),))
    trace.answered(turn, assistant("a"))
    assert trace.trajectory.messages == (*PROMPT, user("something else"), assistant("a"))


def test_an_answer_that_the_model_did_not_say_last_ends_the_trajectory() -> None:
    trace = Trace(PROMPT)
    trace.answered(trace.ask(PROMPT), assistant("4"))
    trace.end("4")
    assert trace.trajectory.messages == (*PROMPT, assistant("4"))
    trace.end("four")
    assert trace.trajectory.answer == "four"


def test_tools_and_notes_are_kept() -> None:
    trace = Trace(PROMPT)
    use = ToolUse("search", {"q": "x"}, "nothing", 0.5)
    trace.used(use)
    trace.note("gave up")
    assert trace.trajectory.tools == (use,)
    assert trace.trajectory.messages[-1] == Message("note", "gave up")
    assert trace.trajectory.answer == ""
