"""Marks, recipes and layouts: which keys make a run another one, and where a file writes them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tfgrpo.config import (
    RECIPES,
    SETTINGS,
    Config,
    Mark,
    PracticeSection,
    Section,
    load_config,
    resolve_config,
    trace_config,
)
from tfgrpo.config.marks import Setting, walk
from tfgrpo.errors import ConfigError
from tfgrpo.run.inputs import run_config
from tfgrpo.rundir import Header
from tfgrpo.types import Role

ROOT = Path(__file__).parents[2]
TICKETS = ROOT / "examples" / "tickets" / "config.toml"
#: The demo's configuration as version 0.1 kept it in a run directory: every value, no recipe, no [expert].
OLD = (ROOT / "tests" / "golden" / "settings-0.1-tickets.toml").read_text("utf-8")

MINIMAL: dict[str, Any] = {
    "model": {"base_url": "http://127.0.0.1:1/v1", "name": "m"},
    "data": {"practice": "practice.jsonl", "held_out": "held_out.jsonl"},
}

#: A value for every key that differs from its default and from MINIMAL.
OTHER: dict[str, Any] = {
    "recipe": "small-model",
    "run.name": "other",
    "model.base_url": "http://127.0.0.1:2/v1",
    "model.name": "other",
    "model.price": {"input": 1.0, "output": 2.0},
    "model.prefix_cache": "on",
    "model.group_requests": "never",
    "model.structured": "prompt",
    "data.practice": "other.jsonl",
    "data.held_out": "other.jsonl",
    "agent.response_schema": {"type": "object"},
    "agent.top_p": 0.5,
    "verifier.kind": "math",
    "practice.summaries": "always",
    "practice.propose": "add",
    "practice.consolidate": "none",
    "practice.select": "gain",
    "practice.ground_truth": False,
    "practice.shuffle": False,
    "distill.lesson": "answer",
    "evaluation.confidence": 0.9,
}

#: Keys that cannot change alone, or have one value.
DEPENDENT = {"model.local", "verifier.function", "agent.kind"}


def resolved(*layers: dict[str, Any], **overrides: Any) -> Config:
    body: dict[str, Any] = {}
    for layer in layers or (MINIMAL,):
        body |= layer
    return resolve_config(body, overrides, environment=False)


def other_value(setting: Setting) -> Any:
    if setting.name in OTHER:
        return OTHER[setting.name]
    if isinstance(setting.default, str):
        return setting.default + "x"
    if isinstance(setting.default, float):
        return setting.default * 1.5
    if isinstance(setting.default, int):
        return setting.default + 3
    return "11" if setting.path[-1] != "prompts" else "folder"


PLAIN = [
    setting
    for setting in SETTINGS.values()
    if setting.path[:2] not in {("model", role.value) for role in Role}
    and setting.name not in DEPENDENT
    and setting.path[:2] != ("model", "price")
]


@pytest.mark.parametrize("setting", PLAIN, ids=lambda setting: setting.name)
def test_the_digest_follows_the_mark(setting: Setting) -> None:
    changed = resolved(**{setting.name: other_value(setting)})
    assert changed != resolved()
    assert (changed.digest() != resolved().digest()) is (setting.mark is Mark.SHAPES)


def test_money_is_no_part_of_a_run() -> None:
    assert resolved(**{"model.price": {"input": 1.0, "output": 2.0}}).digest() == resolved().digest()


def test_the_stored_file_holds_every_value_in_its_place(tmp_path: Path) -> None:
    every = {setting.name: other_value(setting) for setting in PLAIN}
    every |= {"practice.ground_truth": True, "model.price": {"input": 1.0, "output": 2.0}}
    roles = {f"model.{role}": {"name": f"{role}-x", "prefix_cache": "off"} for role in Role}
    files = {
        "data.practice": tmp_path / "p",
        "data.held_out": tmp_path / "h",
        "distill.prompts": tmp_path / "d",
    }
    config = resolved(**every | roles | files)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), "utf-8")
    again = load_config(path, environment=False)
    assert again == config
    assert again.digest() == config.digest() != resolved().digest()


def test_sections_may_be_given_as_objects() -> None:
    practice = PracticeSection(group_size=7, temperature=0.1)
    config = Config.model_validate(MINIMAL | {"recipe": "small-model", "practice": practice})
    assert (config.practice.group_size, config.practice.temperature) == (7, 0.1)
    assert config.practice.propose == "add"


def test_an_unmarked_field_is_refused() -> None:
    class Inner(Section):
        forgotten: int = 0

    class Outer(Section):
        inner: Inner = Inner()

    with pytest.raises(TypeError, match=r"inner\.forgotten is marked neither"):
        list(walk(Outer))


def test_two_ways_of_saying_the_same_have_one_digest() -> None:
    small = {".".join(path): value for path, value in RECIPES["small-model"].items()}
    assert resolved(**small).digest() == resolved(recipe="small-model").digest()
    roles = {f"model.{role}.name": "m" for role in Role}
    assert resolved(**roles).digest() == resolved().digest()
    assert resolved(**{"model.distiller.name": "big"}).digest() != resolved().digest()
    elsewhere = {"model": {"local": "default", "rollout": MINIMAL["model"], "distiller": MINIMAL["model"]}}
    assert resolved(MINIMAL, elsewhere).digest() != resolved().digest()
    assert resolved(MINIMAL, elsewhere, **{"model.judge": MINIMAL["model"]}).digest() == resolved().digest()


def test_the_recipe_paper_is_the_default() -> None:
    assert {path: SETTINGS[path].default for path in RECIPES["paper"]} == dict(RECIPES["paper"])
    assert RECIPES["paper"].keys() == RECIPES["small-model"].keys()


def test_a_recipe_gives_way_to_every_other_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        'recipe = "small-model"\n[model]\nlocal = "default"\n[data]\nheld_out = "h.jsonl"\n'
        "[practice]\ngroup_size = 7\n[expert.practice]\ncandidates = 7\ngate_tasks = 7\n",
        "utf-8",
    )
    monkeypatch.setenv("TFGRPO_PRACTICE__CANDIDATES", "8")
    monkeypatch.setenv("TFGRPO_EXPERT__PRACTICE__GATE_TASKS", "8")
    traced = trace_config(path, {"practice.gate_tasks": 9, "expert.practice.gate_samples": 9})
    told = {each.setting.name: (each.value, each.origin) for each in traced}
    assert told["recipe"] == ("small-model", "file config.toml")
    assert told["practice.propose"] == ("add", "recipe small-model")
    assert told["practice.group_size"] == (7, "file config.toml")
    assert told["practice.candidates"] == (8, "environment variable TFGRPO_PRACTICE__CANDIDATES")
    assert told["practice.gate_tasks"] == (9, "--set")
    assert told["practice.gate_samples"] == (9, "--set")
    assert told["practice.shuffle"] == (True, "default")
    assert "model.rollout.name" not in told
    assert load_config(path, {"recipe": "paper"}).practice.propose == "model"
    monkeypatch.setenv("TFGRPO_RECIPE", "paper")
    assert load_config(path).practice.propose == "model"


def test_a_recipe_works_without_a_file() -> None:
    config = Config.model_validate(MINIMAL | {"recipe": "small-model"})
    assert (config.practice.select, config.distill.lesson) == ("gain", "answer")


def test_the_demo_runs_with_the_values_it_had() -> None:
    now = load_config(TICKETS, environment=False)
    data = {"practice": TICKETS.parent / "practice.jsonl", "held_out": TICKETS.parent / "held_out.jsonl"}
    before = resolve_config(tomllib.loads(OLD) | {"data": data}, environment=False)
    assert now == before.model_copy(update={"recipe": "small-model"})
    assert now.digest() == before.digest()


def header(config: str, config_hash: str) -> Header:
    return Header("practice", config, config_hash, "prompts", "held out", "practice", "library", 0.0)


def test_a_run_of_version_0_1_is_read_and_keeps_its_settings(tmp_path: Path) -> None:
    read = header(OLD, "its hash of then")
    config = run_config(read, tmp_path, {"budget.tokens": 5})
    assert (config.practice.select, config.distill.max_tokens, config.budget.tokens) == ("gain", 44, 5)
    roles = OLD + '\n[model.distiller]\nlocal = "qwen2.5-0.5b"\n'
    config = run_config(header(roles, ""), tmp_path)
    assert config.model.role(Role.DISTILLER).local == "qwen2.5-0.5b"


def test_a_run_may_change_what_is_marked_speed_and_nothing_else(tmp_path: Path) -> None:
    config = resolved()
    read = header(config.to_toml(), config.digest())
    assert read.config_hash == config.digest()
    for setting in PLAIN:
        changed = {setting.name: other_value(setting)}
        if setting.mark is Mark.SPEED:
            assert run_config(read, tmp_path, changed).digest() == config.digest()
        else:
            with pytest.raises(ConfigError, match=r"only these may change on resume: run\.name") as caught:
                run_config(read, tmp_path, changed)
            assert setting.spelled in caught.value.message
            assert "limits.*, budget.*" in caught.value.message
    with pytest.raises(ConfigError, match=r"--set model.name: a run keeps"):
        run_config(read, tmp_path, {"model": {"name": "other"}, "budget.tokens": 3})
    with pytest.raises(ConfigError, match=r"unknown key budgt; did you mean budget"):
        run_config(read, tmp_path, {"budgt.tokens": 3})


MISPLACED = [
    (
        "[practice]\noversample = 2\n",
        "practice.oversample is an expert key: write it under [expert.practice].",
    ),
    ("[expert.practice]\nepochs = 2\n", "practice.epochs is an everyday key: write it under [practice]."),
    ("[expert]\nrecipe = 'paper'\n", "recipe is an everyday key: write it at the top of the file, before"),
    (
        "[model.judge]\nname = 'x'\nlocal = 'y'\n",
        "[model.judge] is an expert table: write it as [expert.model.judge].",
    ),
    ("[model]\nprefix_cache = 'on'\n", "model.prefix_cache is an expert key: write it under [expert.model]."),
    (
        "[expert.model.price]\ninput = 3\n",
        "model.price.input is an everyday key: write it under [model.price].",
    ),
    ("[distill]\nlesson = 'answer'\n", "distill.lesson is an expert key: write it under [expert.distill]."),
    ("expert = 3\n", "expert: must be a table"),
    ("[expert.price]\ninput = 3\n", "unknown key expert.price; did you mean model.price?"),
    ("[[practice]]\nepochs = 3\n", "practice: must be a table, written [practice] (got [{'epochs': 3}])."),
]


@pytest.mark.parametrize(("text", "told"), MISPLACED)
def test_a_key_in_the_wrong_place_is_sent_to_the_right_one(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {"model.local": "default", "data.held_out": "h.jsonl"})
    assert told in caught.value.message
    assert caught.value.message.count("expert table") <= 1


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"TFGRPO_LIMITS__CONCURENCY": "3"},
            "TFGRPO_LIMITS__CONCURENCY: unknown key limits.concurency; did you",
        ),
        (
            {"TFGRPO_LIMTS__CONCURRENCY": "3"},
            "TFGRPO_LIMTS__CONCURRENCY: unknown key limts; did you mean limits?",
        ),
        ({"TFGRPO_RECIPE": "papr"}, "recipe: Input should be 'paper' or 'small-model' (got 'papr', from env"),
        (
            {"TFGRPO_LIMITS__ATTEMPTS": "six"},
            "unable to parse string as an integer (got 'six', from environment variable TFGRPO_LIMITS__ATTEMPTS).",
        ),
        (
            {"TFGRPO_LIMITS__ATTEMPTS": "6", "TFGRPO_EXPERT__LIMITS__ATTEMPTS": "6"},
            "set the same key expert.limits.attempts; unset one",
        ),
        ({"TFGRPO_MODEL__PRICE": "{1}"}, "model.price: must be a table"),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        resolve_config(MINIMAL)
    assert told in caught.value.message


def test_the_environment_gives_tables_and_leaves_other_variables_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TFGRPO_CACHE", "/nowhere")
    monkeypatch.setenv("TFGRPO_MODEL__PRICE", '{"input": 1, "output": 2}')
    monkeypatch.setenv("tfgrpo_practice__ground_truth", "false")
    config = resolve_config(MINIMAL)
    assert config.model.price is not None
    assert config.model.price.output == 2.0
    assert config.practice.ground_truth is False


def test_overrides_join_parts_and_replace_values() -> None:
    schema = {"type": "object", "required": ["a"]}
    config = resolved(
        MINIMAL, {"agent": {"response_schema": schema}}, **{"agent.response_schema.required": ["b"]}
    )
    assert config.agent.response_schema == {"type": "object", "required": ["b"]}
    priced = MINIMAL | {"model": MINIMAL["model"] | {"price": {"input": 1, "output": 2}}}
    assert resolved(priced, **{"model.price": None}).model.price is None
    raised = resolved(priced, **{"model.price.output": 3})
    assert raised.model.price is not None
    assert (raised.model.price.input, raised.model.price.output) == (1, 3)
    with pytest.raises(ConfigError, match=r"model: must be a table"):
        resolved(priced, model=3)
