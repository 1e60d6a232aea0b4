"""From an HTTP response that is no completion to the typed error it means. Pure: no I/O, no state.

Codes and wordings differ between servers; the specific ones (quota, context length, unknown model, content
filter) are looked for first, in every status, and the status decides the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tfgrpo.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    InvalidRequestError,
    ModelError,
    ModelTimeoutError,
    OverloadedError,
    QuotaError,
    RateLimitedError,
    ServerError,
    UnknownModelError,
)
from tfgrpo.models.wire import WireError

_QUOTED = 300


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


_QUOTA = _words(r"insufficient[_ ](quota|balance|funds|credits?)|exceeded your current quota|billing_")
_CONTEXT = _words(
    r"context_length_exceeded|exceed_context_size|maximum context length|context (length|window|size)"
    r"|exceeds? the (available )?context|(prompt|input) is too long|too many tokens in"
)
_UNKNOWN_MODEL = _words(r"model_not_found|unknown[_ ]model|\bmodel\b.{0,80}\b(not found|(does )?not exist)")
_FILTERED = _words(r"content_filter|content_policy|content management policy|flagged|moderation")
_SECRET = _words(r"\b(sk|pk|key|api)[-_][\w*.…-]{6,}")
_ABOUT_N = _words(r"(?<![\w.'])(['\"`]?)n\1(?![\w.'])|\bn_cmpl\b|number of (choices|completions)")
_ABOUT_SCHEMA = _words(r"response_format|json_schema|json schema|structured output|guided_json|grammar")
_ABOUT_OPTIONS = _words(r"stream_options|include_usage")
_ABOUT_STREAM = _words(r"\bstream(s|ed|ing|_options)?\b|include_usage")

#: How a server says that it has no capacity: 529 is what some providers send beside the standard's 503.
_OVERLOADED = {503, 529}

#: Statuses after which the provider may have finished (and billed) the work.
_PERHAPS_DONE = {408, 502, 504, 524}


def is_about_group(error: WireError) -> bool:
    """Tell whether a 4xx refuses `n` > 1."""
    return error.param == "n" or _ABOUT_N.search(error.message) is not None


def is_about_schema(error: WireError) -> bool:
    """Tell whether a 4xx refuses `response_format`."""
    return error.param.startswith("response_format") or _ABOUT_SCHEMA.search(error.message) is not None


def is_about_stream(error: WireError) -> bool:
    """Tell whether a 4xx refuses `stream` or `stream_options`."""
    return error.param.startswith("stream") or _ABOUT_STREAM.search(error.message) is not None


def is_about_stream_options(error: WireError) -> bool:
    """Tell whether a 4xx refuses `stream_options` only."""
    return error.param.startswith("stream_options") or _ABOUT_OPTIONS.search(error.message) is not None


def status_inside(error: WireError) -> int | None:
    """The status that an error inside a 200 stands for, by its code or by its type; None when it names none."""
    if error.code.isascii() and error.code.isdecimal():
        status = int(error.code[:4])
        return status if 400 <= status < 600 else None
    words = f"{error.code} {error.type}".lower()
    if "overloaded" in words:
        return 529
    return 429 if "rate_limit" in words else None


def quote(text: str, secret: str | None) -> str:
    """At most 300 characters of a server's text on one line, without anything that looks like a key."""
    if secret:
        text = text.replace(secret, "[key]")
    text = " ".join(_SECRET.sub("[key]", text).split())
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"


def failure(
    status: int, headers: Mapping[str, str], error: WireError, *, place: str, model: str, secret: str | None
) -> ModelError:
    """The typed error of a response with a status that is not 2xx.

    Args:
        status: the HTTP status.
        headers: the response's headers, matched as given (pass a case-insensitive mapping).
        error: the decoded body.
        place: the endpoint's URL, for the message.
        model: the model's name, for the message.
        secret: the API key, so that it is never quoted.
    """
    said = quote(error.message, secret)
    said = f'it said "{said}"' if said else "it gave no reason"
    text = f"{error.code} {error.type} {error.message}"
    wait = retry_after(headers)

    def make(kind: type[ModelError], what: str) -> ModelError:
        message = f"{place}: {what} (HTTP {status}; {said})."
        return kind(message, status=status, retry_after=wait, maybe_paid=status in _PERHAPS_DONE)

    if status == 402 or (status < 500 and _QUOTA.search(text)):
        return make(QuotaError, "the account has no money or quota left; top it up, then `tfgrpo resume`")
    if status in {400, 413, 422, 500} and _CONTEXT.search(text):
        return make(
            ContextLengthError,
            f"the prompt does not fit the context of {model}; shorten it or lower practice.library_tokens",
        )
    if status in {400, 404, 422} and _UNKNOWN_MODEL.search(text):
        return make(UnknownModelError, f"the endpoint does not serve the model {model}; check model.name")
    if status in {400, 403, 422, 451} and _FILTERED.search(text):
        return make(ContentFilterError, "the provider's content filter refused the prompt")
    if status in {401, 403}:
        return make(
            AuthenticationError,
            f"the key is missing, wrong, or may not use {model}; check the variable in model.api_key_env",
        )
    if status in {404, 405}:
        return make(
            UnknownModelError,
            f"there is no chat endpoint or no model {model} here; check model.base_url (it usually ends in "
            "/v1) and model.name",
        )
    if status == 408:
        return make(ModelTimeoutError, "the server gave up waiting")
    if status == 413:
        return make(ContextLengthError, "the request is larger than the server accepts; shorten the prompt")
    if status == 429:
        pause = "" if wait is None else f"; it asks for a pause of {wait:g} s"
        return make(RateLimitedError, f"the rate limit is reached{pause}; lower [limits] if this persists")
    if status in _OVERLOADED:
        pause = "" if wait is None else f"; it asks for a pause of {wait:g} s"
        return make(OverloadedError, f"the server is overloaded{pause}; another attempt may succeed")
    if status >= 500 or status in {409, 425}:
        return make(ServerError, "the server failed; another attempt may succeed")
    if 300 <= status < 400:
        target = headers.get("Location", "elsewhere")
        return make(
            InvalidRequestError, f"the endpoint redirects to {target}; put the final URL in model.base_url"
        )
    return make(InvalidRequestError, "the endpoint does not accept this request")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `Retry-After` (seconds or an HTTP date); None when not said.

    A date is measured from the response's own `Date`, so a wrong clock on either side does no harm.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    until = _date(value)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) and number >= 0 else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
