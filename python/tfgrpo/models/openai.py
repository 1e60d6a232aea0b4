"""The client of any OpenAI-compatible chat completions endpoint: one exchange a call, no hidden retry.

Every foreign exception is converted here. Retrying, pacing and splitting group requests belong to the engine,
because the journal pays by the exchange.
"""

from __future__ import annotations

import hashlib
import logging
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NoReturn

import anyio
import msgspec
from yarl import URL

from tfgrpo.errors import (
    ConfigError,
    ConnectError,
    ConnectionLostError,
    GroupRequestUnsupportedError,
    MalformedReplyError,
    ModelError,
    ModelTimeoutError,
)
from tfgrpo.models import failures, wire
from tfgrpo.models.deadline import Deadline
from tfgrpo.models.limits import LimitReader
from tfgrpo.models.pricing import priced
from tfgrpo.models.stream import StreamReader
from tfgrpo.models.transport import (
    NotConnectedError,
    NotHttpError,
    Response,
    Session,
    TooLargeError,
    TransportError,
)
from tfgrpo.protocols import Observer
from tfgrpo.types import Choice, ModelReply, ModelRequest, Price

_LOG = logging.getLogger(__name__)

#: A body beyond this is no chat completion; reading on would only fill the memory.
MAX_BODY = 64 * 2**20

_KEY_LENGTH = 255
_PLAIN_KEY = re.compile(rf"[A-Za-z0-9_.~/:=,;@+ -]{{0,{_KEY_LENGTH}}}")
_REFUSALS = {400, 422, 501}

#: How long the end of a body may take to arrive once the stream said that it is done.
_CLOSING = 1.0


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint (implements `Model`).

    Args:
        base_url: the API's root, usually ending in `/v1`.
        name: the model's name at the endpoint.
        session: the shared pool, from `open_session`; it is not closed here.
        api_key: sent as a bearer token and in no message; None sends none.
        timeout: seconds for one exchange, connecting included.
        group_requests: "never" sends n = 1 only; "auto" sends `n` until the endpoint refuses it (a 4xx about
            `n`, or fewer choices than asked), then `group_limit` is 1; "always" takes a refusal as an error.
        structured: how `response_schema` is asked for: by `response_format` ("json_schema"), in words
            ("prompt"), or "auto": by `response_format` until the endpoint refuses it, in words from then on.
            The request that meets the refusal is sent a second time inside the same `complete`; the refused
            exchange was a 4xx and cost nothing. A refused stream is done without in the same way.
        price: dollars per million tokens for `Usage.usd`.
        group_limit: the largest `n` the endpoint takes, where it is known beforehand.
        recount: counts the tokens of the given answers. For servers whose usage covers only one of n choices
            (llama.cpp does that): it is asked whenever n > 1 and replaces the server's output count.

    Raises:
        ConfigError: `base_url` carries a user name or password, or the key cannot be sent in a header.
    """

    def __init__(
        self,
        base_url: str,
        name: str,
        *,
        session: Session,
        api_key: str | None = None,
        timeout: float = 600.0,
        group_requests: Literal["auto", "always", "never"] = "auto",
        structured: Literal["auto", "json_schema", "prompt"] = "auto",
        price: Price | None = None,
        group_limit: int | None = None,
        recount: Callable[[Sequence[str]], Awaitable[int]] | None = None,
    ) -> None:
        url = URL(base_url.rstrip("/") + "/chat/completions")
        if url.user is not None or url.password is not None:
            raise ConfigError(
                "model.base_url: contains a user name or password; put the key in an environment variable "
                "and its name in model.api_key_env."
            )
        if api_key is not None and not api_key.isprintable():
            raise ConfigError(
                "model.api_key_env: the key holds a line break or another character that cannot be sent; set "
                "the variable again without it."
            )
        self.name = name
        self.usage_gaps = 0
        self._url = url
        self._api_key = api_key
        self._deadline = Deadline(timeout)
        self._group_requests = group_requests
        self._group_limit = 1 if group_requests == "never" else group_limit
        self._structured = structured
        self._schema_in_prompt = structured == "prompt"
        self._streaming: wire.Streaming | None = "usage"
        self._price = price
        self._recount = recount
        self._limits = LimitReader()
        self._encoder = wire.RequestEncoder(name)
        headers = {"Content-Type": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self._target = session.target(url, headers)

    @property
    def admission_key(self) -> tuple[str, str, str]:
        """The limits that its calls count against: provider, model, and the key by its hash."""
        return str(self._url), self.name, hashlib.sha256((self._api_key or "").encode()).hexdigest()

    @property
    def group_limit(self) -> int | None:
        """The largest `n` worth sending; see `Model.group_limit`."""
        return self._group_limit

    async def complete(
        self, request: ModelRequest, *, key: str = "", observer: Observer | None = None, stream: bool = False
    ) -> ModelReply:
        """One attempt; see `Model.complete` for errors and cancellation.

        `usage_gaps` counts the replies whose usage was missing or nonsense: their tokens count as zero.
        """
        if request.n > 1 and self._group_limit == 1:
            raise GroupRequestUnsupportedError(
                f"{self._url}: group requests are off for this endpoint (n = {request.n}); send single ones."
            )
        try:
            with self._deadline.watch():
                return await self._attempt(request, key, observer, stream)
        except TimeoutError:
            raise ModelTimeoutError(
                f"{self._url}: no complete answer within {self._deadline.seconds:g} s; raise "
                "limits.request_timeout, or lower limits.concurrency if the endpoint is overloaded.",
                maybe_paid=True,
            ) from None
        except TransportError as error:
            self._broken(error)

    async def aclose(self) -> None:
        """Do nothing: the pool belongs to whoever opened it."""

    # --- one exchange, or a second one after a refusal ---------------------------------------------------

    async def _attempt(
        self, request: ModelRequest, key: str, observer: Observer | None, stream: bool
    ) -> ModelReply:
        key = _header_key(key)
        while True:
            in_prompt = self._schema_in_prompt
            streaming = self._streaming if stream else None
            body = self._encoder.encode(request, schema_in_prompt=in_prompt, streaming=streaming)
            if observer is not None:
                observer.sent()
            response = await self._target.post(body, key)
            status, headers = response.status, response.headers
            if observer is not None:
                try:
                    observer.answered(status, self._limits.read(headers, status))
                except BaseException:
                    response.close()
                    raise
            if 200 <= status < 300:
                break
            problem = wire.decode_error(await response.read(MAX_BODY))
            if not self._gives_way(status, problem, request, in_prompt, streaming):
                self._fail(status, headers, problem, request)
        if streaming is None:
            completion = self._decode(headers, await response.read(MAX_BODY), request)
            if observer is not None:
                observer.first_token()
        else:
            completion = await self._read_stream(response, request, observer)
        return await self._reply(completion, request, streaming)

    def _gives_way(
        self,
        status: int,
        problem: wire.WireError,
        request: ModelRequest,
        in_prompt: bool,
        streaming: wire.Streaming | None,
    ) -> bool:
        """Whether a refusal is about something that can be done without; then all later calls do without."""
        if status not in _REFUSALS:
            return False
        schema = self._structured == "auto" and request.response_schema is not None and not in_prompt
        if schema and failures.is_about_schema(problem):
            _LOG.info("response_format_refused", extra={"model": self.name, "status": status})
            self._schema_in_prompt = True
            return True
        if streaming is not None and failures.is_about_stream(problem):
            _LOG.info("stream_refused", extra={"model": self.name, "status": status})
            only_options = streaming == "usage" and failures.is_about_stream_options(problem)
            self._stream_less(streaming, "plain" if only_options else None)
            return True
        return False

    def _stream_less(self, sent: wire.Streaming, rest: wire.Streaming | None) -> None:
        if self._streaming == sent:  # else another call has found out already
            self._streaming = rest

    async def _read_stream(
        self, response: Response, request: ModelRequest, observer: Observer | None
    ) -> wire.Completion:
        reader = StreamReader()
        size, told = 0, observer is None
        try:
            while piece := await response.chunk():
                size += len(piece)
                if size > MAX_BODY:
                    self._too_large()
                reader.feed(piece)
                if not told and reader.started and observer is not None:
                    told = True
                    observer.first_token()
                if reader.ended:
                    break
            if reader.error is not None:
                self._fail_inside(reader.error, response.headers, request, started=reader.started)
            completion = None if reader.body is not None else reader.finish(request.n)
            if not response.ended:
                # What is left is the end mark of the body: with it, the connection can be used again.
                with anyio.move_on_after(_CLOSING):
                    await response.chunk()
        except ValueError as error:
            self._malformed(f"its stream is broken: {self._quote(error)}")
        finally:
            response.close()
        if completion is None:
            completion = self._decode(response.headers, reader.body or b"", request)
        if not told and observer is not None:
            observer.first_token()
        return completion

    # --- from a 2xx body to a reply ----------------------------------------------------------------------

    def _decode(self, headers: Mapping[str, str], body: bytes, request: ModelRequest) -> wire.Completion:
        completion = wire.decode_strictly(body)
        return self._decode_patiently(headers, body, request) if completion is None else completion

    def _decode_patiently(
        self, headers: Mapping[str, str], body: bytes, request: ModelRequest
    ) -> wire.Completion:
        try:
            value = wire.loads(body)
        except ValueError as error:
            kind = headers.get("Content-Type", "no content type")
            shown = self._quote(body[:1024].decode("utf-8", "replace"))
            self._malformed(f'its body ({kind}) is not JSON ({error}): "{shown}"')
        problem = wire.error_of(value)
        if problem is not None and isinstance(value, dict) and not value.get("choices"):
            self._fail_inside(problem, headers, request)
        try:
            return wire.decode_completion(value)
        except ValueError as error:
            self._malformed(f"it is no chat completion: {self._quote(error)}")

    async def _reply(
        self, completion: wire.Completion, request: ModelRequest, streaming: wire.Streaming | None
    ) -> ModelReply:
        """A reply of exactly n choices."""
        got = len(completion.choices)
        if self._group_requests == "auto" and 0 < got < request.n:
            self._refuse_groups(request, f"answered with {got} of {request.n} choices", paid=True)
        if got != request.n:
            self._malformed(f"it holds {got} choices and {request.n} were asked for")
        usage = completion.usage
        if self._recount is not None and request.n > 1:
            try:
                output = await self._recount([_text(choice) for choice in completion.choices])
            except ModelError as error:  # the answers are paid: a count that is too low is the lesser loss
                _LOG.warning("%s: the answers could not be counted: %s", self._url, error)
            else:
                usage = msgspec.structs.replace(usage, output_tokens=output)
        if not completion.usage_known:
            self._note_usage_gap()
            if streaming is not None:
                # What a run costs has to be known; that followers may start a little earlier has not.
                _LOG.info("stream_without_usage", extra={"model": self.name})
                self._stream_less(streaming, None)
        if self._price is not None:
            usage = priced(usage, self._price)
        return ModelReply(completion.choices, usage, completion.model or self.name)

    # --- errors ------------------------------------------------------------------------------------------

    def _broken(self, error: TransportError) -> NoReturn:
        """A failure of the transport as the typed error it means."""
        if isinstance(error, NotConnectedError):
            raise ConnectError(
                f"{self._url}: no connection ({self._quote(error)}); check that the endpoint is up and that "
                "model.base_url is right. Nothing was sent."
            ) from None
        if isinstance(error, TooLargeError):
            self._too_large()
        if isinstance(error, NotHttpError):
            raise MalformedReplyError(
                f"{self._url}: the answer is not HTTP ({self._quote(error)}); check model.base_url.",
                maybe_paid=True,
            ) from None
        raise ConnectionLostError(
            f"{self._url}: the connection broke before the answer was complete ({self._quote(error)}); "
            "the call may have been paid. Another attempt may succeed.",
            maybe_paid=True,
        ) from None

    def _fail_inside(
        self,
        problem: wire.WireError,
        headers: Mapping[str, str],
        request: ModelRequest,
        started: bool = False,
    ) -> NoReturn:
        """An error in a 200: some gateways answer so and put the upstream's status into the error."""
        status = failures.status_inside(problem)
        if status is None:
            self._malformed(f'it holds an error: "{self._quote(problem.message)}"')
        try:
            self._fail(status, headers, problem, request)
        except ModelError as error:
            error.maybe_paid = error.maybe_paid or started
            raise

    def _fail(
        self, status: int, headers: Mapping[str, str], problem: wire.WireError, request: ModelRequest
    ) -> NoReturn:
        error = failures.failure(
            status, headers, problem, place=str(self._url), model=self.name, secret=self._api_key
        )
        refused = status in _REFUSALS and request.n > 1 and self._group_requests == "auto"
        if refused and failures.is_about_group(problem):
            self._refuse_groups(request, f"refused n = {request.n} ({error.message})", status=status)
        raise error

    def _refuse_groups(
        self, request: ModelRequest, what: str, *, status: int | None = None, paid: bool = False
    ) -> NoReturn:
        self._group_limit = 1
        _LOG.info("group_requests_refused", extra={"model": self.name, "n": request.n})
        raise GroupRequestUnsupportedError(
            f"{self._url}: the endpoint {what}; single requests are sent from now on "
            '(set model.group_requests = "never" to begin with them).',
            status=status,
            maybe_paid=paid,
        )

    def _malformed(self, what: str) -> NoReturn:
        raise MalformedReplyError(
            f"{self._url}: the answer of {self.name} is unusable: {what}. If it happens every time, "
            "model.base_url is not an OpenAI-compatible API.",
            maybe_paid=True,
        )

    def _too_large(self) -> NoReturn:
        self._malformed(f"its body is larger than {MAX_BODY >> 20} MiB")

    def _note_usage_gap(self) -> None:
        self.usage_gaps += 1
        if self.usage_gaps == 1:
            _LOG.warning("usage_missing", extra={"model": self.name})

    def _quote(self, text: object) -> str:
        return failures.quote(str(text) or type(text).__name__, self._api_key)


def _text(choice: Choice) -> str:
    """All that the model wrote for a choice: what a token count has to cover."""
    return choice.content + "".join(call.name + call.arguments for call in choice.tool_calls)


def _header_key(key: str) -> str:
    """A logical key as a header value: ASCII, one line, at most 255 characters."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    encoded = urllib.parse.quote(key, safe="/:=,;@+ ")
    return encoded if len(encoded) <= _KEY_LENGTH else hashlib.sha256(key.encode()).hexdigest()
