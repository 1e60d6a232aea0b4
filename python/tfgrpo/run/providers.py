"""The models and limits of a run's roles, opened once: roles that share an endpoint share both."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from tfgrpo.config import Config, Endpoint, LimitsSection, api_key
from tfgrpo.dispatch.admission import Admission
from tfgrpo.models import Model, OpenAIModel, open_session
from tfgrpo.models.local import LocalServer
from tfgrpo.models.weights import fetch
from tfgrpo.types import Role

#: Reports a download: bytes done, bytes in all, what.
Fetching = Callable[[int, int, str], None]


async def open_models(
    config: Config, stack: AsyncExitStack, directory: Path, fetching: Fetching
) -> dict[Role, Model]:
    """Open the model of each role; `stack` closes them.

    Args:
        config: endpoints and limits.
        stack: takes everything that has to be closed.
        directory: takes the log of an embedded model.
        fetching: told about weights that have to be downloaded first.

    Raises:
        ConfigError: a key's environment variable is not set.
        LocalModelError: an embedded model cannot be fetched or started.
    """
    session = await stack.enter_async_context(open_session(config.limits.concurrency))
    opened: dict[Endpoint, Model] = {}
    servers: dict[str, LocalServer] = {}
    for role in Role:
        endpoint = config.model.role(role)
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
            timeout=config.limits.request_timeout,
            group_requests=endpoint.group_requests,
            structured=endpoint.structured,
            price=endpoint.price,
            group_limit=server.slots if server else None,
            recount=server.recount if server else None,
        )
        stack.push_async_callback(model.aclose)
        opened[endpoint] = model
    return {role: opened[config.model.role(role)] for role in Role}


_RATES = (
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
)

#: The admissions of this process by event loop, provider, key and limits: runs that share a key share them.
_SHARED: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, weakref.WeakValueDictionary[tuple[object, ...], Admission]
] = weakref.WeakKeyDictionary()


def open_admissions(limits: LimitsSection, models: Mapping[Role, Model]) -> dict[Role, Admission]:
    """One admission per provider, key and model in the whole process: they share what is permitted.

    Runs with the same limits share theirs, and take turns. A model that does not say which provider it calls
    (`admission_key`) is taken for a provider of its own.
    """
    opened: dict[Role, Admission] = {}
    here = _SHARED.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
    rates = {name: getattr(limits, name) for name in _RATES}
    for role, model in models.items():
        key = (getattr(model, "admission_key", None) or id(model), *rates.values())
        admission = here.get(key)
        if admission is None:
            admission = here[key] = Admission(**rates)
        opened[role] = admission
    return opened
