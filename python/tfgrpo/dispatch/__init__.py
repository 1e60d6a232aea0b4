"""One paid effect: admitted, durable before it is sent and before it is used, retried outside its slot."""

from tfgrpo.dispatch.admission import Admission
from tfgrpo.dispatch.budget import Budget
from tfgrpo.dispatch.calls import Dispatcher
from tfgrpo.dispatch.effects import Watcher, fault_of, model_effect, request_digest
from tfgrpo.dispatch.prefix import PrefixCache, PrefixGroup
from tfgrpo.dispatch.priority import Priority
from tfgrpo.dispatch.provider import Provider
from tfgrpo.dispatch.sharing import Sharing
from tfgrpo.dispatch.tools import run_tool, use_tool

__all__ = [
    "Admission",
    "Budget",
    "Dispatcher",
    "PrefixCache",
    "PrefixGroup",
    "Priority",
    "Provider",
    "Sharing",
    "Watcher",
    "fault_of",
    "model_effect",
    "request_digest",
    "run_tool",
    "use_tool",
]
