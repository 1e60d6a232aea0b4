"""A run of the version before: read as it is, its keys as they are written today; never written to."""

# ruff: noqa: ASYNC240
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tfgrpo.errors import JournalError
from tfgrpo.journal import Journal, JournalReader, salvage
from tfgrpo.keys import Key, key_of_version_2
from tfgrpo.types import EffectKind, EffectStatus, ModelReply, ModelRequest, Role, Rollout, Usage

GOLDEN = Path(__file__).parents[2] / "golden" / "run-version-2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy: readers may leave files beside a journal."""
    shutil.copy(GOLDEN / "journal.db", tmp_path / "journal.db")
    return tmp_path / "journal.db"


def check(path: Path) -> None:
    with JournalReader(path) as reader:
        calls = list(reader.calls())
        assert {call.kind for call in calls} == {EffectKind.MODEL}
        assert {call.state for call in calls} == {EffectStatus.COMPLETED}
        keys = {call.key for call in calls}
        assert Key("consolidate", 1).do("operations") in keys
        assert Key("gate", 1, "proposed", "t2", 0).do("model", "1") in keys
        assert Key("probe", 1, "t3/0", "t0").do("first", "0000x3") in keys
        assert Key("learned", task="t10001", index=0).do("model", "1") in keys
        assert len(keys) == len(calls)
        for call in calls:
            assert reader.request(call.key, 0, ModelRequest).messages
            assert reader.result(call.key, 0, ModelReply) is not None
        assert reader.usage_by_role() == {
            Role.DISTILLER: Usage(4, 424, 0, 154),
            Role.ROLLOUT: Usage(36, 1062, 0, 92),
        }
        rollouts = reader.records("rollout", Rollout, "practice/")
        assert len(rollouts) == 4 * 3
        assert {(key.phase, key.step, key.index) for key in rollouts} == {
            ("practice", 1, n) for n in range(3)
        }
        assert all(key.task == rollout.task_id for key, rollout in rollouts.items())
        assert [key.text for key in rollouts] == sorted(key.text for key in rollouts)


def test_a_run_of_version_2_is_read(path: Path) -> None:
    check(path)


async def test_it_is_not_written_to(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(JournalError, match="earlier version") as refused:
        await Journal.open(path)
    assert "Reports" in refused.value.message
    assert path.read_bytes() == before


def test_a_salvaged_one_is_of_version_2_as_well(path: Path, tmp_path: Path) -> None:
    report = salvage(path, tmp_path / "new.db")
    assert (report.calls, report.open_calls, report.lost) == (40, 0, 0)
    check(tmp_path / "new.db")


@pytest.mark.parametrize(
    ("kind", "text", "key"),
    [
        ("rollout", "baseline/t1/0000", Key("baseline", task="t1", index=0)),
        ("rollout", "practice/0003/t17/0000", Key("practice", 3, task="t17", index=0)),
        ("rollout", "probe/0003/t17/0000/t5/0001", Key("probe", 3, "t17/0", "t5", 1)),
        ("rollout", "gate/0003/proposed/t5/0001", Key("gate", 3, "proposed", "t5", 1)),
        ("rollout", "learned/a%2Fb%20c/0002", Key("learned", task="a/b c", index=2)),
        ("plan", "practice/0003/t17", Key("practice", 3, task="t17")),
        ("group", "0003/t17", Key("practice", 3, task="t17")),
        ("step", "0003", Key("practice", 3)),
        ("evaluation", "baseline", Key("baseline")),
        ("library", "abc", Key("library", variant="abc")),
        ("single requests", "rollout", Key("single requests", variant="rollout")),
        ("call", "practice/0003/t17/0000x5", Key("practice", 3, task="t17").do("first", "0000x5")),
        ("call", "practice/0003/t17/0002x1", Key("practice", 3, task="t17", index=2).do("model", "1")),
        ("call", "practice/0003/t17/0002/0004", Key("practice", 3, task="t17", index=2).do("model", "4")),
        ("call", "distill/0003/t17/summary/0001", Key("distill", 3, task="t17").do("summary", "1")),
        (
            "call",
            "distill/0003/t17/advantage/repair/0",
            Key("distill", 3, task="t17").do("advantage", "repair", "0"),
        ),
        ("call", "consolidate/0003", Key("consolidate", 3).do("operations")),
        ("call", "consolidate/0003/1", Key("consolidate", 3).do("1")),
        ("other", "k7", Key("other", inside=("k7",))),
    ],
)
def test_keys_of_version_2(kind: str, text: str, key: Key) -> None:
    assert key_of_version_2(kind, text) == key
    assert Key.parse(key.text) == key
