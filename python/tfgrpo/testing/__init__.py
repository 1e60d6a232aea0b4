"""The public testing kit: models and scopes that answer by script, planned faults, a clock without waiting, a server.

Everything here is deterministic: a reply is a function of the request, a fault a function of the plan, the
call's key and its attempt, never of the order in which things finish.
"""

from tfgrpo.events import strict_hooks
from tfgrpo.testing.clock import VirtualClock
from tfgrpo.testing.faults import FaultPlan, FaultType, PlannedFault
from tfgrpo.testing.instances import instance_of
from tfgrpo.testing.loopback import LoopbackServer
from tfgrpo.testing.scope import ScriptedScope
from tfgrpo.testing.scripted import ScriptedModel
from tfgrpo.testing.scripts import Script, seeded

__all__ = [
    "FaultPlan",
    "FaultType",
    "LoopbackServer",
    "PlannedFault",
    "Script",
    "ScriptedModel",
    "ScriptedScope",
    "VirtualClock",
    "instance_of",
    "seeded",
    "strict_hooks",
]
