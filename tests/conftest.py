"""Hypothesis profiles: deterministic and short on every push, long at night."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Machines are shared and noisy: a deadline would test the neighbours. Derandomised: a red push is a real one.
settings.register_profile(
    "push", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.register_profile(
    "nightly", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=2_000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "push"))
