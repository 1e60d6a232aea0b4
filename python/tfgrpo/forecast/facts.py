"""Everything that a forecast is made from, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tfgrpo.distill import Prompts
from tfgrpo.engine.plan import Method
from tfgrpo.library import ExperienceLibrary
from tfgrpo.types import Limits, Message, Price, Role, Struct, Task

#: Answers that the embedded server computes at once: the largest group request it takes.
LOCAL_SLOTS = 4

#: Counts the tokens of a prompt.
Count = Callable[[Sequence[Message]], int]


class AgentFacts(Struct, frozen=True, kw_only=True):
    """The facts about the agent that attempts the tasks.

    A `direct` one sends the assembled prompt once, so its calls and prompts can be counted; nobody knows how many calls
    another one makes before it has been seen at work. `max_tokens` and `response_schema` are those of a direct one.
    """

    direct: bool = True
    max_tokens: int | None = None
    response_schema: dict[str, Any] | None = None


class ModelFacts(Struct, frozen=True, kw_only=True):
    """The facts about the model of one role; roles with the same `provider` share its limits.

    `label` is the model's name, by which its tokenizer is chosen; a `local` one costs nothing.
    """

    provider: str
    label: str
    price: Price | None = None
    local: bool = False
    group_requests: Literal["auto", "always", "never"] = "auto"
    structured: Literal["auto", "json_schema", "prompt"] = "auto"


@dataclass(frozen=True, kw_only=True)
class DistillFacts:
    """The settings of the distiller's questions; `lesson` is the form of a lesson."""

    prompts: Prompts
    objective: str = ""
    lesson: str = "strategy"
    words: int = 32
    neighbours: int = 10
    max_tokens: int = 1024


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about one run: its method, its tasks, and who does the work within which limits.

    `practice` are the tasks practised on, already drawn, none for an evaluation; `usd` and `tokens` are the budget.
    """

    method: Method
    practice: Sequence[Task]
    held_out: Sequence[Task]
    agent: AgentFacts
    models: Mapping[Role, ModelFacts]
    distill: DistillFacts
    limits: Limits
    library: ExperienceLibrary
    usd: float | None = None
    tokens: int | None = None
