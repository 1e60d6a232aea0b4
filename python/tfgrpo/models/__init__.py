"""Models: one protocol, and the client for any OpenAI-compatible chat endpoint."""

from tfgrpo.models.model import GroupRequestUnsupportedError, LimitReading, Model, Observer
from tfgrpo.models.openai import OpenAIModel, open_session
from tfgrpo.models.pricing import cost, priced
from tfgrpo.models.structured import StructuredOutputError, parse_json_object, parse_structured

__all__ = [
    "GroupRequestUnsupportedError",
    "LimitReading",
    "Model",
    "Observer",
    "OpenAIModel",
    "StructuredOutputError",
    "cost",
    "open_session",
    "parse_json_object",
    "parse_structured",
    "priced",
]
