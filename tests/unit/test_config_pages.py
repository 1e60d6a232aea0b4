"""The configuration that the documentation shows is one that loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tfgrpo.config import RECIPES, SETTINGS, load_config
from tfgrpo.config.layout import ROLE_TABLES
from tfgrpo.types import Role

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
#: The first three cells of a row of the page that tells a key.
ROW = r"^\| `([\w.]+)` \| ?(.*?) ?\| ?(.*?) ?\|"


def test_the_readme_example_loads(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    (tmp_path / "config.toml").write_text(block[1], "utf-8")
    config = load_config(tmp_path / "config.toml")
    assert config.budget.usd == 5.0
    assert config.model.price is not None


def test_the_reference_tells_every_key_in_its_place_with_default_and_mark() -> None:
    everyday, rest = PAGE.split("## Recipes")
    expert = rest.split("## Expert keys")[1]
    own = [setting for setting in SETTINGS.values() if setting.path[:2] not in ROLE_TABLES]
    for text, place in ((everyday, True), (expert, False)):
        told = {key: (default, mark) for key, default, mark in re.findall(ROW, text, re.MULTILINE)}
        for role in Role:
            assert told.pop(f"expert.model.{role}", ("", "")) == ("", "")
        assert told == {
            setting.spelled: (
                "" if setting.default is None else f"`{json.dumps(setting.default)}`",
                setting.mark,
            )
            for setting in own
            if setting.everyday is place
        }


def test_the_reference_tells_every_recipe() -> None:
    table = PAGE.split("## Recipes")[1].split("## Expert keys")[0]
    told = {key: values for key, *values in re.findall(ROW, table, re.MULTILINE)}
    assert told == {
        SETTINGS[path].spelled: [f"`{json.dumps(RECIPES[name][path])}`" for name in ("paper", "small-model")]
        for path in RECIPES["paper"]
    }


def test_about_25_keys_are_everyday() -> None:
    assert 20 <= sum(setting.everyday for setting in SETTINGS.values()) <= 30
