"""The configuration that `tfgrpo init` writes: the everyday keys, each with a comment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tomli_w

from tfgrpo.config import RECIPES
from tfgrpo.forecast.facts import LOCAL_SLOTS

#: The column that comments begin in.
COLUMN = 44

SYSTEMS = {
    "exact": "Reply with the answer alone, without any other word.",
    "math": "Solve the problem and put the final answer into \\boxed{}.",
}

HEAD = """\
# Keys that are commented out show their default or an example. All other keys stand under [expert]: see
# docs/reference/configuration.md. Every effective value and its origin: tfgrpo config show config.toml
"""

SCHEMA = '{ type = "object", required = ["answer"], properties = { answer = { type = "string" } } }'


@dataclass(frozen=True)
class Choices:
    """The values that the user chose."""

    name: str
    seed: int
    base_url: str | None
    model: str | None
    api_key_env: str | None
    local: str | None
    recipe: str
    verifier: str
    practice: str
    held_out: str


def template(choices: Choices) -> str:
    """The text of the file."""
    return HEAD + "\n".join(_lines(choices)) + "\n"


def _lines(choices: Choices) -> Iterator[str]:
    recipe = RECIPES.get(choices.recipe, RECIPES["paper"])
    yield _set("recipe", choices.recipe, 'the method: "paper", or "small-model" up to 2 billion parameters')
    yield "\n[run]"
    yield _set("name", choices.name, "the run directory is runs/<name>-<id>")
    yield _set("seed", choices.seed, "fixes every draw")
    yield "\n[model]"
    if choices.local is None:
        yield _set("base_url", choices.base_url, "any OpenAI-compatible chat endpoint")
        yield _set("name", choices.model, "its model")
        keyed = _set if choices.api_key_env else _unset
        yield keyed("api_key_env", choices.api_key_env or "OPENAI_API_KEY", "the variable that holds the key")
        yield _unset("local", "default", "instead of the three: the embedded model")
    else:
        yield _set("local", choices.local, "the embedded model")
        yield _unset("base_url", "https://api.example.com/v1", "instead: an OpenAI-compatible chat endpoint,")
        yield _unset("name", "some-model", "its model,")
        yield _unset("api_key_env", "OPENAI_API_KEY", "and the variable that holds the key")
    yield "\n# [model.price]"
    yield _unset("input", 0.27, "US dollars per million tokens")
    yield _unset("cached_input", 0.07, "found in the provider's cache")
    yield _unset("output", 1.10, "written by the model")
    yield "\n[limits]"
    yield _set("concurrency", LOCAL_SLOTS if choices.local else 64, "calls in flight")
    yield _unset("requests_per_minute", 500, "the rate that the provider permits, if its")
    yield _unset("tokens_per_minute", 200_000, "headers do not tell it")
    yield "\n[budget]"
    yield _unset("usd", 5.0, "a hard stop (needs the prices); a run can be resumed")
    yield _unset("tokens", 10_000_000, "a hard stop; a run can be resumed with a higher one")
    yield "\n[data]" + " " * (COLUMN - 6) + "# one JSON object a line: id, input, truth"
    yield _set("practice", choices.practice, "tasks to learn from")
    yield _set("held_out", choices.held_out, "tasks to measure by, never practised on")
    yield "\n[agent]"
    system = SYSTEMS.get(choices.verifier)
    instructed = _set if system else _unset
    yield instructed(
        "system", system or "You answer questions about ...", "the agent's instructions, to adapt"
    )
    yield _unset("max_tokens", 1024, "the longest answer")
    yield f"# response_schema = {SCHEMA}"
    yield "\n[verifier]"
    yield _set("kind", choices.verifier, "exact, math, or module:function")
    yield _unset("field", "answer", "takes the answer out of a JSON reply")
    yield "\n[practice]" + " " * (COLUMN - 10) + "# the recipe sets what is commented out"
    yield _unset("tasks", 100, "draw so many of the practice tasks")
    for key, about in (
        ("epochs", "passes over them"),
        ("batch_size", "tasks a step; a step ends with a new library"),
        ("group_size", "rollouts a task, which are compared"),
        ("library_tokens", "hard bound of the learned prior"),
    ):
        yield _unset(key, recipe[("practice", key)], about)
    yield _unset("learning_objective", "Learn how to ...", "the goal in words, for the distiller")
    yield "\n[evaluation]"
    yield _set("samples", 4, "answers a held-out task, before and after")


def _set(key: str, value: Any, about: str) -> str:
    return _line(_pair(key, value), about)


def _unset(key: str, value: Any, about: str) -> str:
    return _line(f"# {_pair(key, value)}", about)


def _line(pair: str, about: str) -> str:
    """A key with its comment behind it, or above it where the value is long."""
    return f"# {about}\n{pair}" if len(pair) >= COLUMN else f"{pair.ljust(COLUMN - 1)} # {about}"


def _pair(key: str, value: Any) -> str:
    return tomli_w.dumps({key: value}).strip()
