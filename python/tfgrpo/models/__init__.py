"""Models: one protocol, and the client for any OpenAI-compatible chat endpoint."""

from tfgrpo.errors import GroupRequestUnsupportedError
from tfgrpo.models.aiohttp_transport import open_session
from tfgrpo.models.openai import OpenAIModel
from tfgrpo.models.pricing import cost, priced
from tfgrpo.models.structured import StructuredOutputError, parse_json_object, parse_structured
from tfgrpo.models.transport import Session
from tfgrpo.protocols import LimitReading, Model, Observer

__all__ = [
    "GroupRequestUnsupportedError",
    "LimitReading",
    "Model",
    "Observer",
    "OpenAIModel",
    "Session",
    "StructuredOutputError",
    "cost",
    "open_session",
    "parse_json_object",
    "parse_structured",
    "priced",
]
