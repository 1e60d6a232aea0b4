"""Rollouts: one attempt at a task as one terminal record, and the agents that are shipped."""

from tfgrpo.rollout.deadline import Deadline
from tfgrpo.rollout.direct import DirectAgent
from tfgrpo.rollout.runner import run_attempt
from tfgrpo.rollout.scope import AttemptScope

__all__ = ["AttemptScope", "Deadline", "DirectAgent", "run_attempt"]
