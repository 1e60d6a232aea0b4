"""The guests of a run: parts that a caller brings along instead of, or beside, the configured ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tfgrpo.errors import ConfigError
from tfgrpo.events import Hook, Hooks
from tfgrpo.protocols import Agent, Model, Tool, Verifier
from tfgrpo.run.providers import Fetching, no_fetching
from tfgrpo.run.stop import StopSwitch
from tfgrpo.types import Role


@dataclass(frozen=True)
class Guests:
    """Everything that a caller may bring along instead of, or beside, the configured parts."""

    agent: Agent | None = None
    verifier: Verifier | None = None
    models: Mapping[Role, Model] | None = None
    tools: tuple[Tool, ...] = ()
    hooks: tuple[Hook, ...] = ()
    stop: StopSwitch | None = None
    fetching: Fetching = no_fetching


def bring(
    agent: Agent | None,
    verifier: Verifier | None,
    tools: Iterable[Tool],
    hooks: Iterable[Hook],
    models: Mapping[Role, Model] | None,
    stop: StopSwitch | None,
    fetching: Fetching | None,
) -> Guests:
    """Look at what a caller brings along, before anything is opened.

    Raises:
        ConfigError: something is none of its kind; the message says what to give.
    """
    check_guest(agent, "agent", "attempt")
    check_guest(verifier, "verifier", "verify")
    if models is not None and (missing := [role.value for role in Role if role not in models]):
        raise ConfigError(
            f"models has none for the role {missing[0]!r}; give one for every role, or leave models out."
        )
    Hooks(hooks := tuple(hooks))
    return Guests(agent, verifier, models, tuple(tools), hooks, stop, fetching or no_fetching)


def check_guest(given: object, name: str, method: str) -> None:
    """See whether an object has the one method that it is brought along for; None is nobody.

    Raises:
        ConfigError: it has not, or it is a class.
    """
    if isinstance(given, type):
        raise ConfigError(f"{name} is the class {given.__name__}; give an object: {given.__name__}().")
    if given is not None and not callable(getattr(given, method, None)):
        raise ConfigError(
            f"{name} is a {type(given).__name__} without a method `async def {method}(self, scope)`; give an object "
            "that has one."
        )
