"""The trajectory of an attempt as it grows: what was asked and answered, tools, remarks."""

from __future__ import annotations

from collections.abc import Sequence

from tfgrpo.types import Message, ToolUse, Trajectory


class _Turn:
    """One request and, once it is there, its answer. `heard` is the conversation after it."""

    __slots__ = ("answer", "asked", "children", "new")

    def __init__(self, asked: tuple[Message, ...]) -> None:
        self.asked = asked
        self.answer: tuple[Message, ...] = ()
        self.new: tuple[Message, ...] = asked
        self.children: list[_Turn] = []

    @property
    def heard(self) -> tuple[Message, ...]:
        return (*self.asked, *self.answer)


class Trace:
    """Collects the turns of one attempt and puts them in an order that no timing decides.

    A turn stands behind the turn whose conversation it goes on with, the longest there is; turns that go on with the
    same one stand in the order in which they were asked. So conversations that were held in parallel stand one behind
    the other.

    Args:
        messages: the assembled prompt.
    """

    def __init__(self, messages: tuple[Message, ...]) -> None:
        self._root = _Turn(messages)
        self._turns = [self._root]
        self._tools: list[ToolUse] = []
        self._end: tuple[Message, ...] = ()

    def ask(self, messages: Sequence[Message]) -> _Turn:
        """Note a request; hand its turn to `answered`."""
        turn = _Turn(tuple(messages))
        before = max(
            (other for other in self._turns if _begins(turn.asked, other.heard)),
            key=lambda other: len(other.heard),
            default=self._root,
        )
        shared = len(before.heard) if _begins(turn.asked, before.heard) else 0
        turn.new = turn.asked[shared:]
        before.children.append(turn)
        self._turns.append(turn)
        return turn

    def answered(self, turn: _Turn, message: Message) -> None:
        """Note the answer to a request."""
        turn.answer = (message,)

    def used(self, tool: ToolUse) -> None:
        """Note the use of a tool."""
        self._tools.append(tool)

    def note(self, text: str) -> None:
        """Note a remark behind what there is."""
        turn = _Turn(())
        turn.new = (Message("note", text),)
        self._root.children.append(turn)

    def end(self, answer: str) -> None:
        """Note the final answer, where it is not what the model said last."""
        last = next((m.content for m in reversed(self.trajectory.messages) if m.role == "assistant"), None)
        if last != answer:
            self._end = (Message("assistant", answer),)

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory so far."""
        messages: list[Message] = []
        waiting = [self._root]
        while waiting:
            turn = waiting.pop()
            messages += turn.new
            messages += turn.answer
            waiting += reversed(turn.children)
        messages += self._end
        return Trajectory(tuple(messages), tuple(self._tools))


def _begins(messages: tuple[Message, ...], beginning: tuple[Message, ...]) -> bool:
    return len(beginning) <= len(messages) and messages[: len(beginning)] == beginning
