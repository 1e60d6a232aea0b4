"""The tables of the configuration, field by field, each marked; the reference page describes every key.

Secrets never stand here: `api_key_env` names the environment variable that holds the key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tfgrpo.config.marks import Everyday, Section, Shapes, Speed
from tfgrpo.types import Role

Positive = Annotated[int, Field(gt=0)]
Temperature = Annotated[float, Field(ge=0, le=2)]


class RunSection(Section):
    """`[run]`: the run directory is `runs/<name>-<id>`; the seed fixes every draw of ours."""

    name: Everyday[Speed[str]] = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    seed: Everyday[Shapes[int]] = Field(default=0, ge=0, le=2**31 - 1)


class PriceSection(Section):
    """`[model.price]`: US dollars per million tokens; without `cached_input`, cached tokens cost `input`."""

    input: Everyday[Speed[float]] = Field(ge=0)
    output: Everyday[Speed[float]] = Field(ge=0)
    cached_input: Everyday[Speed[float | None]] = Field(default=None, ge=0)


class Endpoint(Section):
    """The model of a role: an OpenAI-compatible `base_url` and model `name`, or a `local` model.

    `group_requests` asks for the G answers of a group in one `n=G` request ("auto" tries it and falls back
    where the endpoint refuses); `structured` is how a JSON answer is asked for ("auto" tries `json_schema`).
    `prefix_cache` lets the first prompts of a step and of a group lead, so that the others find their common
    beginning in the provider's cache ("auto": once the provider showed that it has one); `prefix_leaders` is
    how many different questions have to lead before a common beginning is kept (2 for DeepSeek, else 1).
    """

    base_url: Everyday[Shapes[str | None]] = Field(default=None, pattern=r"^https?://\S+$")
    name: Everyday[Shapes[str | None]] = None
    api_key_env: Everyday[Speed[str | None]] = None
    local: Everyday[Shapes[str | None]] = None
    price: Everyday[PriceSection | None] = None
    group_requests: Shapes[Literal["auto", "always", "never"]] = "auto"
    structured: Shapes[Literal["auto", "json_schema", "prompt"]] = "auto"
    prefix_cache: Speed[Literal["auto", "on", "off"]] = "auto"
    prefix_leaders: Speed[Positive | None] = None

    @property
    def leading_questions(self) -> int:
        """`prefix_leaders`, or what is known of the provider: DeepSeek keeps what two prompts had in common."""
        return self.prefix_leaders or (2 if "deepseek" in (self.base_url or "").lower() else 1)

    @property
    def label(self) -> str:
        """The name of the model in reports."""
        return f"local:{self.local}" if self.local else str(self.name)


class ModelSection(Endpoint):
    """`[model]`, and under `[expert.model]` a table for a role (`rollout`, `distiller`, `judge`) that overrides it."""

    rollout: Endpoint | None = None
    distiller: Endpoint | None = None
    judge: Endpoint | None = None

    @model_validator(mode="after")
    def _every_role_has_an_endpoint(self) -> ModelSection:
        for role in Role:
            endpoint = self.role(role)
            if (endpoint.base_url is None) == (endpoint.local is None):
                raise ValueError(
                    f"the {role} model needs either base_url (an OpenAI-compatible endpoint) or "
                    'local = "default" (the embedded model), and not both'
                )
            if endpoint.base_url is not None and not endpoint.name:
                raise ValueError(f"the {role} model has a base_url but no name: set model.name")
        return self

    def role(self, role: Role) -> Endpoint:
        """The endpoint of a role: its own table over `[model]`.

        A table that says where (`base_url` or `local`) does not inherit the other way of saying it.
        """
        own: Endpoint | None = getattr(self, role.value)
        base = {key: getattr(self, key) for key in Endpoint.model_fields}
        if own is None:
            return Endpoint(**base)
        given = {key: getattr(own, key) for key in own.model_fields_set}
        if given.keys() & {"base_url", "local"}:
            base |= {"base_url": None, "local": None}
        if "local" in given:
            base |= {"name": None, "api_key_env": None, "price": None}
        return Endpoint(**base | given)


class LimitsSection(Section):
    """`[limits]`: what the provider permits, all at once; times in seconds.

    `attempts` bounds how often one call is tried before it becomes a fault. `task_timeout` bounds one rollout
    from its first call that is sent to its answer; beyond it the rollout is a fault.
    """

    concurrency: Everyday[Speed[Positive]] = 64
    requests_per_minute: Everyday[Speed[Positive | None]] = None
    tokens_per_minute: Everyday[Speed[Positive | None]] = None
    input_tokens_per_minute: Speed[Positive | None] = None
    output_tokens_per_minute: Speed[Positive | None] = None
    request_timeout: Speed[float] = Field(default=600.0, gt=0)
    task_timeout: Speed[float] = Field(default=1800.0, gt=0)
    attempts: Speed[Positive] = 6


class BudgetSection(Section):
    """`[budget]`: hard stops; a call is not launched when it might overrun one."""

    usd: Everyday[Speed[float | None]] = Field(default=None, gt=0)
    tokens: Everyday[Speed[Positive | None]] = None


class DataSection(Section):
    """`[data]`: JSON lines, relative to the configuration file."""

    practice: Everyday[Shapes[Path | None]] = None
    held_out: Everyday[Shapes[Path]]


class AgentSection(Section):
    """`[agent]`: the agent that attempts a task. `direct` is one prompt, one answer.

    `response_schema` constrains the answer to a JSON schema.
    """

    kind: Shapes[Literal["direct"]] = "direct"
    system: Everyday[Shapes[str]] = ""
    response_schema: Everyday[Shapes[dict[str, Any] | None]] = None
    max_tokens: Everyday[Shapes[Positive | None]] = None
    top_p: Shapes[float | None] = Field(default=None, gt=0, le=1)


class VerifierSection(Section):
    """`[verifier]`: the grading of an answer.

    `field` takes the answer out of a JSON reply before it is compared; `function` is "module:function" for
    the python verifier, and `kind = "module:function"` is short for both; `timeout` in seconds bounds one
    grading.
    """

    kind: Everyday[Shapes[Literal["exact", "math", "python"]]] = "exact"
    field: Everyday[Shapes[str | None]] = None
    function: Shapes[str | None] = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    timeout: Speed[float] = Field(default=60.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        kind = given.get("kind") if isinstance(given, dict) else None
        if isinstance(kind, str) and ":" in kind and "function" not in given:
            return given | {"kind": "python", "function": kind.removeprefix("python:")}
        return given

    @model_validator(mode="after")
    def _python_names_its_function(self) -> VerifierSection:
        if self.kind == "python" and self.function is None:
            raise ValueError('a python verifier needs its function: write kind = "module:function"')
        if self.kind != "python" and self.function is not None:
            raise ValueError(f'function goes with kind = "python", not with kind = "{self.kind}"')
        return self


class PracticeSection(Section):
    """`[practice]`: the practice loop, from the rollouts to the new library.

    `min_graded` is how many graded rollouts a group needs (default: more than half of `group_size`, at least
    two); a group short of graded rollouts is refilled `refills` times. `oversample` starts so many rollouts
    more than a group needs, where each is a request of its own, and cuts the slowest off. `max_staleness` lets
    a step roll out and compare with the library of so many steps earlier, while those are still at work; its
    operations are applied to the newest library all the same. `summaries` says when a rollout is
    summarised before the comparison ("auto": when it is longer than a single short answer).

    `tasks` draws so many of the practice tasks by the run's seed (all of them by default). `propose` says how a
    lesson becomes operations: "model" asks which ones it calls for in view of the library, "add" adds it.
    `consolidate` says how a step's proposals become one set of operations: "batch" in one call that sees all
    of them, "strategy" by merging lessons of the same strategy (for small models), "none" not at all.
    `select = "gain"` lets each group write `candidates` lessons and keeps the one whose re-run rollouts gain
    most on `probe_tasks` practice tasks, and lets a step's new library replace the old one only if
    `gate_tasks` re-run practice tasks, `gate_samples` times each, do not lose by it.
    """

    tasks: Everyday[Shapes[Positive | None]] = None
    epochs: Everyday[Shapes[Positive]] = 3
    batch_size: Everyday[Shapes[Positive]] = 20
    group_size: Everyday[Shapes[Positive]] = 5
    temperature: Shapes[Temperature] = 0.7
    ground_truth: Shapes[bool] = True
    library_tokens: Everyday[Shapes[Positive]] = 2000
    learning_objective: Everyday[Shapes[str]] = ""
    shuffle: Shapes[bool] = True
    min_graded: Shapes[Positive | None] = None
    refills: Shapes[int] = Field(default=1, ge=0)
    oversample: Shapes[int] = Field(default=0, ge=0)
    max_staleness: Shapes[int] = Field(default=0, ge=0)
    summaries: Shapes[Literal["auto", "always", "never"]] = "auto"
    propose: Shapes[Literal["model", "add"]] = "model"
    consolidate: Shapes[Literal["batch", "strategy", "none"]] = "batch"
    select: Shapes[Literal["none", "gain"]] = "none"
    candidates: Shapes[Positive] = 4
    probe_tasks: Shapes[int] = Field(default=3, ge=0)
    gate_tasks: Shapes[Positive] = 20
    gate_samples: Shapes[Positive] = 2

    @model_validator(mode="after")
    def _gain_needs_rewards(self) -> PracticeSection:
        if self.select == "gain" and not self.ground_truth:
            raise ValueError('select = "gain" measures rewards, which ground_truth = false hides')
        return self

    @property
    def graded_needed(self) -> int:
        """The number of graded rollouts that a group needs to count."""
        return min(self.min_graded or max(2, self.group_size // 2 + 1), self.group_size)


class DistillSection(Section):
    """`[distill]`: the distiller's calls. `prompts` is a folder whose files replace ours of the same name.

    `lesson` is the form of a lesson: "strategy" says how to solve a kind of task, "answer" which answer a
    kind of task has (classification, routing: where few answers belong to many tasks). `neighbours` bounds how
    many experiences near a text a distiller's prompt shows.
    """

    lesson: Shapes[Literal["strategy", "answer"]] = "strategy"
    temperature: Shapes[Temperature] = 0.3
    max_tokens: Shapes[Positive] = 1024
    experience_words: Shapes[Positive] = 32
    neighbours: Shapes[Positive] = 10
    prompts: Shapes[Path | None] = None


class EvaluationSection(Section):
    """`[evaluation]`: `samples` answers a held-out task: Mean@k and Pass@k over k = samples."""

    samples: Everyday[Shapes[Positive]] = 4
    temperature: Shapes[Temperature] = 0.3
    confidence: Shapes[float] = Field(default=0.95, gt=0.5, lt=1)
