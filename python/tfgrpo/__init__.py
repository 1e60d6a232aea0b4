"""Training-Free GRPO: a frozen language model learns a library of experiences instead of weights."""

from importlib.metadata import version

from tfgrpo.config import Config, load_config
from tfgrpo.errors import (
    BudgetError,
    ConfigError,
    DataError,
    JournalError,
    LibraryError,
    ModelError,
    RunStoppedError,
    TfgrpoError,
    VerifierError,
)
from tfgrpo.library import Embedder, ExperienceLibrary, PromptAssembler, TokenPrior
from tfgrpo.run.api import Run, evaluate, practice, resume
from tfgrpo.run.stop import StopSwitch
from tfgrpo.types import Experience, Operation, OperationKind, Reward, Rollout, Task, Trajectory

__version__ = version("tfgrpo")

__all__ = [
    "BudgetError",
    "Config",
    "ConfigError",
    "DataError",
    "Embedder",
    "Experience",
    "ExperienceLibrary",
    "JournalError",
    "LibraryError",
    "ModelError",
    "Operation",
    "OperationKind",
    "PromptAssembler",
    "Reward",
    "Rollout",
    "Run",
    "RunStoppedError",
    "StopSwitch",
    "Task",
    "TfgrpoError",
    "TokenPrior",
    "Trajectory",
    "VerifierError",
    "evaluate",
    "load_config",
    "practice",
    "resume",
]
