"""The python verifier: every shape of function, and every way it can go wrong."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import anyio
import numpy as np
import pytest

from tfgrpo.errors import ConfigError, VerifierError
from tfgrpo.testing import ScriptedScope
from tfgrpo.types import Task
from tfgrpo.verify import PythonVerifier

TASK = Task("t1", "?", "blue")

SOURCE = """
import threading
import anyio
returned = None
threads = []
release = threading.Event()

def reward(task, answer):
    threads.append(threading.current_thread())
    return answer == task.truth

async def slow_reward(task, answer):
    threads.append(threading.current_thread())
    await anyio.sleep(0)
    return 0.25

class Judge:
    async def __call__(self, task, answer):
        return 0.5

judge = Judge()

def give(task, answer):
    return returned

def hang(task, answer):
    release.wait(30)

async def hang_async(task, answer):
    await anyio.sleep(30)

def fail(task, answer):
    raise KeyError("no such key")

def leave(task, answer):
    raise SystemExit(3)

number = 3
"""


@pytest.fixture
def rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current directory, importable by that alone."""
    name = f"rewards_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    yield name
    if name in sys.modules:
        sys.modules.pop(name).release.set()


def said(text: str) -> ScriptedScope:
    return ScriptedScope(TASK, answer=text)


async def test_a_sync_function_runs_in_a_thread_and_an_async_one_in_the_loop(rewards: str) -> None:
    sync, coroutine = PythonVerifier(f"{rewards}:reward"), PythonVerifier(f"{rewards}:slow_reward")
    assert (await sync.verify(said("blue"))).value == 1.0
    assert (await sync.verify(said("red"))).value == 0.0
    assert (await coroutine.verify(said("x"))).value == 0.25
    threads = sys.modules[rewards].threads
    assert [thread is threading.main_thread() for thread in threads] == [False, False, True]


async def test_a_callable_object_with_an_async_call_is_awaited(rewards: str) -> None:
    reward = await PythonVerifier(f"{rewards}:judge").verify(said("x"))
    assert (reward.value, reward.answer) == (0.5, "x")


async def test_with_a_field_the_function_gets_the_field(rewards: str) -> None:
    verifier = PythonVerifier(f"{rewards}:reward", field="colour")
    assert (await verifier.verify(said('{"colour": "blue"}'))).value == 1.0
    missing = await verifier.verify(said("blue"))
    assert (missing.value, missing.detail) == (0.0, "no field 'colour' in the answer")
    assert len(sys.modules[rewards].threads) == 1


@pytest.mark.parametrize("value", [0, 1, 0.5, True, False, Fraction(1, 3), np.float64(0.75)])
async def test_any_real_number_from_0_to_1_is_a_reward(rewards: str, value: float) -> None:
    verifier = PythonVerifier(f"{rewards}:give")
    vars(sys.modules[rewards])["returned"] = value
    assert (await verifier.verify(said("x"))).value == float(value)


@pytest.mark.parametrize("value", [7, -0.1, 1.0001, float("nan"), float("inf"), None, "1", [1], 1j])
async def test_anything_else_is_a_fault_of_the_verifier(rewards: str, value: object) -> None:
    verifier = PythonVerifier(f"{rewards}:give")
    vars(sys.modules[rewards])["returned"] = value
    with pytest.raises(VerifierError, match=rf"{rewards}:give returned .* for task 't1'"):
        await verifier.verify(said("x"))


@pytest.mark.parametrize(("function", "what"), [("fail", "KeyError"), ("leave", "SystemExit")])
async def test_an_exception_is_a_fault_of_the_verifier(rewards: str, function: str, what: str) -> None:
    with pytest.raises(VerifierError, match=f"raised {what}"):
        await PythonVerifier(f"{rewards}:{function}").verify(said("x"))


@pytest.mark.parametrize("function", ["hang", "hang_async"])
async def test_a_function_that_overruns_is_a_fault_in_time(rewards: str, function: str) -> None:
    verifier = PythonVerifier(f"{rewards}:{function}", timeout=0.05)
    began = time.monotonic()
    with pytest.raises(VerifierError, match=r"longer than 0\.05 s"):
        await verifier.verify(said("x"))
    assert time.monotonic() - began < 5
    sys.modules[rewards].release.set()


async def test_cancellation_passes_through(rewards: str) -> None:
    verifier = PythonVerifier(f"{rewards}:hang")
    with anyio.move_on_after(0.05) as scope:
        await verifier.verify(said("x"))
    assert scope.cancelled_caught
    sys.modules[rewards].release.set()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module_at_all:f", "current directory"),
        ("{module}:missing", "has no function missing"),
        ("{module}:number", "has no function number"),
    ],
)
def test_a_function_that_cannot_be_loaded_names_the_key(rewards: str, function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PythonVerifier(function.format(module=rewards))
    assert caught.value.message.startswith("verifier.function")


def test_a_module_that_fails_on_import_names_the_key(rewards: str) -> None:
    Path(f"broken_{rewards}.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"verifier\.function .* ZeroDivisionError"):
        PythonVerifier(f"broken_{rewards}:f")
