"""Distillation: from the rollouts of a mixed group to operations on the library (METHOD steps 3 to 5)."""

from tfgrpo.distill.advantage import compare
from tfgrpo.distill.ask import Asker
from tfgrpo.distill.consolidate import Settled, consolidate, settle
from tfgrpo.distill.prompts import Prompts
from tfgrpo.distill.propose import Proposals, propose
from tfgrpo.distill.summarize import summarize

__all__ = [
    "Asker",
    "Prompts",
    "Proposals",
    "Settled",
    "compare",
    "consolidate",
    "propose",
    "settle",
    "summarize",
]
