"""Loading a configuration: default < recipe < file < environment < flag, resolved once, each value with its origin."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from tfgrpo.config.layout import ROLE_TABLES, nested, read_layer, spelled
from tfgrpo.config.marks import KeyPath, Mark, Setting, value_at
from tfgrpo.config.recipes import RECIPES
from tfgrpo.config.root import SETTINGS, Config
from tfgrpo.config.tables import Endpoint, ModelSection
from tfgrpo.errors import ConfigError
from tfgrpo.types import Role

PREFIX = "TFGRPO_"


@dataclass(frozen=True)
class Effective:
    """One key of a resolved configuration: its value, and the origin of the value."""

    setting: Setting
    value: Any
    origin: str


def load_config(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, environment: bool = True
) -> Config:
    """Read, merge and check a configuration file.

    Args:
        path: the TOML file. Paths inside it are taken relative to its folder.
        overrides: dotted keys to values ("limits.concurrency": 64); they win over the environment
            (`TFGRPO_LIMITS__CONCURRENCY=64`), which wins over the file. A key of `[expert]` may be spelled with
            or without `expert.` here and in the environment.
        environment: False ignores the environment, as resuming a run must.

    Raises:
        ConfigError: the file is missing, not TOML, or a key or value is wrong; the message names it.
    """
    return _load(Path(path), overrides, environment)[0]


def trace_config(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, environment: bool = True
) -> list[Effective]:
    """Load a configuration file and tell every effective value and its origin; arguments as in `load_config`.

    The tables of the roles are told only as far as they are set.
    """
    config, origins = _load(Path(path), overrides, environment)
    told = []
    for setting in SETTINGS.values():
        if setting.path[:2] in ROLE_TABLES and setting.path not in origins:
            continue
        origin = origins.get(setting.path, "default")
        if (
            setting.name == "verifier.function"
            and ":" in str(config.verifier.function)
            and origin == "default"
        ):
            origin = origins[("verifier", "kind")]  # kind = "module:function" gives both
        told.append(Effective(setting, value_at(config, setting.path), origin))
    return told


def resolve_config(
    body: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    place: str = "config",
    environment: bool = True,
) -> Config:
    """Check a configuration that is already a dictionary; `place` names it in errors.

    A key of `[expert]` may stand there or in the table of the same name: runs of version 0.1 keep theirs so.

    Raises:
        ConfigError: a key is unknown (the nearest is named) or a value is out of range.
    """
    return _resolve(body, overrides, place, environment, strict=False)[0]


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


def shaping_overrides(overrides: Mapping[str, Any]) -> list[str]:
    """The keys among overrides that shape results, which a started run keeps.

    Raises:
        ConfigError: a key is unknown.
    """
    shaping = []
    for path in _flags(overrides, "").values:
        below = [each for each in SETTINGS.values() if each.path[: len(path)] == path]
        if any(each.mark is Mark.SHAPES for each in below):
            shaping.append(spelled(path))
    return shaping


def speed_keys() -> list[str]:
    """The keys that a run may change when it is resumed; `limits.*` where those are all of a table."""
    told: list[str] = []
    for setting in SETTINGS.values():
        if setting.mark is Mark.SHAPES or setting.path[:2] in ROLE_TABLES:
            continue
        table = setting.path[:-1]
        whole = all(each.mark is Mark.SPEED for path, each in SETTINGS.items() if path[:-1] == table)
        name = f"{'.'.join(table)}.*" if whole else setting.name
        if name not in told:
            told.append(name)
    return told


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


def endpoint_of(fields: Mapping[str, Any]) -> Endpoint:
    """The endpoint that the keys of `[model]` describe.

    Raises:
        ConfigError: a key is unknown, or a value is out of range.
    """
    try:
        return ModelSection.model_validate(dict(fields)).role(Role.ROLLOUT)
    except ValidationError as error:
        told = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(
            f"The model {dict(fields)!r} is none: {told}. The keys are those of [model]."
        ) from None


@dataclass
class _Layers:
    """Values laid over each other, and the origin of each."""

    values: dict[KeyPath, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def lay(self, values: Mapping[KeyPath, Any], origin: str) -> None:
        """Lay values over those that are there; a dictionary joins the one below it, as a schema's parts do."""
        for path, value in values.items():
            for other in list(self.values):
                above = other == path[: len(other)] and not isinstance(self.values[other], Mapping)
                below = other[: len(path)] == path and not isinstance(value, Mapping)
                if other != path and (above or below):
                    del self.values[other], self.origins[other]
            self.values[path] = _joined(self.values.get(path), value)
            self.origins[path] = origin

    def over(self, lower: _Layers) -> _Layers:
        """These layers over lower ones."""
        for path, value in self.values.items():
            lower.lay({path: value}, self.origins[path])
        return lower


def _joined(old: Any, new: Any) -> Any:
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    return {**old, **{key: _joined(old.get(key), value) for key, value in new.items()}}


def _load(
    path: Path, overrides: Mapping[str, Any] | None, environment: bool
) -> tuple[Config, dict[KeyPath, str]]:
    try:
        body = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}.") from None
    config, origins = _resolve(body, overrides, str(path), environment, strict=True)
    return _absolute_paths(config, path.parent), origins


def _resolve(
    body: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    place: str,
    environment: bool,
    *,
    strict: bool,
) -> tuple[Config, dict[KeyPath, str]]:
    values, problems = read_layer(body, strict=strict)
    if problems:
        raise ConfigError(f"{place}: " + " ".join(problems))
    layers = _Layers()
    layers.lay(values, f"file {Path(place).name}")
    if environment:
        _environment().over(layers)
    _flags(overrides or {}, f"{place}: ").over(layers)
    try:
        config = Config.model_validate(nested(layers.values))
    except ValidationError as error:
        raise ConfigError(f"{place}: " + " ".join(_explained(error, layers.origins))) from None
    given = dict.fromkeys(RECIPES[config.recipe], f"recipe {config.recipe}")
    return config, given | layers.origins


def _flags(overrides: Mapping[str, Any], place: str) -> _Layers:
    layers = _Layers()
    for dotted, value in overrides.items():
        values, problems = read_layer(_tree(dotted.split("."), value), strict=False)
        if problems:
            raise ConfigError(f"{place}--set {dotted}: " + " ".join(problems))
        layers.lay(values, "--set")
    return layers


def _environment() -> _Layers:
    """The variables `TFGRPO_TABLE__KEY` and `TFGRPO_RECIPE`; any other name without `__` is not a setting."""
    layers = _Layers()
    named: dict[KeyPath, str] = {}
    for variable, text in sorted(os.environ.items()):
        name = variable.upper().removeprefix(PREFIX).lower()
        if not variable.upper().startswith(PREFIX) or ("__" not in name and name != "recipe"):
            continue
        values, problems = read_layer(_tree(name.split("__"), _value(text)), strict=False)
        if problems:
            raise ConfigError(f"the environment variable {variable}: " + " ".join(problems))
        for path in values:
            if (other := named.setdefault(path, variable)) != variable:
                raise ConfigError(
                    f"{other} and {variable} set the same key {spelled(path)}; unset one of them."
                )
        layers.lay(values, f"environment variable {variable}")
    return layers


def _value(text: str) -> Any:
    """The value of a variable: a JSON object where it is one (a table, a schema), else the text, to be converted."""
    if text.lstrip().startswith("{"):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def _tree(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _absolute_paths(config: Config, folder: Path) -> Config:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else (folder / path).resolve()

    data = config.data.model_copy(
        update={"practice": absolute(config.data.practice), "held_out": absolute(config.data.held_out)}
    )
    distill = config.distill.model_copy(update={"prompts": absolute(config.distill.prompts)})
    return config.model_copy(update={"data": data, "distill": distill})


def _explained(error: ValidationError, origins: Mapping[KeyPath, str]) -> Iterator[str]:
    """One sentence per problem, with the key as it is written in a file and the origin if it is not the file."""
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        name = spelled(path)
        if problem["type"] == "missing":
            yield _MISSING.get(path, f"the key {name} is missing.")
            continue
        text = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
        if problem["type"] == "model_type":
            text = f"must be a table, written [{name}]"
        got = problem["input"]
        origin = origins.get(path, "file")
        source = "" if origin.startswith("file") else f", from {origin}"
        shown = "" if isinstance(got, Mapping | BaseModel) else f" (got {got!r}{source})"
        yield f"{name}: {text}{shown}." if path else f"{text}."


_MISSING: dict[KeyPath, str] = {
    ("model",): (
        "[model] is missing: it needs base_url and name of an OpenAI-compatible endpoint, or "
        'local = "default" for the embedded model.'
    ),
    ("data",): "[data] is missing: it needs held_out and, for practising, practice.",
}
