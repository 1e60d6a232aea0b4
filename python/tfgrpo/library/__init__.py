"""The experience library and the token prior it becomes: the facade over the Rust core."""

from tfgrpo._core import count_tokens, tokenizer_for_model
from tfgrpo.library.experiences import ExperienceLibrary, LibraryDiff
from tfgrpo.library.prior import DEFAULT_HEADING, Prompt, PromptAssembler, Segment
from tfgrpo.library.similar import Difference, Duplicate, Embedder, Judgement, Neighbour, Verdict

__all__ = [
    "DEFAULT_HEADING",
    "Difference",
    "Duplicate",
    "Embedder",
    "ExperienceLibrary",
    "Judgement",
    "LibraryDiff",
    "Neighbour",
    "Prompt",
    "PromptAssembler",
    "Segment",
    "Verdict",
    "count_tokens",
    "tokenizer_for_model",
]
