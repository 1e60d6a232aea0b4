"""A valid instance of a JSON schema, drawn deterministically: what a scripted model answers to a schema."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

#: What strings are made of.
WORDS = (
    *("when", "the", "task", "asks", "for", "a", "number", "check", "each", "step", "before", "you"),
    *("answer", "then", "compare", "both", "sides", "keep", "exact", "fractions", "and", "units"),
)

_DEEP = 6


def instance_of(
    schema: Mapping[str, Any],
    rng: random.Random,
    words: Sequence[str] = WORDS,
    named: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Draw a JSON value that is valid under `schema`.

    Understood: type (also a list of types), enum, const, anyOf, oneOf, `$ref` into `$defs` or `definitions`,
    properties and required, items with minItems and maxItems, minLength and maxLength, numeric bounds.

    Args:
        schema: the JSON schema.
        rng: every choice is drawn from it: the same state gives the same value.
        words: what strings are made of.
        named: values for string properties of a given name (`{"target": ids}`), used where they are short
            enough.

    Raises:
        ValueError: the schema uses a keyword that constrains the value and is not understood (`pattern`, …).
    """
    return _Drawer(schema, rng, words, named or {}).draw(schema, "", 0)


class _Drawer:
    """The walk through one schema."""

    def __init__(
        self,
        root: Mapping[str, Any],
        rng: random.Random,
        words: Sequence[str],
        named: Mapping[str, Sequence[str]],
    ) -> None:
        self.root = root
        self.rng = rng
        self.words = words
        self.named = named

    def draw(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        unknown = _NOT_UNDERSTOOD & schema.keys()
        if unknown:
            raise ValueError(f"instance_of does not understand {', '.join(sorted(unknown))}")
        if "$ref" in schema:
            return self.draw(self._resolve(schema["$ref"]), name, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self.draw(self._branch(schema[keyword], depth), name, depth)
        match self._type(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "string":
                return self._string(schema, name)
            case "integer":
                return self._integer(schema)
            case "number":
                low, high = _bounds(schema)
                return round(self.rng.uniform(low, high), 3) if math.floor(low) < math.floor(high) else low
            case "boolean":
                return self.rng.random() < 0.5
            case _:
                return None

    def _resolve(self, reference: str) -> Mapping[str, Any]:
        node: Any = self.root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                node = node[part.replace("~1", "/").replace("~0", "~")]
        found: Mapping[str, Any] = node
        return found

    def _branch(self, branches: Sequence[Mapping[str, Any]], depth: int) -> Mapping[str, Any]:
        """One branch; far down the plainest one, so that recursive schemas end."""
        if depth < _DEEP:
            return self.rng.choice(branches)
        return min(branches, key=lambda branch: ("$ref" in branch, branch.get("type") in {"object", "array"}))

    def _type(self, schema: Mapping[str, Any], depth: int) -> str:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, str):
            return kind
        plain = [one for one in kind if one not in {"object", "array"}]
        return str(self.rng.choice(plain if depth >= _DEEP and plain else kind))

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        value = {}
        for name, inner in schema.get("properties", {}).items():
            if name in required or (depth < _DEEP and self.rng.random() < 0.5):
                value[name] = self.draw(inner, name, depth + 1)
        return value

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        low = schema.get("minItems", 0)
        high = low if depth >= _DEEP else min(schema.get("maxItems", low + 3), low + 3)
        if "items" not in schema:
            return [None] * low
        return [self.draw(schema["items"], name, depth + 1) for _ in range(self.rng.randint(low, high))]

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        fitting = [
            text
            for text in self.named.get(name, ())
            if low <= len(text) and (high is None or len(text) <= high)
        ]
        if fitting:
            return self.rng.choice(fitting)
        text = " ".join(self.rng.choice(self.words) for _ in range(self.rng.randint(4, 9)))
        while len(text) < low:
            text += " " + self.rng.choice(self.words)
        if high is not None and len(text) > high:
            text = text[:high]
            # A trailing blank would be lost by whoever strips answers; a full word reads better too.
            shorter = text.rpartition(" ")[0]
            text = shorter if len(shorter) >= max(low, 1) else text
        return text

    def _integer(self, schema: Mapping[str, Any]) -> int:
        low, high = _bounds(schema)
        first, last = math.ceil(low), math.floor(high)
        if "exclusiveMinimum" in schema and first <= schema["exclusiveMinimum"]:
            first = math.floor(schema["exclusiveMinimum"]) + 1
        if "exclusiveMaximum" in schema and last >= schema["exclusiveMaximum"]:
            last = math.ceil(schema["exclusiveMaximum"]) - 1
        return self.rng.randint(first, last)


_NOT_UNDERSTOOD = {"pattern", "allOf", "not", "multipleOf", "uniqueItems", "prefixItems", "contains", "if"}


def _bounds(schema: Mapping[str, Any]) -> tuple[float, float]:
    """The numeric range, closed off at a width of ten where one side is open."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return 0, 10
    if low is None:
        return high - 10, high
    return low, low + 10 if high is None else high
