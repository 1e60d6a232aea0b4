"""Which settings make another run, and which only another pace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.world import make_config

from tfgrpo.config import load_config


@pytest.mark.parametrize(
    "pace",
    [
        {"model__prefix_cache": "on"},
        {"model__prefix_cache": "off", "model__prefix_leaders": 2},
        {"limits__task_timeout": 5.0},
        {"practice__oversample": 0, "practice__max_staleness": 0},
    ],
)
def test_pace_is_no_part_of_a_run(tmp_path: Path, pace: dict[str, Any]) -> None:
    assert make_config(tmp_path, **pace).digest() == make_config(tmp_path).digest()


@pytest.mark.parametrize("key", ["practice__oversample", "practice__max_staleness"])
def test_what_shapes_results_is(tmp_path: Path, key: str) -> None:
    changed: dict[str, Any] = {key: 1}
    assert make_config(tmp_path, **changed).digest() != make_config(tmp_path).digest()


def test_a_role_may_have_its_own_pace(tmp_path: Path) -> None:
    make_config(tmp_path)
    path = tmp_path / "config.toml"
    text = path.read_text("utf-8") + '[expert.model.rollout]\nname = "other"\n'
    digests = []
    for more in ("", 'prefix_cache = "on"\nprefix_leaders = 2\n'):
        path.write_text(text + more, "utf-8")
        digests.append(load_config(path, environment=False).digest())
    assert digests[0] == digests[1]
