"""The digest of a request is stable for ever: golden values, and what it must not depend on."""

from __future__ import annotations

import pytest

from tfgrpo.errors import JournalError
from tfgrpo.journal import digest_of
from tfgrpo.types import Message, ModelRequest, ToolCall

PLAIN = ModelRequest((Message("system", "Route the ticket."), Message("user", "Größe 3 — ✓?")))
FULL = ModelRequest(
    (Message("assistant", "", (ToolCall("1", "python", '{"code": "1+1"}'),)), Message("tool", "2", (), "1")),
    n=5,
    temperature=0.7,
    top_p=0.95,
    max_tokens=256,
    seed=2**40,
    stop=("\n",),
    response_schema={"type": "object", "required": ["team"], "properties": {"team": {"type": "string"}}},
    schema_name="route",
    tools=({"name": "python", "strict": True},),
)


def test_golden_digests() -> None:
    """A change of these values makes every journal of an earlier version impossible to resume."""
    assert digest_of(PLAIN).hex() == "40e5de6277c43207f367c622192701decd810e731673f68c1effafd64e7c4397"
    assert digest_of(FULL).hex() == "353051858940bda459e169be87e58f765f24cb9ffae759d10e2922cc9d4c5926"


def test_the_order_of_keys_does_not_matter() -> None:
    one = ModelRequest((), response_schema={"a": 1, "b": {"c": 2, "d": 3}})
    other = ModelRequest((), response_schema={"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of(one) == digest_of(other)


def test_a_default_that_is_written_out_does_not_matter() -> None:
    assert digest_of(ModelRequest(PLAIN.messages, n=1, tools=())) == digest_of(PLAIN)


@pytest.mark.parametrize("content", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_refused(content: str) -> None:
    with pytest.raises(JournalError, match="cannot be journaled"):
        digest_of(ModelRequest((Message("user", content),)))
