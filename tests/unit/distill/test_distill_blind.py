"""Without ground truth no distiller prompt shows a reward or a truth; with it the prompts do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from tfgrpo.distill import Asker, Prompts, compare, consolidate, propose, summarize
from tfgrpo.errors import ConfigError, DistillError
from tfgrpo.keys import Key
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import (
    Choice,
    Ending,
    Group,
    Message,
    ModelReply,
    ModelRequest,
    Operation,
    OperationKind,
    PriorRef,
    Reward,
    Rollout,
    SemanticAdvantage,
    Signal,
    Task,
    Trajectory,
    Usage,
)

TRUTH = "the-secret-truth"
TASK = Task("t1", "Where does this go?", TRUTH)


KEY = Key("distill", 1, task="t1").do("k")
SOURCE = "practice/step=0001/task=t1"


def asker_of(recorder: Recorder, **settings: Any) -> Asker:
    return Asker(recorder, Prompts(), objective="learn routing", **settings)


def rollout(index: int, answer: str, reward: float) -> Rollout:
    messages = (Message("system", "s"), Message("user", TASK.input), Message("assistant", answer))
    return Rollout(
        "t1", index, PriorRef(0, ""), Trajectory(messages), Ending.COMPLETED, Reward(reward, answer)
    )


EMPTY = ExperienceLibrary.empty()
KNOWN, _ = EMPTY.apply([Operation(OperationKind.ADD, text="When at sea, look up.", source="t0")])
GROUP = Group("t1", (rollout(0, "left " * 200, 0.25), rollout(1, "right", 0.75)), Signal.MIXED)


class Recorder:
    """Answers every request with a fixed text and keeps what was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[Key, ModelRequest]] = []

    async def __call__(self, key: Key, request: ModelRequest) -> ModelReply:
        self.asked.append((key, request))
        text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return ModelReply(tuple(Choice(text) for _ in range(request.n)), Usage(1, 1, 0, 1))

    @property
    def text(self) -> str:
        return "\n".join(message.content for _, request in self.asked for message in request.messages)


async def distil_everything(recorder: Recorder, *, ground_truth: bool) -> None:
    asker = asker_of(recorder, graded=ground_truth)
    await summarize(asker, KEY, TASK, GROUP.rollouts[0], "[E1] known", "always")
    advantages = await compare(asker, KEY, TASK, GROUP, {0: "went left", 1: "went right"}, KNOWN)
    await propose(asker, KEY, SOURCE, advantages[0], KNOWN)
    operations = tuple(
        Operation(OperationKind.ADD, text=f"When {word}, go right.", index=index, sources=("t1",))
        for index, word in enumerate(["sunny", "rainy"])
    )
    ways: tuple[Literal["batch", "strategy"], ...] = ("batch", "strategy")
    for way in ways:
        await consolidate(asker, KEY, operations, EMPTY, way)


REPLY = '{"when": "lost", "do": "go right", "operations": [{"operation": "ADD", "when": "a", "do": "b"}]}'


async def test_without_ground_truth_nothing_is_shown() -> None:
    recorder = Recorder(REPLY)
    await distil_everything(recorder, ground_truth=False)
    assert len(recorder.asked) == 5
    for hidden in (TRUTH, "0.25", "0.75", "RIGHT:", "WRONG:", "GRADE", "right answer", "Grade"):
        assert hidden not in recorder.text, hidden
    assert "went left" in recorder.text
    assert "learn routing" in recorder.text


async def test_with_ground_truth_it_is() -> None:
    recorder = Recorder(REPLY)
    await distil_everything(recorder, ground_truth=True)
    for shown in (TRUTH, "0.25", "0.75"):
        assert shown in recorder.text, shown


async def test_rewards_of_one_and_zero_are_words() -> None:
    recorder = Recorder(REPLY)
    group = msgspec.structs.replace(GROUP, rollouts=(rollout(0, "a", 0.0), rollout(1, "b", 1.0)))
    asker = asker_of(recorder)
    await compare(asker, KEY, TASK, group, {0: "went left", 1: "went right"}, EMPTY)
    assert recorder.text.index("RIGHT: went right") < recorder.text.index("WRONG: went left")


async def test_the_form_answer_shows_bare_answers_and_the_truth_in_place() -> None:
    recorder = Recorder(REPLY)
    asker = asker_of(recorder, lesson="answer")
    wrapped = rollout(1, '{"queue": "Q2"}', 1.0)
    assert await summarize(asker, KEY, TASK, wrapped, "", "auto") == "Q2"
    group = msgspec.structs.replace(GROUP, rollouts=(rollout(0, "a", 0.0), wrapped))
    await compare(asker, KEY, TASK, group, {0: "Q4", 1: "Q2"}, EMPTY)
    assert "Q2: RIGHT" in recorder.text
    assert f'"do": "answer {TRUTH}"' in recorder.text


async def test_a_short_answer_is_its_own_summary() -> None:
    recorder = Recorder("unused")
    asker = asker_of(recorder)
    assert await summarize(asker, KEY, TASK, GROUP.rollouts[1], "", "auto") == "right"
    assert recorder.asked == []
    assert await summarize(asker, KEY, TASK, GROUP.rollouts[0], "", "auto") == "unused"


async def test_an_unreadable_reply_is_repaired_once() -> None:
    recorder = Recorder("no json", '{"when": "lost", "do": "turn"}')
    asker = asker_of(recorder)
    advantages = await compare(asker, KEY, TASK, GROUP, {0: "a", 1: "b"}, EMPTY)
    assert [advantage.text for advantage in advantages] == ["When lost, turn."]
    assert [key for key, _ in recorder.asked] == [KEY, KEY.do("repair", "0")]
    assert recorder.asked[1][1].messages[-2].content == "no json"


async def test_what_stays_unreadable_is_an_error_after_one_repair() -> None:
    recorder = Recorder("no json")
    asker = asker_of(recorder)
    with pytest.raises(DistillError, match="stayed unreadable"):
        await compare(asker, KEY, TASK, GROUP, {0: "a", 1: "b"}, EMPTY)
    assert len(recorder.asked) == 2


async def test_an_empty_library_needs_no_proposal_call() -> None:
    recorder = Recorder("unused")
    asker = asker_of(recorder)
    proposals = await propose(asker, KEY, SOURCE, SemanticAdvantage("t1", "When a, b.", (0, 1)), EMPTY)
    assert recorder.asked == []
    assert [(o.kind, o.text, o.base_version, o.sources) for o in proposals.operations] == [
        (OperationKind.ADD, "When a, b.", 0, (SOURCE,))
    ]


async def test_what_the_library_says_already_is_kept_without_a_call() -> None:
    recorder = Recorder("unused")
    asker = asker_of(recorder)
    again = SemanticAdvantage("t1", "when at sea, look UP", (0, 1))
    (operation,) = (await propose(asker, KEY, SOURCE, again, KNOWN)).operations
    assert recorder.asked == []
    assert (operation.kind, operation.target, operation.sources) == (
        OperationKind.KEEP,
        KNOWN["E1"].id,
        (SOURCE,),
    )


async def test_of_a_large_library_only_what_is_near_is_shown() -> None:
    recorder = Recorder(REPLY)
    asker = asker_of(recorder)
    matters = ["boats", "trains", "lamps", "soup", "stairs", "letters", "wool", "chess", "rivers", "glass"]
    texts = [
        f"When it is about {matter}, look at the {matter} first." for matter in [*matters, "kites", "tea"]
    ]
    library, _ = EMPTY.apply(Operation(OperationKind.ADD, text=text, index=i) for i, text in enumerate(texts))
    await propose(
        asker, KEY, SOURCE, SemanticAdvantage("t1", "When it is about tea, boil the tea.", (0, 1)), library
    )
    shown = [entry.id for entry in library if entry.text in recorder.text]
    assert len(shown) == 10 < len(library)
    assert library.neighbours("When it is about tea, boil the tea.", 1)[0].id in shown
    assert asker.near(library, ["soup"], ["E1", "E99"]).startswith("[E1] ")


async def test_by_strategy_only_lessons_of_one_strategy_meet() -> None:
    recorder = Recorder('{"when": "any weather"}')
    asker = asker_of(recorder)
    library, _ = ExperienceLibrary.empty().apply(
        [Operation(OperationKind.ADD, text="When it snows, go right.", source="x", sources=("t0",))]
    )
    texts = ["When sunny, go right.", "When dark, go left.", "When rainy, Go right!"]
    proposals = tuple(
        Operation(OperationKind.ADD, text=text, base_version=1, source="s", index=i, sources=(f"t{i}",))
        for i, text in enumerate(texts)
    )
    settled = await consolidate(asker, KEY, proposals, library, "strategy")
    assert len(recorder.asked) == 1
    for situation in ("When sunny", "When rainy", "When it snows"):
        assert situation in recorder.text
    merged, report = library.apply(settled.operations)
    assert sorted(entry.text for entry in merged.entries) == [
        "When any weather, go right.",
        "When dark, go left.",
    ]
    assert report.dropped == ()
    assert {entry.parents for entry in merged} == {(), (library["E1"].id,)}


async def test_a_merge_that_names_an_unknown_id_keeps_what_it_merges() -> None:
    merge = '{"operations": [{"operation": "ADD", "merges": ["E1", "E9"], "when": "a", "do": "b"}]}'
    asker = asker_of(Recorder(merge))
    library, _ = ExperienceLibrary.empty().apply(
        [Operation(OperationKind.ADD, text="When old, stay.", source="x", sources=("t0",))]
    )
    settled = await consolidate(asker, KEY, (), library, "batch")
    merged, report = library.apply(settled.operations)
    assert [(entry.text, entry.parents) for entry in merged.entries] == [("When a, b.", (library["E1"].id,))]
    assert report.dropped == ()


def test_a_prompt_file_can_be_replaced_and_mistakes_are_told(tmp_path: Path) -> None:
    (tmp_path / "repair.md").write_text("version: 2\n## system\nx\n## user\n{{ reason }}!\n", "utf-8")
    prompts = Prompts(tmp_path)
    assert prompts.render("repair", reason="why")[1].content == "why!"
    assert prompts.digest != Prompts().digest
    (tmp_path / "repair.md").write_text("version: 2\n## system\nx\n## user\n{{ why }}!\n", "utf-8")
    with pytest.raises(ConfigError, match="unknown variable why"):
        Prompts(tmp_path)
    (tmp_path / "repair.md").write_text("version: 2\n## system\nx\n## user\n{{ reason + 1 }}!\n", "utf-8")
    with pytest.raises(ConfigError, match="cannot be rendered"):
        Prompts(tmp_path).render("repair", reason="why")
    (tmp_path / "repair.md").write_bytes(b"version: 2\n\xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        Prompts(tmp_path)
    (tmp_path / "repare.md").write_text("version: 2\n", "utf-8")
    with pytest.raises(ConfigError, match=r"repare\.md"):
        Prompts(tmp_path)
    (tmp_path / "repare.md").unlink()
    (tmp_path / "repair.md").write_text("hello", "utf-8")
    with pytest.raises(ConfigError, match="version"):
        Prompts(tmp_path)
    (tmp_path / "repair.md").write_text("version: 2\n## system\nx\n## user\n{{ reason\n", "utf-8")
    with pytest.raises(ConfigError, match="template"):
        Prompts(tmp_path)
