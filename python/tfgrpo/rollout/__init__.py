"""Rollouts: who attempts a task, and one attempt as one terminal record."""

from tfgrpo.rollout.agent import Agent, Ask, Attempt, build_agent
from tfgrpo.rollout.deadline import Deadline, is_cut_off
from tfgrpo.rollout.runner import run_rollout

__all__ = ["Agent", "Ask", "Attempt", "Deadline", "build_agent", "is_cut_off", "run_rollout"]
