"""The public jobs: practise, evaluate, resume, and the engine as a library. The only room that reads a Config."""

from tfgrpo.run.api import evaluate, evaluate_sync, practice, practice_sync, resume, resume_sync
from tfgrpo.run.engine import Engine, Outcomes
from tfgrpo.run.finish import Run
from tfgrpo.run.stop import StopSwitch

__all__ = [
    "Engine",
    "Outcomes",
    "Run",
    "StopSwitch",
    "evaluate",
    "evaluate_sync",
    "practice",
    "practice_sync",
    "resume",
    "resume_sync",
]
