"""The models and admissions of a run's roles, opened once: roles that share an endpoint share both."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from tfgrpo.config import Endpoint, PriceSection, api_key
from tfgrpo.dispatch import Admission, Provider
from tfgrpo.models import Model, OpenAIModel, open_session
from tfgrpo.models.local import LocalServer
from tfgrpo.models.weights import fetch
from tfgrpo.types import Limits, Price, Role

#: Reports a download: bytes done, bytes in all, what.
Fetching = Callable[[int, int, str], None]


def no_fetching(_done: int, _total: int, _what: str) -> None:
    """Tell nobody of a download."""


async def open_models(
    endpoints: Mapping[Role, Endpoint],
    limits: Limits,
    stack: AsyncExitStack,
    directory: Path,
    fetching: Fetching = no_fetching,
) -> dict[Role, Model]:
    """Open the model of each role; `stack` closes them.

    Args:
        endpoints: by role.
        limits: how many connections are held, and how long an exchange may take.
        stack: takes everything that has to be closed.
        directory: takes the log of an embedded model.
        fetching: told about weights that have to be downloaded first.

    Raises:
        ConfigError: a key's environment variable is not set.
        LocalModelError: an embedded model cannot be fetched or started.
    """
    session = await stack.enter_async_context(open_session(limits.concurrency))
    opened: dict[Endpoint, Model] = {}
    servers: dict[str, LocalServer] = {}
    for endpoint in endpoints.values():
        if endpoint in opened:
            continue
        if endpoint.local is None:
            base_url, name, server = str(endpoint.base_url), str(endpoint.name), None
        else:
            if endpoint.local not in servers:
                weights = await fetch(endpoint.local, fetching)
                log = directory / f"local-model-{len(servers)}.log"
                servers[endpoint.local] = await stack.enter_async_context(LocalServer(weights, log=log))
            server = servers[endpoint.local]
            base_url, name = server.base_url, server.name
        model = OpenAIModel(
            base_url,
            name,
            session=session,
            api_key=api_key(endpoint),
            timeout=limits.request_timeout,
            group_requests=endpoint.group_requests,
            structured=endpoint.structured,
            price=price_of(endpoint.price),
            group_limit=server.slots if server else None,
            recount=server.recount if server else None,
        )
        stack.push_async_callback(model.aclose)
        opened[endpoint] = model
    return {role: opened[endpoint] for role, endpoint in endpoints.items()}


def price_of(section: PriceSection | None) -> Price | None:
    """A configured price as the rooms take it."""
    return None if section is None else Price(section.input, section.output, section.cached_input)


#: The admissions of this process by event loop, provider, key and limits: runs that share a key share them.
_SHARED: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, weakref.WeakValueDictionary[tuple[object, ...], Admission]
] = weakref.WeakKeyDictionary()


def open_providers(
    models: Mapping[Role, Model], limits: Limits, prices: Mapping[Role, Price | None]
) -> dict[Role, Provider]:
    """The provider of each role; roles that share a model share it.

    There is one admission per provider, key and model in the whole process: runs with the same limits share theirs,
    and take turns. A model that does not say which provider it calls (`admission_key`) is taken for one of its own.
    """
    here = _SHARED.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    opened: dict[tuple[int, Price | None], Provider] = {}
    found: dict[Role, Provider] = {}
    for role, model in models.items():
        key = (getattr(model, "admission_key", None) or id(model), limits)
        admission = here.get(key)
        if admission is None:
            admission = here[key] = Admission(
                concurrency=limits.concurrency,
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
                input_tokens_per_minute=limits.input_tokens_per_minute,
                output_tokens_per_minute=limits.output_tokens_per_minute,
            )
        price = prices.get(role)
        if (id(model), price) not in opened:
            opened[id(model), price] = Provider(model, admission, price)
        found[role] = opened[id(model), price]
    return found
