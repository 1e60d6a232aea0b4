"""Rate headers: every family and form of a reset, nonsense passed over, learned names, and nothing ever raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tfgrpo.models import LimitReading
from tfgrpo.models.limits import LimitReader, duration

DATE = "Mon, 02 Jan 2023 00:00:04 GMT"
NOW = 1672617604.0  # the same moment in seconds since 1970


def read(**headers: str) -> tuple[LimitReading, ...]:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return LimitReader(clock=lambda: NOW + 1000).read(named)


def test_the_names_of_openai_and_its_kin() -> None:
    assert read(
        x_ratelimit_limit_requests="500", x_ratelimit_remaining_requests="499",
        x_ratelimit_reset_requests="120ms", x_ratelimit_limit_tokens="30000",
        x_ratelimit_remaining_tokens="29000", x_ratelimit_reset_tokens="6m0s",
    ) == (LimitReading("requests", 500, 499, 0.12), LimitReading("tokens", 30000, 29000, 360))  # fmt: skip


def test_the_names_of_anthropic_are_measured_from_the_servers_own_clock() -> None:
    readings = read(
        Date=DATE,
        anthropic_ratelimit_requests_limit="50", anthropic_ratelimit_requests_remaining="49",
        anthropic_ratelimit_requests_reset="2023-01-02T00:00:05Z",
        anthropic_ratelimit_input_tokens_limit="40000", anthropic_ratelimit_input_tokens_remaining="39000",
        anthropic_ratelimit_input_tokens_reset="2023-01-02T00:01:04+00:00",
        anthropic_ratelimit_output_tokens_limit="8000", anthropic_ratelimit_output_tokens_remaining="0",
        anthropic_ratelimit_output_tokens_reset="2023-01-01T23:00:00Z",
    )  # fmt: skip
    assert readings == (
        LimitReading("input_tokens", 40000, 39000, 60),
        LimitReading("output_tokens", 8000, 0, 0),
        LimitReading("requests", 50, 49, 1),
    )


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1), ("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("12.5", 12.5), ("0", 0), (" 7 ", 7),
        ("2d", 172800), ("500us", 0.0005), ("1672617606", 2), ("1672617606500", 2.5),
        ("2023-01-02T00:00:06Z", 2), ("2023-01-02T01:00:06.250+01:00", 2.25), ("2023-01-02T00:00:06", 2),
        ("soon", None), ("-3", None), ("nan", None), ("1s later", None), ("s", None), ("", None),
        ("9" * 60, None), ("9" * 5000, None), ("9" * 60 + "s", None),
    ],
)  # fmt: skip
def test_forms_of_a_reset(reset: str, seconds: float | None) -> None:
    (reading,) = read(Date=DATE, x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests=reset)
    assert reading.reset == (None if seconds is None else pytest.approx(seconds))


def test_without_a_date_a_moment_is_measured_by_the_clock() -> None:
    (reading,) = read(x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests="1672618609")
    assert reading.reset == 5


@pytest.mark.parametrize(
    ("headers", "readings"),
    [
        ({"x_ratelimit_limit_requests": "0", "x_ratelimit_remaining_requests": "0"}, ()),
        ({"x_ratelimit_limit_requests": "-1", "x_ratelimit_remaining_requests": "9"}, ()),
        ({"x_ratelimit_limit_requests": "9", "x_ratelimit_remaining_requests": "-1"},
         (LimitReading("requests", 9),)),
        ({"x_ratelimit_remaining_tokens": "0"}, (LimitReading("tokens", None, 0),)),
        ({"x_ratelimit_limit_requests": "many"}, ()),
        ({"x_ratelimit_reset_requests": "1s"}, ()),
        ({"x_ratelimit_limit_apples": "9"}, ()),
        ({"x_ratelimit_limit": "9", "x_ratelimit_remaining": "3", "x_ratelimit_reset": "5"},
         (LimitReading("requests", 9, 3, 5),)),
        ({"RateLimit_Limit": "9, 9;w=60", "RateLimit_Remaining": "3", "RateLimit_Reset": "5"},
         (LimitReading("requests", 9, 3, 5),)),
        ({"x_ratelimit_limit": "9", "x_ratelimit_limit_requests": "7"}, (LimitReading("requests", 7),)),
        ({"RateLimit": '"a";r=50;t=30', "RateLimit_Policy": '"a";q=100;w=60'},
         (LimitReading("requests", 100, 50, 30, 60),)),
        ({"RateLimit": '"a";r=5;t=1, "day";r=3;t=9', "RateLimit_Policy": '"a";q=9;w=1,"day";q=99;w=86400'},
         (LimitReading("requests", 99, 3, 9, 86400),)),
        ({"RateLimit": '"a";r=5, "t";r=70', "RateLimit_Policy": '"a";q=9, "t";q=90;qu="tokens";w=60'},
         (LimitReading("requests", 9, 5), LimitReading("tokens", 90, 70, None, 60))),
        ({"RateLimit": '"b";r=5', "RateLimit_Policy": '"b";q=9;qu="content-bytes"'}, ()),
        ({"RateLimit": "limit=100, remaining=50, reset=5", "RateLimit_Policy": "100;w=10"},
         (LimitReading("requests", 100, 50, 5, 10),)),
        ({"RateLimit": '"a";r=5', "x_ratelimit_remaining_requests": "4"}, (LimitReading("requests", None, 4),)),
        ({"RateLimit": ";;;,=,\"", "RateLimit_Policy": "\"\";q;w=;="}, ()),
        ({}, ()),
    ],
)  # fmt: skip
def test_readings(headers: dict[str, str], readings: tuple[LimitReading, ...]) -> None:
    assert read(**headers) == readings


def test_names_are_learned_and_looked_for_again() -> None:
    reader = LimitReader()
    requests = {"x-ratelimit-limit-requests": "9"}
    tokens = requests | {"x-ratelimit-limit-tokens": "90"}
    both = (LimitReading("requests", 9), LimitReading("tokens", 90))
    assert reader.read(CIMultiDict(), 200) == ()
    assert reader.read(CIMultiDict(requests)) == both[:1], "looked for as long as nothing is known"
    assert reader.read(CIMultiDict(tokens)) == both[:1], "then only what is known is looked up"
    assert reader.read(CIMultiDict(tokens), 429) == both, "errors are looked at in full"
    assert reader.read(CIMultiDict(requests)) == both[:1]
    patient = LimitReader()
    patient.read(CIMultiDict(requests))
    assert both in [patient.read(CIMultiDict(tokens)) for _ in range(100)], "and so is one now and then"


def _written(seconds: int, milliseconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "")
    return text + f"{rest}s" if seconds or not milliseconds else f"{milliseconds}ms"


@given(st.integers(0, 10**7), st.integers(0, 999))
def test_durations_survive_being_written(seconds: int, milliseconds: int) -> None:
    assert duration(_written(seconds, milliseconds)) == pytest.approx(seconds or milliseconds / 1000)
    assert duration(f"{seconds}.{milliseconds:03d}s") == pytest.approx(seconds + milliseconds / 1000)
    assert duration(f"{seconds}.{milliseconds:03d}") == pytest.approx(seconds + milliseconds / 1000)


names = st.sampled_from([
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit", "x-ratelimit-reset", "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining", "RateLimit", "RateLimit-Policy",
    "RateLimit-Reset", "RateLimit-Remaining", "Date",
]) | st.text(max_size=12).map("x-ratelimit-".__add__)  # fmt: skip
values = (
    st.text(max_size=30)
    | st.from_regex(r'[-+]?[0-9]{0,25}[.e]?[0-9]{0,4}[a-z;,="]{0,6}', fullmatch=True)
    | st.lists(
        st.sampled_from(['"a"', ";", ",", "r=", "q=", "t=", "w=", "limit=", "1", "99", "-", "e999"])
    ).map("".join)
    | st.datetimes().map(lambda moment: moment.isoformat())
    | st.sampled_from([DATE, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
)


@given(st.lists(st.dictionaries(names, values, max_size=8), min_size=1, max_size=3), st.integers(200, 599))
def test_no_header_raises(responses: list[dict[str, str]], status: int) -> None:
    reader = LimitReader(clock=lambda: NOW)
    for headers in responses:
        for reading in reader.read(CIMultiDict(headers), status):
            assert reading.limit is None or 0 < reading.limit < float("inf")
            assert reading.remaining is None or 0 <= reading.remaining < float("inf")
            assert reading.reset is None or 0 <= reading.reset < float("inf")
            assert reading.limit is not None or reading.remaining is not None
