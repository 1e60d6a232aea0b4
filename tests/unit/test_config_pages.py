"""The configuration that the documentation shows is one that loads."""

from __future__ import annotations

import re
from pathlib import Path

from tfgrpo.config import load_config

ROOT = Path(__file__).parents[2]


def test_the_readme_example_loads(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert block is not None
    (tmp_path / "config.toml").write_text(block[1], "utf-8")
    config = load_config(tmp_path / "config.toml")
    assert config.budget.usd == 5.0
    assert config.model.price is not None


def test_every_key_of_the_reference_exists_and_none_is_missing() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
    told = set()
    for cell in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE):
        prefix = ""
        for key in re.findall(r"`([\w.]+)`", cell):
            full = key if not key.startswith(".") else prefix + key
            prefix = full.rpartition(".")[0]
            told.add(full)
    config = load_config(ROOT / "examples" / "tickets" / "config.toml", environment=False)
    known = set()
    for section in type(config).model_fields:
        for field in type(getattr(config, section)).model_fields:
            known.add(f"{section}.{field}")
    assert {".".join(key.split(".")[:2]) for key in told} == known
