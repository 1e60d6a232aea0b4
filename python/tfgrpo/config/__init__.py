"""The configuration: default < recipe < file < environment < flag, resolved once, frozen, hashed into the run.

Keys are those of the reference page `docs/reference/configuration.md`. Unknown keys are errors that name the
nearest known one. Secrets never stand here: `api_key_env` names the environment variable that holds the key.
"""

from tfgrpo.config.marks import Everyday, Mark, Section, Setting, Shapes, Speed
from tfgrpo.config.recipes import RECIPES, Recipe
from tfgrpo.config.root import SETTINGS, Config
from tfgrpo.config.sources import (
    Effective,
    api_key,
    endpoint_of,
    load_config,
    parse_override,
    resolve_config,
    shaping_overrides,
    speed_keys,
    trace_config,
)
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
    PriceSection,
    RunSection,
    VerifierSection,
)

__all__ = [
    "RECIPES",
    "SETTINGS",
    "AgentSection",
    "BudgetSection",
    "Config",
    "DataSection",
    "DistillSection",
    "Effective",
    "Endpoint",
    "EvaluationSection",
    "Everyday",
    "LimitsSection",
    "Mark",
    "ModelSection",
    "PracticeSection",
    "PriceSection",
    "Recipe",
    "RunSection",
    "Section",
    "Setting",
    "Shapes",
    "Speed",
    "VerifierSection",
    "api_key",
    "endpoint_of",
    "load_config",
    "parse_override",
    "resolve_config",
    "shaping_overrides",
    "speed_keys",
    "trace_config",
]
