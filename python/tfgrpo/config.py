"""The configuration file: TOML < environment < flags, resolved once, frozen, hashed into the run.

Keys are those of the reference page `docs/reference/configuration.md`. Unknown keys are errors that name the
nearest known one. Secrets never stand here: `api_key_env` names the environment variable that holds the key.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import orjson
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from tfgrpo.errors import ConfigError
from tfgrpo.types import Role

Positive = Annotated[int, Field(gt=0)]
Temperature = Annotated[float, Field(ge=0, le=2)]


class Section(BaseModel):
    """Base of every table: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RunSection(Section):
    """`[run]`: the run directory is `runs/<name>-<id>`; the seed fixes every draw of ours."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class PriceSection(Section):
    """`[model.price]`: US dollars per million tokens; without `cached_input`, cached tokens cost `input`."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)


class Endpoint(Section):
    """Where a role's calls go: an OpenAI-compatible `base_url` and model `name`, or a `local` model.

    `group_requests` asks for the G answers of a group in one `n=G` request ("auto" tries it and falls back
    where the endpoint refuses); `structured` is how a JSON answer is asked for ("auto" tries `json_schema`).
    `prefix_cache` lets the first prompts of a step and of a group lead, so that the others find their common
    beginning in the provider's cache ("auto": once the provider showed that it has one); `prefix_leaders` is
    how many different questions have to lead before a common beginning is kept (2 for DeepSeek, else 1).
    """

    base_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    name: str | None = None
    api_key_env: str | None = None
    local: str | None = None
    price: PriceSection | None = None
    group_requests: Literal["auto", "always", "never"] = "auto"
    structured: Literal["auto", "json_schema", "prompt"] = "auto"
    prefix_cache: Literal["auto", "on", "off"] = "auto"
    prefix_leaders: Positive | None = None

    @property
    def leading_questions(self) -> int:
        """`prefix_leaders`, or what is known of the provider: DeepSeek keeps what two prompts had in common."""
        return self.prefix_leaders or (2 if "deepseek" in (self.base_url or "").lower() else 1)

    @property
    def label(self) -> str:
        """How reports name the model."""
        return f"local:{self.local}" if self.local else str(self.name)


class ModelSection(Endpoint):
    """`[model]` and, per role, `[model.rollout]`, `[model.distiller]`, `[model.judge]`, which override it."""

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

    concurrency: Positive = 64
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    input_tokens_per_minute: Positive | None = None
    output_tokens_per_minute: Positive | None = None
    request_timeout: float = Field(default=600.0, gt=0)
    task_timeout: float = Field(default=1800.0, gt=0)
    attempts: Positive = 6


class BudgetSection(Section):
    """`[budget]`: hard stops; a call is not launched when it might overrun one."""

    usd: float | None = Field(default=None, gt=0)
    tokens: Positive | None = None


class DataSection(Section):
    """`[data]`: JSON lines, relative to the configuration file."""

    practice: Path | None = None
    held_out: Path


class AgentSection(Section):
    """`[agent]`: who attempts a task. `direct` is one prompt, one answer.

    `response_schema` constrains the answer to a JSON schema.
    """

    kind: Literal["direct"] = "direct"
    system: str = ""
    response_schema: dict[str, Any] | None = None
    max_tokens: Positive | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)


class VerifierSection(Section):
    """`[verifier]`: how an answer is graded.

    `field` takes the answer out of a JSON reply before it is compared; `function` is "module:function" for
    the python verifier, and `kind = "module:function"` is short for both; `timeout` in seconds bounds one
    grading.
    """

    kind: Literal["exact", "math", "python"] = "exact"
    field: str | None = None
    function: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    timeout: float = Field(default=60.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        kind = given.get("kind") if isinstance(given, dict) else None
        if isinstance(kind, str) and ":" in kind and "function" not in given:
            return given | {"kind": "python", "function": kind.removeprefix("python:")}
        return given

    @model_validator(mode="after")
    def _python_names_its_function(self) -> VerifierSection:
        if (self.kind == "python") != (self.function is not None):
            raise ValueError('kind = "python" goes with function = "module:function", and only that kind')
        return self


class PracticeSection(Section):
    """`[practice]`: the loop of METHOD steps 1 to 6.

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

    tasks: Positive | None = None
    epochs: Positive = 3
    batch_size: Positive = 20
    group_size: Positive = 5
    temperature: Temperature = 0.7
    ground_truth: bool = True
    library_tokens: Positive = 2000
    learning_objective: str = ""
    shuffle: bool = True
    min_graded: Positive | None = None
    refills: int = Field(default=1, ge=0)
    oversample: int = Field(default=0, ge=0)
    max_staleness: int = Field(default=0, ge=0)
    summaries: Literal["auto", "always", "never"] = "auto"
    propose: Literal["model", "add"] = "model"
    consolidate: Literal["batch", "strategy", "none"] = "batch"
    select: Literal["none", "gain"] = "none"
    candidates: Positive = 4
    probe_tasks: int = Field(default=3, ge=0)
    gate_tasks: Positive = 20
    gate_samples: Positive = 2

    @model_validator(mode="after")
    def _gain_needs_rewards(self) -> PracticeSection:
        if self.select == "gain" and not self.ground_truth:
            raise ValueError('select = "gain" measures rewards, which ground_truth = false hides')
        return self

    @property
    def graded_needed(self) -> int:
        """How many graded rollouts a group needs to count."""
        return min(self.min_graded or max(2, self.group_size // 2 + 1), self.group_size)


class DistillSection(Section):
    """`[distill]`: the distiller's calls. `prompts` is a folder whose files replace ours of the same name.

    `lesson` is the form of a lesson: "strategy" says how to solve a kind of task, "answer" which answer a
    kind of task has (classification, routing: where few answers belong to many tasks). `neighbours` bounds how
    many experiences near a text a distiller's prompt shows.
    """

    lesson: Literal["strategy", "answer"] = "strategy"
    temperature: Temperature = 0.3
    max_tokens: Positive = 1024
    experience_words: Positive = 32
    neighbours: Positive = 10
    prompts: Path | None = None


class EvaluationSection(Section):
    """`[evaluation]`: `samples` answers a held-out task: Mean@k and Pass@k over k = samples."""

    samples: Positive = 4
    temperature: Temperature = 0.3
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class Config(BaseSettings):
    """The whole configuration, resolved and frozen."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="TFGRPO_",
        env_nested_delimiter="__",
        protected_namespaces=(),
        case_sensitive=False,
    )

    run: RunSection = RunSection()
    model: ModelSection
    limits: LimitsSection = LimitsSection()
    budget: BudgetSection = BudgetSection()
    data: DataSection
    agent: AgentSection = AgentSection()
    verifier: VerifierSection = VerifierSection()
    practice: PracticeSection = PracticeSection()
    distill: DistillSection = DistillSection()
    evaluation: EvaluationSection = EvaluationSection()

    def digest(self) -> str:
        """Hash of every setting that shapes results; speed, budget and the run's name do not."""
        body = self._resolved()
        del body["run"]["name"], body["limits"], body["budget"]
        for table in (body["model"], *(body["model"].get(role.value, {}) for role in Role)):
            for key in ("prefix_cache", "prefix_leaders"):
                table.pop(key, None)
        # Keys that came later count where they are set: a run of before has the digest it was started with.
        for key in ("oversample", "max_staleness"):
            if body["practice"][key] == 0:
                del body["practice"][key]
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def to_toml(self) -> str:
        """The resolved configuration as TOML; unset keys are left out."""
        return tomli_w.dumps(self._resolved())

    def _resolved(self) -> dict[str, Any]:
        """Every effective value; a role's table keeps only its own keys (see `ModelSection.role`)."""
        body = self.model_dump(mode="json", exclude_none=True)
        for role in Role:
            own: Endpoint | None = getattr(self.model, role.value)
            if own is not None:
                body["model"][role.value] = own.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        return body


def load_config(
    path: str | Path, overrides: dict[str, Any] | None = None, *, environment: bool = True
) -> Config:
    """Read, merge and check a configuration file.

    Args:
        path: the TOML file. Paths inside it are taken relative to its folder.
        overrides: dotted keys to values ("limits.concurrency": 64); they win over the environment
            (`TFGRPO_LIMITS__CONCURRENCY=64`), which wins over the file.
        environment: False ignores the environment, as resuming a run must.

    Raises:
        ConfigError: the file is missing, not TOML, or a key or value is wrong; the message names it.
    """
    path = Path(path)
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}.") from None
    config = resolve_config(body, overrides, place=str(path), environment=environment)
    return _absolute_paths(config, path.parent)


def resolve_config(
    body: dict[str, Any],
    overrides: dict[str, Any] | None = None,
    *,
    place: str = "config",
    environment: bool = True,
) -> Config:
    """Check a configuration that is already a dictionary; `place` names it in errors.

    Raises:
        ConfigError: a key is unknown (the nearest is named) or a value is out of range.
    """
    flags: dict[str, Any] = {}
    for dotted, value in (overrides or {}).items():
        _put(flags, dotted.split("."), value, dotted)

    class Loaded(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            given = InitSettingsSource(settings_cls, init_kwargs=flags)
            file = InitSettingsSource(settings_cls, init_kwargs=body)
            return (given, env_settings, file) if environment else (given, file)

    try:
        loaded = Loaded()  # type: ignore[call-arg]  # every field comes from the sources above
    except ValidationError as error:
        raise ConfigError(f"{place}: " + _explain(error)) from None
    return Config.model_construct(**{name: getattr(loaded, name) for name in Config.model_fields})


def parse_override(text: str) -> tuple[str, Any]:
    """Split `--set KEY=VALUE`; VALUE is read as TOML and, failing that, as a plain string.

    Raises:
        ConfigError: there is no `=` or no key.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, for example --set limits.concurrency=64.")
    try:
        return key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return key, value


def api_key(endpoint: Endpoint) -> str | None:
    """The secret of an endpoint, read from the environment at the moment of use, never stored.

    Raises:
        ConfigError: `api_key_env` names a variable that is not set.
    """
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"model.api_key_env: the environment variable {endpoint.api_key_env} is not set; "
            f"export it, or remove api_key_env if the endpoint needs no key."
        )
    return key


def _put(tree: dict[str, Any], keys: list[str], value: Any, dotted: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {dotted}: a part of this key is already set to a plain value.")
    tree[keys[-1]] = value


def _absolute_paths(config: Config, folder: Path) -> Config:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else (folder / path).resolve()

    data = config.data.model_copy(
        update={"practice": absolute(config.data.practice), "held_out": absolute(config.data.held_out)}
    )
    distill = config.distill.model_copy(update={"prompts": absolute(config.distill.prompts)})
    return config.model_copy(update={"data": data, "distill": distill})


def _explain(error: ValidationError) -> str:
    """One sentence per problem, unknown keys with the nearest known one."""
    sentences = []
    for problem in error.errors():
        loc = [str(part) for part in problem["loc"]]
        dotted = ".".join(loc)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(loc[:-1])
            near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known keys here: {', '.join(sorted(known))}."
            sentences.append(f"unknown key {dotted}; {hint}")
        elif problem["type"] == "missing":
            sentences.append(f"the key {dotted} is missing.")
        else:
            text = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
            got = problem["input"]
            shown = "" if isinstance(got, dict | BaseModel) else f" (got {got!r})"
            sentences.append(f"{dotted}: {text}{shown}." if dotted else f"{text}.")
    return " ".join(sentences)


def _known_keys(loc: list[str]) -> list[str]:
    """The keys a table may have, found by walking the field annotations."""
    section: Any = Config
    for part in loc:
        if (
            not (isinstance(section, type) and issubclass(section, BaseModel))
            or part not in section.model_fields
        ):
            return []
        annotation = section.model_fields[part].annotation
        candidates = get_args(annotation) or (annotation,)
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    return list(getattr(section, "model_fields", {}))
