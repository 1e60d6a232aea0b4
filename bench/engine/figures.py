"""Figures out of what a client tells and what the server counted; and the lower bound of a practice step."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def of_calls(ask: Mapping[str, Any], told: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one round of calls.

    `answered` and `served` are shares of the calls that were asked for: what the client has, and what the server was
    paid for. `right` is 1 when both sides add up to the same marks and tokens.
    """
    calls, served = ask["calls"], counts["served"]
    right = told["marks"] == counts["marks"] and told["tokens"] == counts["tokens"]
    figures = {
        "cpu": share(told["cpu"], served) * 1000,
        "wall": told["wall"],
        "calls a second": share(served, told["wall"]),
        "answered": told["answered"] / calls,
        # Failed or given up: there is no answer.
        "lost": float(calls - told["answered"]),
        "served": served / calls,
        "streamed": share(counts["streamed"], served),
        "right": float(right),
        "peak in flight": float(counts["peak_in_flight"]),
        "rss": told["rss"],
        "429s": float(counts["rate_limited"]),
        "429 share": share(counts["rate_limited"], counts["requests"]),
    }
    if "seconds" in ask:
        # All places always taken, by calls of constant length.
        ideal = math.ceil(calls / ask["in_flight"]) * ask["seconds"]
        figures["share of the possible rate"] = share(ideal * told["answered"] / calls, told["wall"])
    if counts["permitted"] > 0:
        # The time until the last answer counts, though nothing could be sent any more while it was waited for.
        figures["used"] = share(served, counts["permitted"])
        figures["used to the last admission"] = share(served, counts["permitted_admitted"])
    if counts["permitted_tokens"] > 0:
        figures["used tokens"] = share(counts["tokens"], counts["permitted_tokens"])
    for name in ("late p99", "late most"):
        if name in told:
            figures[name] = told[name] * 1000
    return figures


def lower_bound(
    calls: Mapping[str, Mapping[str, float]], places: int, limit: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The least wall time of one practice step, from the server's latencies by key, in seconds.

    The critical path is the slowest group's rollouts, summaries, advantage and proposal, then the consolidation. The
    places bound it by the sum of all latencies, the limit by the calls and tokens. No engine can be faster than the
    greatest of these.
    """
    stages: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    last = 0.0
    for key, call in calls.items():
        parts = key.split("/")
        if parts[0] == "consolidate":
            last += call["latency"]
            continue
        task = parts[2]
        stage = parts[0] if parts[0] == "practice" else parts[3]
        if "repair" in parts:  # it follows its question
            stage = "/".join(parts[3:])
        stages[task][stage] = max(stages[task][stage], call["latency"])
    path = max((sum(found.values()) for found in stages.values()), default=0.0) + last
    bounds = {
        "critical path": path,
        "places": sum(call["latency"] for call in calls.values()) / places,
        "calls by limit": 0.0,
        "tokens by limit": 0.0,
    }
    limit = limit or {}
    if rate := limit.get("rate"):
        bounds["calls by limit"] = max(len(calls) - limit.get("burst", 1.0), 0.0) / rate
    if minute := limit.get("tokens_per_minute"):
        tokens = sum(call["tokens"] for call in calls.values()) - limit.get("token_burst", 0.0)
        bounds["tokens by limit"] = max(tokens, 0.0) / (minute / 60.0)
    return bounds | {"lower bound": max(bounds.values())}


def of_practice(
    ask: Mapping[str, Any], told: Mapping[str, Any], counts: Mapping[str, Any], limit: Mapping[str, float]
) -> dict[str, float]:
    """The figures of one practice step. `once` is the share of keys that were served exactly once."""
    keys = counts["keys"]
    bounds = lower_bound(keys, ask["in_flight"], limit)
    return bounds | {
        "wall": told["wall"],
        "over the bound": share(told["wall"], bounds["lower bound"]),
        "calls": float(counts["served"]),
        "once": share(sum(call["served"] == 1 for call in keys.values()), len(keys)),
        "groups that taught": float(told["taught"]),
        "entries": float(told["entries"]),
        "peak in flight": float(counts["peak_in_flight"]),
        "429s": float(counts["rate_limited"]),
        "cpu": share(told["cpu"], counts["served"]) * 1000,
    }


def of_resume(told: Mapping[str, Any], counts: Mapping[str, Any], spawned: float) -> dict[str, float]:
    """The figures of one resume. Clock times of one machine: of the process's start, and of the first request."""
    figures = {
        "start to first request": counts["first"] - spawned,
        "served": float(counts["served"]),
        # Of the whole process, imports and the way to its end included.
        "cpu": told["cpu whole"],
        "rss": told["rss"],
    }
    if "known" in told:
        # The call that the journal holds came from there, and the new one from the server.
        figures["right"] = float(told["known"] and told["mark"] == counts["marks"])
    return figures


def share(part: float, whole: float) -> float:
    """`part` of `whole`; of nothing it is 0."""
    return part / whole if whole else 0.0


def middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure the median of the rounds."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: statistics.median(figures[name] for figures in rounds if name in figures) for name in names}
