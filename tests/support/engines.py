"""Engines to be killed: a warm process that forks a command line a run, and what is told to its system calls.

Starting Python costs a second, a small run a tenth of it. So a stable imports everything once and forks; each
child is a `tfgrpo` command of its own that can be signalled, killed at any moment, or armed to die at its n-th
system call (`tests/fault/syscalls.c`).

The other half is the law that every such test checks: `Ledger`.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import faulthandler
import functools
import gc
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import types
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tfgrpo.journal import JournalReader
from tfgrpo.testing.loopback.server import Served
from tfgrpo.types import EffectStatus

SHIM = Path(__file__).parents[1] / "fault" / "syscalls.c"
WAIT = 120.0


class Call(enum.IntFlag):
    """The kinds of system calls that the shim knows."""

    WRITE = 1
    SYNC = 2
    RENAME = 4
    UNLINK = 8
    TRUNCATE = 16


class How(enum.IntEnum):
    """What becomes of the n-th call: only counted; dead before it, after it, in its middle; or refused."""

    COUNT = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    KILL_TORN = 3
    REFUSE = 4


class Arm(msgspec.Struct, frozen=True):
    """Arms a child's system calls on files under `folder`; `cure` is a file that ends a refusal."""

    folder: str
    calls: int
    nth: int
    how: int
    error: int = 0
    cure: str = ""


class Job(msgspec.Struct, frozen=True):
    """One command of a child; `traced` waits for a tracer, `clock` makes the wall clock jump by ± seconds."""

    arguments: tuple[str, ...]
    output: str
    arm: Arm | None = None
    traced: bool = False
    clock: float = 0.0


#: Seconds after which a child hangs.
LONGEST = 90.0


class Ended(msgspec.Struct, frozen=True):
    """How a child ended: its exit code or minus its signal, seconds, peak memory in KiB, calls the shim saw."""

    code: int
    seconds: float
    peak: int
    seen: int


@functools.cache
def shim() -> Path | None:
    """The compiled shim; None where there is no C compiler. (Building tfgrpo needs a linker, that is `cc`.)"""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    path = Path(tempfile.mkdtemp(prefix="tfgrpo-shim-")) / "syscalls.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", path, SHIM, "-ldl"], check=True)
    return path


# --- the test's side -------------------------------------------------------------------------------------------


@dataclass
class Engine:
    """One running child."""

    pid: int
    output: Path
    _stable: Stable
    ended: Ended | None = None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; an ended child gets none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        try:
            return "State:\tZ" not in Path(f"/proc/{self.pid}/status").read_text("utf-8")
        except OSError:
            return False

    def wait(self) -> Ended:
        """Wait for the end; one that takes as long as no run does is aborted, and writes where it hangs."""
        if self.ended is None:
            watch = threading.Timer(LONGEST, self.kill, [signal.SIGABRT])
            watch.start()
            try:
                self.ended = self._stable.read(Ended)
            finally:
                watch.cancel()
        return self.ended

    def said(self) -> str:
        """What it wrote to stdout and stderr."""
        return self.output.read_text("utf-8", "replace") if self.output.exists() else ""


class Stable:
    """The warm process. One child at a time."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        # A fork of a process with threads would copy their locks and not the threads.
        environment |= {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        if (path := shim()) is not None:
            environment["LD_PRELOAD"] = str(path)
        self._folder = folder
        self._runs = 0
        self._last: Engine | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.engines", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        if self.read(int) != 1:
            raise RuntimeError("the warm process has threads: a fork of it would not be sound")

    def start(
        self, *arguments: object, arm: Arm | None = None, traced: bool = False, clock: float = 0.0
    ) -> Engine:
        """Start `tfgrpo` with these arguments."""
        if self._last is not None and self._last.ended is None:  # a failed test has left it
            self._last.kill()
            self._last.wait()
        self._runs += 1
        output = self._folder / f"output-{self._runs}.txt"
        job = Job(tuple(map(str, arguments)), str(output), arm, traced, clock)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        self._last = Engine(self.read(int), output, self)
        return self._last

    def run(self, *arguments: object, arm: Arm | None = None, clock: float = 0.0) -> Ended:
        """Start `tfgrpo` and wait for its end."""
        return self.start(*arguments, arm=arm, clock=clock).wait()

    def done(self, *arguments: object) -> None:
        """Run `tfgrpo` to a good end."""
        engine = self.start(*arguments)
        ended = engine.wait()
        assert ended.code == 0, f"{arguments} ended with {ended.code}:\n{engine.said()[-3000:]}"

    def read(self, type: type[Any]) -> Any:  # noqa: A002
        """One line of the warm process."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the warm process is gone")
        return msgspec.json.decode(line, type=type)

    def close(self) -> None:
        """End the warm process, and a child that a failed test has left."""
        if self._last is not None and self._last.ended is None:
            self._last.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(WAIT)
        self._process.stdout.close()


@contextlib.contextmanager
def stable(folder: Path) -> Iterator[Stable]:
    """A warm process for a block."""
    opened = Stable(folder)
    try:
        yield opened
    finally:
        opened.close()


@dataclass
class Server:
    """A loopback server in a process of its own, which survives its clients and logs what was paid."""

    base_url: str
    log: Path
    process: subprocess.Popen[str]

    def position(self) -> int:
        """Where the log ends now, in bytes, once the server has finished with what dead clients had sent."""
        self.settle()
        return self.log.stat().st_size

    def served(self, since: int = 0, until: int | None = None) -> list[Served]:
        """The paid calls between two positions of the log."""
        with self.log.open("rb") as file:
            file.seek(since)
            text = file.read(-1 if until is None else until - since)
        # The last line may be on its way: a read may see half of a write.
        return [msgspec.json.decode(line, type=Served) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def settle(self) -> None:
        """Let the server finish with what dead clients had sent: its answer comes after theirs."""
        root = self.base_url.removesuffix("/v1")
        for _ in range(2):
            with urllib.request.urlopen(f"{root}/health", timeout=WAIT) as answer:  # noqa: S310
                answer.read()


@contextlib.contextmanager
def server(log: Path, *options: object) -> Iterator[Server]:
    """`python -m tfgrpo.testing.loopback` with the sample script; further options as on its command line."""
    command = [sys.executable, "-m", "tfgrpo.testing.loopback", "--script", "tfgrpo.testing.scripts:tickets"]
    command += ["--log", str(log), *map(str, options)]
    log.touch()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Server(process.stdout.readline().strip(), log, process)
        finally:
            process.terminate()


# --- the law -------------------------------------------------------------------------------------------------


def outcome(directory: Path) -> tuple[Any, Any]:
    """What a finished run came to: its library and what it found, by its result file."""
    result = json.loads((directory / "result.json").read_text("utf-8"))
    return result["library"]["digest"], result["difference"]


@dataclass
class Ledger:
    """What one run may have paid, checked against the server's log after every end of an engine.

    Args:
        directory: the run directory.
        server: who is paid.
    """

    directory: Path
    server: Server
    start: int = 0
    _checked: int = 0
    _completed: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        self.start = self._checked = self.server.position()

    @property
    def begun(self) -> bool:
        """Whether there is a run that can be resumed."""
        return (self.directory / "journal.db").exists()

    def check(self) -> None:
        """No call completed before the last engine was sent by it; no completion is lost."""
        now = self.server.position()
        fresh = self.server.served(self._checked, now)
        again = sorted(self._completed.intersection(entry.key for entry in fresh))
        assert not again, f"completed in the journal and sent again: {again}"
        self._checked = now
        if not self.begun:
            assert not fresh, "sent before there was a journal"
            return
        with JournalReader(self.directory / "journal.db") as reader:
            calls = list(reader.calls())
        completed = [call.key.text for call in calls if call.state is EffectStatus.COMPLETED]
        assert len(completed) == len(set(completed)), "completed twice"
        assert self._completed <= set(completed), "a completion is gone"
        intended = {call.key.text for call in calls}
        assert {entry.key for entry in fresh} <= intended, "sent without an intent"
        self._completed = frozenset(completed)

    def settled(self, effects: frozenset[str]) -> int:
        """The run is finished: the same effects as in an undisturbed run, extra answers only to unsettled attempts.

        A request for several answers is served under the key of its first member, and a killed run may ask for the
        missing ones alone: effects are counted in the journal, answers at the server.

        Args:
            effects: what the undisturbed run completed.

        Returns:
            How many answers were extra.
        """
        self.check()
        served = self.server.served(self.start, self._checked)
        with JournalReader(self.directory / "journal.db") as reader:
            calls = list(reader.calls())
            lost = reader.open_intents()
        difference = self._completed ^ effects
        assert not difference, f"the same effects, no more and no less, but for {sorted(difference)}"
        completed = Counter(call.key.text for call in calls if call.state is EffectStatus.COMPLETED)
        unsettled = Counter(call.key.text for call in calls if call.state is EffectStatus.OPEN)
        assert unsettled.total() == lost
        unsettled += Counter(
            call.key.text for call in calls if call.state is EffectStatus.FAILED and call.maybe_paid
        )
        for key, count in Counter(entry.key for entry in served).items():
            assert completed[key] == 1, f"{key} completed {completed[key]} times"
            assert count <= completed[key] + unsettled[key], f"{key} was served {count} times"
        answers = sum(entry.n for entry in served)
        assert completed.total() <= answers <= completed.total() + unsettled.total()
        return answers - completed.total()


# --- the warm process's side -------------------------------------------------------------------------------------


def _main(folder: Path) -> None:
    _die_with_parent()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _warm(folder)
    out.write(msgspec.json.encode(sum(1 for _ in Path("/proc/self/task").iterdir())) + b"\n")
    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=Job)
        started = time.monotonic()
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            _child(job, tell)
        os.close(tell)
        out.write(msgspec.json.encode(child) + b"\n")
        _, status, usage = os.wait4(child, 0)
        seen = int.from_bytes(os.read(told, 8), "little")
        os.close(told)
        ended = Ended(os.waitstatus_to_exitcode(status), time.monotonic() - started, usage.ru_maxrss, seen)
        out.write(msgspec.json.encode(ended) + b"\n")


def _warm(folder: Path) -> None:
    """Import what a whole run imports: a child makes one and tells, so that no thread ever starts here."""
    # Drawing is half of a small run's time and most of its memory, and no fault reaches it that files do not show.
    plain = types.ModuleType("tfgrpo.report.html")
    vars(plain)["render"] = lambda *_: "<!doctype html>"
    sys.modules[plain.__name__] = plain
    importlib.import_module("tfgrpo.cli")
    listing = folder / "modules.json"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _small_run(folder / "warm")
            listing.write_text(json.dumps(sorted(sys.modules)), "utf-8")
            code = 0
        except BaseException:  # noqa: BLE001 - it must not return into the parent's loop
            traceback.print_exc()
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    for name in json.loads(listing.read_text("utf-8")):
        with contextlib.suppress(ImportError, AttributeError):
            importlib.import_module(name)
    import tfgrpo

    prior = tfgrpo.PromptAssembler(tfgrpo.ExperienceLibrary.empty(), token_budget=100)
    prior.assemble(tfgrpo.Task("warm", "Are the token tables there?"))
    from tfgrpo.cli.app import main

    for command in (["--version"], ["resume", str(folder / "nothing")]):
        main(command)  # the first use of a command line costs a tenth of a second
    gc.collect()
    gc.freeze()


def _small_run(folder: Path) -> None:
    import anyio
    from tests.support.world import make_config

    import tfgrpo
    from tfgrpo.testing import LoopbackServer
    from tfgrpo.testing.scripts import tickets

    folder.mkdir()

    async def main() -> None:
        async with LoopbackServer(tickets) as server:
            config = make_config(folder, model__base_url=server.base_url)
            await tfgrpo.practice(config, run_dir=folder / "run")

    anyio.run(main, backend_options={"use_uvloop": True})


def _child(job: Job, tell: int) -> None:
    code = 70
    library: Any = None
    try:
        _die_with_parent()
        descriptor = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        faulthandler.enable()
        if job.arm is not None or job.clock:
            library = ctypes.CDLL(None)
        if job.traced:
            _await_tracer()
        if job.clock:
            library.faults_clock(ctypes.c_double(job.clock))
        if (arm := job.arm) is not None:
            library.faults_arm(arm.calls, arm.nth, arm.how, arm.error, arm.folder.encode(), arm.cure.encode())
        from tfgrpo.cli.app import main

        code = main(list(job.arguments))
    except BaseException:  # noqa: BLE001 - whatever it is, the child must not return into the parent's loop
        traceback.print_exc()
    finally:
        if job.arm is not None and library is not None:
            os.write(tell, int(library.faults_seen()).to_bytes(8, "little"))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with_parent() -> None:
    """A test run that is killed must not leave engines behind that wait for a disk or a server for ever."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG


def _await_tracer() -> None:
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)  # let any process trace this one
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if "TracerPid:\t0\n" not in Path("/proc/self/status").read_text("utf-8"):
            return
        time.sleep(0.002)
    raise TimeoutError("no tracer came")


if __name__ == "__main__":
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit("the warm process needs the interpreter lock")
    _main(Path(sys.argv[1]))
