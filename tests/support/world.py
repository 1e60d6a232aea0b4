"""The small world that engine tests run in: the sample tasks of the testing kit, and a configuration for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfgrpo.config import Config, load_config
from tfgrpo.testing import ScriptedModel
from tfgrpo.testing.scripts import truth_of, with_key
from tfgrpo.types import Role


def write_tasks(path: Path, count: int, first: int = 0, *, truth: bool = True) -> None:
    """A data file of sample tasks with keys `first`, `first` + 1, …"""
    lines = []
    for number in range(first, first + count):
        text = with_key(f"Which way at crossing {number}?", number)
        record = {"id": f"t{number}", "input": text}
        if truth:
            record["truth"] = truth_of(text)
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_config(
    folder: Path, *, practice: int = 6, held_out: int = 5, truth: bool = True, **overrides: Any
) -> Config:
    """A configuration over fresh data files; overrides are dotted keys with `__` for the dots."""
    write_tasks(folder / "practice.jsonl", practice, truth=truth)
    write_tasks(folder / "held_out.jsonl", held_out, first=10_000)
    path = folder / "config.toml"
    path.write_text(
        '[model]\nbase_url = "http://127.0.0.1:9/v1"\nname = "scripted"\n'
        '[data]\npractice = "practice.jsonl"\nheld_out = "held_out.jsonl"\n'
        "[practice]\nepochs = 1\nbatch_size = 4\ngroup_size = 3\n"
        "[evaluation]\nsamples = 2\n"
        # A provider whose rate is known: nothing has to be felt out.
        "[limits]\nconcurrency = 16\nrequests_per_minute = 60_000_000\n",
        encoding="utf-8",
    )
    return load_config(path, {key.replace("__", "."): value for key, value in overrides.items()})


def models(model: ScriptedModel) -> dict[Role, ScriptedModel]:
    """One model in every role."""
    return dict.fromkeys(Role, model)
