"""The loopback server: `LoopbackServer` in one loop, `python -m tfgrpo.testing.loopback` as a process."""

from tfgrpo.testing.loopback.rates import RatePlan
from tfgrpo.testing.loopback.server import Counts, LoopbackServer, Served, read_log

__all__ = ["Counts", "LoopbackServer", "RatePlan", "Served", "read_log"]
