"""The python verifier: a function of the user's grades the answer."""

from __future__ import annotations

import importlib
import inspect
import math
import sys
from collections.abc import Awaitable, Callable
from numbers import Real
from pathlib import Path

import anyio
import anyio.to_thread

from tfgrpo.errors import ConfigError, VerifierError
from tfgrpo.protocols import Scope
from tfgrpo.types import Reward, Task
from tfgrpo.verify.answer import final_answer
from tfgrpo.verify.base import missing_field

RewardFunction = Callable[[Task, str], float | Awaitable[float]]


class PythonVerifier:
    r"""Calls `function(task, answer)` and takes its number in [0, 1] (or a bool) as the reward.

    `answer` is the whole reply or, with `field`, that property of the JSON object in it (a reply without it
    gets 0 and the function is not called). An `async def` runs in the event loop, anything else in a worker
    thread. A synchronous function that overruns `timeout` is abandoned, not stopped: its thread lives on
    until the function returns.

    Args:
        function: "module:function". The module is looked up as `import` does, then in the current directory.
        field: the property of a JSON reply that holds the answer.
        timeout: seconds that one call may take.

    Raises:
        ConfigError: there is no such module or function, or importing it fails.
    """

    def __init__(self, function: str, *, field: str | None = None, timeout: float = 60.0) -> None:
        self._name = function
        self._function = _load(function)
        self._field = field
        self._timeout = timeout

    async def verify(self, scope: Scope) -> Reward:
        """Grade one answer; cancellation abandons the call.

        Raises:
            VerifierError: the function raised, overran its time, or returned no number in [0, 1].
        """
        task, answer = scope.task, scope.answer
        if self._field is not None:
            found = final_answer(answer, self._field)
            if found is None:
                return missing_field(self._field)
            answer = found
        with anyio.move_on_after(self._timeout) as deadline:
            try:
                value = await self._call(task, answer)
            except (Exception, SystemExit) as error:
                raise VerifierError(
                    f"verifier.function {self._name} raised {type(error).__name__}: {error} "
                    f"(task {task.id!r}). Make the function return a number for every answer, 0 for an "
                    "unusable one."
                ) from error
        if deadline.cancelled_caught:
            raise VerifierError(
                f"verifier.function {self._name} took longer than {self._timeout:g} s (task {task.id!r}). "
                "Raise verifier.timeout, or give the function a time limit of its own."
            )
        return Reward(self._checked(value, task), answer)

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _call(self, task: Task, answer: str) -> object:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(task, answer)
        result = await anyio.to_thread.run_sync(self._function, task, answer, abandon_on_cancel=True)
        # A callable that is no `async def` may still hand back a coroutine: a partial, a lambda, an object.
        return await result if inspect.isawaitable(result) else result

    def _checked(self, value: object, task: Task) -> float:
        if isinstance(value, Real):
            number = float(value)
            if math.isfinite(number) and 0.0 <= number <= 1.0:
                return number
        raise VerifierError(
            f"verifier.function {self._name} returned {value!r:.100} for task {task.id!r}, which is no "
            "reward: return a number from 0 to 1 (or a bool)."
        )


def _load(name: str) -> RewardFunction:
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file beside the configuration must not replace an installed package
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"verifier.function = {name!r}: importing {module_name} failed with "
            f"{type(error).__name__}: {error}. The module must be installed, on PYTHONPATH, or in "
            f"the current directory ({here})."
        ) from error
    function: object = module
    for part in attribute.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        raise ConfigError(
            f"verifier.function = {name!r}: {module_name} has no function {attribute}. "
            "Write it as def reward(task, answer) -> float, sync or async."
        )
    return function
