"""The whole configuration, resolved and frozen; its digest, and its file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson
import tomli_w
from pydantic import model_validator

from tfgrpo.config.marks import EXPERT, Everyday, Mark, Section, Setting, Shapes, value_at, walk
from tfgrpo.config.recipes import RECIPES, Recipe
from tfgrpo.config.tables import (
    AgentSection,
    BudgetSection,
    DataSection,
    DistillSection,
    Endpoint,
    EvaluationSection,
    LimitsSection,
    ModelSection,
    PracticeSection,
    RunSection,
    VerifierSection,
)
from tfgrpo.types import Role


class Config(Section):
    """The whole configuration, resolved and frozen. `recipe` gives values to keys of the method that are not given."""

    recipe: Everyday[Shapes[Recipe]] = "paper"
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

    @model_validator(mode="before")
    @classmethod
    def _recipe_fills_the_gaps(cls, given: Any) -> Any:
        recipe = given.get("recipe", "paper") if isinstance(given, Mapping) else None
        if not isinstance(recipe, str) or recipe not in RECIPES:
            return given
        filled = dict(given)
        for (table, key), value in RECIPES[recipe].items():
            own = filled.get(table, {})
            if isinstance(own, Section):
                own = {name: getattr(own, name) for name in own.model_fields_set}
            if isinstance(own, Mapping):
                filled[table] = {key: value, **own}
        return filled

    def digest(self) -> str:
        """The hash of every value that shapes results, so that two ways of giving the same values have the same.

        The recipe counts by the values it gave, and the tables of `[model]` by the endpoint each role ends up with.
        A key without a value is left out: a later version may add such a key, and runs keep their digest.
        """
        body: dict[str, Any] = {}
        for setting in shaping(walk(Config)):
            if setting.path[0] not in ("recipe", "model"):
                body[setting.name] = value_at(self, setting.path)
        for role in Role:
            endpoint = self.model.role(role)
            for setting in shaping(walk(Endpoint)):
                body[f"model.{role.value}.{setting.name}"] = value_at(endpoint, setting.path)
        given = {key: value for key, value in body.items() if value is not None}
        return hashlib.sha256(orjson.dumps(given, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def to_toml(self) -> str:
        """The resolved configuration as a file; keys without a value are left out.

        The table of a role keeps its own keys only (see `ModelSection.role`).
        """
        values = self.model_dump(mode="json", exclude_none=True)
        for role in Role:
            own: Endpoint | None = getattr(self.model, role.value)
            if own is not None:
                values["model"][role.value] = own.model_dump(
                    mode="json", exclude_unset=True, exclude_none=True
                )
        body: dict[str, Any] = {}
        for setting in walk(Config):
            *tables, key = setting.path
            source: Any = values
            for name in tables:
                source = source.get(name, {})
            if key not in source:
                continue
            target = body if setting.everyday else body.setdefault(EXPERT, {})
            for name in tables:
                target = target.setdefault(name, {})
            target[key] = source[key]
        # The everyday tables first: what a reader looks for stands above what is rarely set.
        expert = body.pop(EXPERT, None)
        return tomli_w.dumps(body if expert is None else body | {EXPERT: expert})


def shaping(settings: Any) -> list[Setting]:
    """The keys among `settings` that shape results."""
    return [setting for setting in settings if setting.mark is Mark.SHAPES]


SETTINGS: Mapping[tuple[str, ...], Setting] = {setting.path: setting for setting in walk(Config)}
