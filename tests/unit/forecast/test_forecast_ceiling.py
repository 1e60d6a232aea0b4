"""Which limit will bind, in words, and the limit of open files."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from tests.support.world import make_config, models

import tfgrpo
from tfgrpo.events import Event, Noted, Warned
from tfgrpo.forecast.ceiling import (
    FILES_BESIDE,
    CallSize,
    OpenFiles,
    files_warning,
    open_files,
    raise_open_files,
    which_binds,
)
from tfgrpo.testing import ScriptedModel, VirtualClock
from tfgrpo.testing.scripts import practice_script
from tfgrpo.types import Limits


@pytest.mark.parametrize(
    ("limits", "call", "words"),
    [
        (
            {},
            CallSize(),
            "no rate is configured, so the pace follows what the provider's answers tell.",
        ),
        (
            {"requests_per_minute": 1200},
            CallSize(),
            ("limits.requests_per_minute = 1,200 permits 20 calls/s and binds for calls of less than 3.2 s."),
        ),
        (
            {"requests_per_minute": 1200},
            CallSize(2.1),
            (
                "at about 2.1 s a call that is 30 calls/s; limits.requests_per_minute = 1,200 permits 20 calls/s "
                "and binds first."
            ),
        ),
        (
            {"requests_per_minute": 12_000},
            CallSize(2.1),
            "permits 200 calls/s and is not reached: limits.concurrency binds first.",
        ),
        (
            {"requests_per_minute": 1200, "tokens_per_minute": 100_000},
            CallSize(None, 400, 120),
            (
                "limits.tokens_per_minute = 100,000 permits 3.2 calls/s of about 520 tokens "
                "and binds for calls of less than 20 s."
            ),
        ),
        (
            {"requests_per_minute": 10, "tokens_per_minute": 10**9},
            CallSize(30.0, 400, 120),
            "limits.requests_per_minute = 10 permits 10 calls/min and binds first.",
        ),
        (
            {"tokens_per_minute": 100_000},
            CallSize(),
            "limits.tokens_per_minute = 100,000 may bind before, by the tokens of a call.",
        ),
        ({}, CallSize(2.1), "limits.concurrency binds, unless the provider's answers tell of a lower limit."),
    ],
)
def test_only_what_is_known_is_said(limits: dict[str, int], call: CallSize, words: str) -> None:
    said = which_binds(Limits(**limits), call)
    assert said.startswith("at most 64 calls in flight; ")
    assert said.endswith(words)


def test_an_embedded_model_is_bound_by_its_slots() -> None:
    assert which_binds(Limits(), CallSize(), 4) == (
        "at most 4 calls at work: the embedded model computes 4 answers at once."
    )


def test_too_few_files_are_told_with_both_remedies() -> None:
    assert files_warning(OpenFiles(1024, 5064, 5064), 5000) is None
    warning = files_warning(OpenFiles(1024, 5064, 4096), 5000) or ""
    assert "limits.concurrency = 5,000 needs 5,064 open files and this system permits 4,096" in warning
    assert "set limits.concurrency = 4,032" in warning
    assert "ulimit -Hn" in warning


def test_the_soft_limit_is_raised_as_far_as_needed_and_permitted() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 512:
        pytest.skip("this system permits too few open files to try")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert open_files(400).permitted == 256
        assert raise_open_files(400).permitted == 400 + FILES_BESIDE
        assert raise_open_files(100).permitted == 400 + FILES_BESIDE  # never lowered
        files = raise_open_files(hard)
        assert files.permitted == hard
        assert not files.enough
        assert files.calls == hard - FILES_BESIDE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_refusal_to_raise_it_is_told_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (100, 10_000))

    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise OSError("not permitted")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_open_files(400) == OpenFiles(100, 464, 100)


def test_a_run_says_it_at_the_start_and_knows_the_seconds_when_resumed(tmp_path: Path) -> None:
    config = make_config(tmp_path, limits__requests_per_minute=6_000, limits__tokens_per_minute=10**9)
    told: list[Event] = []

    async def first() -> None:
        await tfgrpo.practice(
            config,
            models=models(ScriptedModel(practice_script())),
            run_dir=tmp_path / "run",
            hooks=[told.append],
        )

    async def again() -> None:
        told.clear()
        await tfgrpo.resume(
            tmp_path / "run", models=models(ScriptedModel(practice_script())), hooks=[told.append]
        )

    clock = VirtualClock()
    clock.run(first)
    notes = [event.message for event in told if isinstance(event, Noted)]
    assert len(notes) == 1
    assert (
        "limits.requests_per_minute = 6,000 permits 100 calls/s and binds for calls of less than 0.16 s."
        in notes[0]
    )
    assert not any(isinstance(event, Warned) for event in told)
    clock.run(again)
    assert " a call that is " in next(event.message for event in told if isinstance(event, Noted))
