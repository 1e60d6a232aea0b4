"""A disk that is full, refuses, or has rotted: typed errors, nothing acknowledged lost, nothing foreign."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tfgrpo.errors import JournalError, JournalFullError
from tfgrpo.journal import Journal, JournalReader
from tfgrpo.types import Choice, Message, ModelReply, ModelRequest, Role, Trajectory, Usage

LIMITED = """
import os, resource, sys
from pathlib import Path
import anyio
from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal
from tfgrpo.types import Message, Trajectory

async def main():
    async with Journal.create(Path(sys.argv[1]), {}) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        for n in range(1_000):
            await journal.record("t", str(n), Trajectory((Message("user", os.urandom(5_000).hex()),)))
            os.write(1, f"{n}\\n".encode())

try:
    anyio.run(main)
except JournalError as error:
    os.write(1, f"error {error.message}\\n".encode())
"""


def big(n: int) -> Trajectory:
    return Trajectory((Message("user", random.Random(n).randbytes(3_000).hex()),))


async def test_a_full_disk_is_told_to_everyone_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    acknowledged: set[str] = set()
    errors: list[JournalError] = []
    numbers = iter(range(10_000))

    async def write() -> None:
        for n in numbers:
            try:
                await journal.record("t", str(n), big(n))
            except JournalError as error:
                errors.append(error)
                return
            acknowledged.add(str(n))

    async with Journal.create(path, {}) as journal:
        journal._writer._connection.pragma("max_page_count", 300)
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(write)
        assert len(errors) == 20
        assert {type(error) for error in errors} == {JournalFullError}
        assert {error.message for error in errors} == {errors[0].message}
        assert str(path) in errors[0].message
        assert f"tfgrpo resume {tmp_path}" in errors[0].message
        with pytest.raises(JournalFullError, match="The disk is full"):
            await journal.intend("k", 0, Role.ROLLOUT, ModelRequest(()))
        assert journal.records("t", Trajectory).keys() == acknowledged
    async with Journal.open(path) as journal:
        assert journal.records("t", Trajectory) == {key: big(int(key)) for key in acknowledged}
        assert len(acknowledged) > 20
        await journal.record("t", "after", big(0))


def test_a_refusing_disk_is_a_journal_error_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *written, last = result.stdout.splitlines()
    assert result.stderr == ""
    assert last.startswith(f"error The journal {path} cannot be read or written")
    assert f"tfgrpo resume {tmp_path}" in last
    assert len(written) > 10
    with JournalReader(path) as reader:
        assert reader.records("t", Trajectory).keys() == set(written)


async def build(path: Path) -> None:
    async with Journal.create(path, {"seed": 1}) as journal:
        for n in range(30):
            request = ModelRequest((Message("system", "s" * 500), *big(n).messages))
            await journal.intend(f"k{n}", 0, Role.ROLLOUT, request)
            await journal.complete(f"k{n}", 0, ModelReply((Choice(f"reply {n}"),), Usage(calls=1)))
            await journal.record("t", f"r{n}", big(n))


def read_everything(path: Path) -> None:
    journal = Journal.open(path)
    try:
        reader = journal.reader
        for call in reader.calls():
            reader.request(call.key, call.attempt)
            reader.reply(call.key, call.attempt)
            journal.last(call.key)
        reader.usage_by_role()
        reader.faults_by_kind()
        reader.records("t", Trajectory)
    finally:
        journal.close()


def test_flipped_bits_are_journal_errors(tmp_path: Path) -> None:
    good = tmp_path / "good.db"
    anyio.run(build, good)
    content = good.read_bytes()
    places = random.Random(5)
    noticed = silent = 0
    for n in range(60):
        # Half of the places are in the first pages: the header, the tables' roots, the small rows.
        place = places.randrange(0, len(content) if n % 2 else 60_000)
        damaged = bytearray(content)
        damaged[place] ^= 1 << places.randrange(8)
        path = tmp_path / "bad.db"
        path.write_bytes(damaged)
        try:
            read_everything(path)
        except JournalError as error:
            noticed += "bad.db" in error.message
            continue
        silent += 1
    assert noticed + silent == 60
    assert noticed > 20


def test_a_damaged_body_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    anyio.run(build, path)
    with JournalReader(path) as reader:
        frame = reader._query("SELECT body FROM replies WHERE id = 7")[0][0]
        call = list(reader.calls())[6]
    content = bytearray(path.read_bytes())
    content[content.index(frame) + len(frame) - 1] ^= 4
    path.write_bytes(content)
    with JournalReader(path) as reader, pytest.raises(JournalError, match="is damaged"):
        reader.reply(call.key, call.attempt)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_a_journal_error(tmp_path: Path, part: float) -> None:
    path = tmp_path / "journal.db"
    anyio.run(build, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(JournalError, match=r"journal\.db"):
        read_everything(path)


async def test_a_bug_in_the_writer_reaches_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in the thread, nobody waits for ever."""

    def explode(bodies: list[bytes]) -> list[bytes]:
        raise MemoryError("no room")

    async with Journal.create(tmp_path / "journal.db", {}) as journal:
        monkeypatch.setattr(journal._writer._packer, "pack", explode)
        with anyio.fail_after(5):
            for key in ("a", "b"):
                with pytest.raises(JournalError, match="no room"):
                    await journal.record("t", key, Trajectory(()))
        assert journal.records("t", Trajectory) == {}
