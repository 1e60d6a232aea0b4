"""Recipes: the method's knobs, set together. A recipe gives values to keys that nothing else sets.

`paper` is the method as the paper runs it, with a large model in every role; where the paper is silent it has the
defaults. `small-model` is for a model of one or two billion parameters, which cannot keep a library by rewriting it:
a lesson is a short sentence about one kind of task, it is only added, and it stays if re-run rollouts gain by it.
Every recipe sets the same keys, so that changing the recipe leaves nothing of the other one behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tfgrpo.config.marks import KeyPath

Recipe: TypeAlias = Literal["paper", "small-model"]

#: The value of each key in the recipe "paper", then in "small-model".
_TABLE: dict[str, tuple[Any, Any]] = {
    "practice.epochs": (3, 1),
    "practice.batch_size": (20, 16),
    "practice.group_size": (5, 4),
    "practice.temperature": (0.7, 1.0),
    "practice.library_tokens": (2000, 1000),
    "practice.propose": ("model", "add"),
    "practice.consolidate": ("batch", "none"),
    "practice.select": ("none", "gain"),
    "practice.candidates": (4, 1),
    "practice.probe_tasks": (3, 0),
    "practice.gate_tasks": (20, 16),
    "practice.gate_samples": (2, 1),
    "distill.lesson": ("strategy", "answer"),
    "distill.temperature": (0.3, 0.3),
    "distill.max_tokens": (1024, 44),
    "distill.experience_words": (32, 18),
    "evaluation.temperature": (0.3, 0.3),
}


def _column(index: int) -> Mapping[KeyPath, Any]:
    return MappingProxyType({tuple(key.split(".")): row[index] for key, row in _TABLE.items()})


RECIPES: Mapping[str, Mapping[KeyPath, Any]] = MappingProxyType(
    {"paper": _column(0), "small-model": _column(1)}
)
