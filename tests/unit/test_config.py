"""The configuration file: what it says, what wins, and what is told about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfgrpo.config import api_key, load_config, parse_override
from tfgrpo.errors import ConfigError
from tfgrpo.types import Role

MINIMAL = """
[model]
base_url = "http://127.0.0.1:1/v1"
name = "m"
[data]
practice = "practice.jsonl"
held_out = "held_out.jsonl"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    assert config.data.held_out == tmp_path / "held_out.jsonl"


def test_flags_win_over_environment_and_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        tmp_path, MINIMAL + "[limits]\nconcurrency = 1\n[expert.limits]\nattempts = 1\n[run]\nseed = 1\n"
    )
    monkeypatch.setenv("TFGRPO_LIMITS__CONCURRENCY", "2")
    monkeypatch.setenv("TFGRPO_LIMITS__ATTEMPTS", "2")
    config = load_config(path, {"limits.concurrency": 3})
    assert (config.limits.concurrency, config.limits.attempts, config.run.seed) == (3, 2, 1)
    assert load_config(path, environment=False).limits.concurrency == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[limits]\nconcurency = 3\n", "unknown key limits.concurency; did you mean limits.concurrency?"),
        ("[limts]\nconcurrency = 3\n", "unknown key limts; did you mean limits?"),
        ("[practice]\nepochs = 0\n", "practice.epochs"),
        ("[practice]\ngroup_size = 'five'\n", "practice.group_size"),
        ("[expert.practice]\nselect = 'gain'\nground_truth = false\n", "ground_truth = false"),
        ("[verifier]\nkind = 'python'\n", "verifier"),
        ("[model.price]\ninput = 1\noutptu = 1\n", "did you mean model.price.output?"),
        ("[expert.model.distiller]\nnmae = 'x'\n", "did you mean expert.model.distiller.name?"),
        ("[run]\nepochs = 3\n", "unknown key run.epochs; did you mean practice.epochs?"),
        ("[practice]\noversampel = 3\n", "did you mean expert.practice.oversample?"),
        ("[run]\nrecipe = 'paper'\n", "did you mean recipe? (at the top of the file)"),
        ("[expert.practice]\ntemperature = 3\n", "expert.practice.temperature: Input should be less than"),
        ("[expert]\npractice = 3\n", "practice: must be a table, written [practice]"),
        ("[evaluation]\nsamples = 4\nsamples = 5\n", "TOML"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL + text))
    assert told in caught.value.message
    assert "config.toml" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("[model]\nname = 'm'\n", "base_url"),
        ("[model]\nbase_url = 'http://x'\n", "model.name"),
        ("[model]\nbase_url = 'http://x'\nname = 'm'\nlocal = 'default'\n", "not both"),
        ("", r"\[model\] is missing"),
    ],
)
def test_every_role_needs_one_endpoint(tmp_path: Path, model: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(write(tmp_path, model + "[data]\nheld_out = 'h.jsonl'\n"))


def test_a_missing_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[run]\nname = '\xe9'\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(path)


def test_roles_fall_back_to_the_model(tmp_path: Path) -> None:
    text = MINIMAL.replace(
        "[data]", "[expert.model.distiller]\nname = 'big'\n[expert.model.judge]\nlocal = 'default'\n[data]"
    )
    config = load_config(write(tmp_path, text))
    assert config.model.role(Role.ROLLOUT).name == "m"
    distiller = config.model.role(Role.DISTILLER)
    assert (distiller.name, distiller.base_url) == ("big", "http://127.0.0.1:1/v1")
    judge = config.model.role(Role.JUDGE)
    assert (judge.local, judge.base_url, judge.name) == ("default", None, None)


def test_the_resolved_file_loads_to_the_same_configuration(tmp_path: Path) -> None:
    text = MINIMAL + "[expert.model]\ngroup_requests = 'never'\n[expert.model.distiller]\nname = 'big'\n"
    config = load_config(write(tmp_path, text), {"practice.epochs": 2})
    again = load_config(write(tmp_path, config.to_toml()))
    assert again.digest() == config.digest()
    assert again.to_toml() == config.to_toml()
    assert again.model.role(Role.DISTILLER) == config.model.role(Role.DISTILLER)
    assert again.model.role(Role.DISTILLER).group_requests == "never"


def test_the_digest_covers_what_shapes_results_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    digest = load_config(path).digest()
    for key, value in {"limits.concurrency": 2, "budget.usd": 1.0, "run.name": "other"}.items():
        assert load_config(path, {key: value}).digest() == digest, key
    for key, value in {"run.seed": 2, "practice.epochs": 9, "evaluation.samples": 2}.items():
        assert load_config(path, {key: value}).digest() != digest, key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("limits.concurrency=64", 64),
        ("model.name=gpt-x", "gpt-x"),
        ('run.name="a b"', "a b"),
        ("practice.ground_truth=false", False),
        ("agent.system=a = b", "a = b"),
    ],
)
def test_an_override_is_toml_or_a_plain_string(text: str, value: object) -> None:
    assert parse_override(text)[1] == value


@pytest.mark.parametrize("text", ["limits.concurrency", "=3", ""])
def test_an_override_without_key_or_value_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_override(text)


@pytest.mark.parametrize("kind", ["graders:reward", "python:graders:reward"])
def test_a_python_verifier_has_a_short_form(tmp_path: Path, kind: str) -> None:
    verifier = load_config(write(tmp_path, MINIMAL + f"[verifier]\nkind = '{kind}'\n")).verifier
    assert (verifier.kind, verifier.function) == ("python", "graders:reward")


def test_the_key_is_read_when_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = MINIMAL.replace("[data]", "api_key_env = 'TFGRPO_TEST_KEY'\n[data]")
    config = load_config(write(tmp_path, text))
    monkeypatch.delenv("TFGRPO_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="TFGRPO_TEST_KEY"):
        api_key(config.model.role(Role.ROLLOUT))
    monkeypatch.setenv("TFGRPO_TEST_KEY", "secret")
    assert api_key(config.model.role(Role.ROLLOUT)) == "secret"
    assert "secret" not in config.to_toml()
