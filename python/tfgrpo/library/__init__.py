"""The experience library and the token prior it becomes: the facade over the Rust core."""

from tfgrpo._core import count_tokens
from tfgrpo.library.experiences import ExperienceLibrary, LibraryDiff
from tfgrpo.library.prior import DEFAULT_HEADING, PromptAssembler, TokenPrior

__all__ = [
    "DEFAULT_HEADING",
    "ExperienceLibrary",
    "LibraryDiff",
    "PromptAssembler",
    "TokenPrior",
    "count_tokens",
]
