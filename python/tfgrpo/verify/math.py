"""The math verifier: math-verify compares answers as mathematics, in worker processes that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tfgrpo.errors import VerifierError
from tfgrpo.protocols import Scope
from tfgrpo.types import Reward, Task
from tfgrpo.verify.answer import final_answer, marked_answer
from tfgrpo.verify.base import missing_field, required_truth

_SCRIPT = Path(__file__).with_name("math_worker.py")
_START_SECONDS = 120.0  # importing sympy on a loaded machine
_LINE_BYTES = 1 << 20


class MathVerifier:
    r"""Compares the final answer with `task.truth` as mathematics: 1/2, 0.5 and \frac{1}{2} are equal.

    The answer is the last `\boxed{…}` or `<answer>…</answer>`, else the last expression that math-verify
    finds in the reply; with `field` it is that property of the JSON object in it. `Reward.answer` is the
    answer in sympy's text, or None when the reply holds no expression (then the reward is 0).

    math-verify must run in the main thread of a process, and a comparison may never end. So a few worker
    processes do it, started when first needed; one that overruns `timeout` seconds, dies, or belongs to a
    cancelled call is killed and replaced. They are plain subprocesses, not `multiprocessing`, which would run
    the user's main script again in each of them.

    Args:
        field: the property of a JSON reply that holds the answer.
        timeout: seconds that one comparison may take; waiting for a worker does not count.
        workers: at most this many processes; by default the number of processors, four at most.
    """

    needs_truth = True

    def __init__(
        self, field: str | None = None, *, timeout: float = 60.0, workers: int | None = None
    ) -> None:
        self._field = field
        self._timeout = timeout
        self._slots = anyio.CapacityLimiter(workers or min(4, os.cpu_count() or 1))
        self._idle: list[_Worker] = []

    async def verify(self, scope: Scope) -> Reward:
        """Grade one answer with 1 or 0; cancellation kills the worker that was grading it.

        Raises:
            VerifierError: the task has no readable truth, or the comparison overran, died or did not start.
        """
        task, reply = scope.task, scope.answer
        truth = required_truth(task, "math")
        answer = final_answer(reply, self._field)
        if answer is None:
            return missing_field(str(self._field))
        marked = self._field is not None or marked_answer(reply) is not None
        request = {"truth": truth, "answer": answer, "marked": marked, "seconds": self._timeout}
        async with self._slots:
            graded = await self._ask(request, task)
        if "error" in graded:
            raise VerifierError(
                f"the truth of task {task.id!r}, {truth!r:.100}, holds no number or expression: write it as "
                'LaTeX or a number in the data file, or grade with verifier.kind = "exact".'
            )
        value = float(graded["value"])
        detail = "no number or expression in the answer" if graded["answer"] is None else ""
        return Reward(value, graded["answer"], detail)

    async def aclose(self) -> None:
        """End the idle workers. Call it when no grading is under way; safe to call twice."""
        while self._idle:
            await self._idle.pop().kill()

    async def _ask(self, request: dict[str, Any], task: Task) -> dict[str, Any]:
        worker = await self._worker()
        answered = False
        try:
            with anyio.fail_after(self._timeout):
                graded = await worker.ask(request)
            answered = True
        except TimeoutError:
            raise VerifierError(
                f"comparing the answer to task {task.id!r} took longer than {self._timeout:g} s and was "
                "stopped. Raise verifier.timeout if such answers are expected."
            ) from None
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
            raise VerifierError(
                f"the process that compared the answer to task {task.id!r} died, out of memory most likely. "
                "Free memory, or make the agent ask for a plain number."
            ) from error
        finally:
            if answered:
                self._idle.append(worker)
            else:
                await worker.kill()
        return graded

    async def _worker(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await worker.kill()
        return await _Worker.start()


class _Worker:
    """One worker process and its two pipes."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101  # both were asked for as pipes
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._stdin = process.stdin
        self._stdout = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls) -> _Worker:
        """A process that has imported everything and waits.

        Raises:
            VerifierError: it cannot be started, or ends before it is ready.
        """
        # -P: the folder of the script holds a math.py, which must not stand for the standard library's.
        # A session of its own: Ctrl-C is for the engine, which then ends its workers in order.
        command = [sys.executable, "-P", str(_SCRIPT)]
        try:
            process = await anyio.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise VerifierError(
                f"the math verifier cannot start a process: {error}. Free memory or processes and resume."
            ) from error
        worker = cls(process)
        ready = False
        try:
            with anyio.fail_after(_START_SECONDS):
                ready = await worker._stdout.receive_until(b"\n", 100) == b"READY"
        except (TimeoutError, anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
            raise VerifierError(
                "the math verifier's process did not start. To see why, run: "
                "python -P -c 'import math_verify'; reinstalling tfgrpo brings math-verify back."
            ) from error
        finally:
            if not ready:
                await worker.kill()
        return worker

    @property
    def alive(self) -> bool:
        """Tell whether the process still runs, as far as the event loop knows."""
        return self._process.returncode is None

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer; an anyio stream error means that the process died."""
        await self._stdin.send(json.dumps(request).encode("ascii") + b"\n")
        graded: dict[str, Any] = json.loads(await self._stdout.receive_until(b"\n", _LINE_BYTES))
        return graded

    async def kill(self) -> None:
        """End the process at once and reap it, even while being cancelled."""
        with anyio.CancelScope(shield=True):
            if self.alive:
                self._process.kill()
            await self._process.aclose()
