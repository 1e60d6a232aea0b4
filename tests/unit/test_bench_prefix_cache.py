"""The prefix-cache simulator of `bench.core`, against counts done by hand and a slow model of the same rule."""

from __future__ import annotations

import pytest
from bench.core.prefix_cache import CacheReport, block_keys, cached_share, waves
from hypothesis import given
from hypothesis import strategies as st


def test_a_first_prompt_finds_nothing_and_its_repetition_all_full_blocks() -> None:
    prompt = list(range(40))
    assert cached_share([[prompt]]) == CacheReport(40, 0)
    assert cached_share([[prompt], [prompt]]) == CacheReport(80, 32)


def test_requests_of_a_wave_do_not_see_each_other() -> None:
    prompt = list(range(32))
    assert cached_share([[prompt] * 16]).cached_tokens == 0
    assert cached_share([[prompt] * 17]).cached_tokens == 32
    assert cached_share([[prompt] * 5], wave=2).cached_tokens == 3 * 32


def test_leaders_go_alone_and_first() -> None:
    assert list(waves(5, [3], wave=2)) == [[3], [0, 1], [2, 4]]
    prompt = list(range(32))
    assert cached_share([[prompt] * 16], [[7]]).cached_tokens == 15 * 32
    assert cached_share([[prompt] * 16], [[7, 0]]).cached_tokens == 15 * 32


def test_a_change_loses_what_stands_behind_it_and_an_appended_line_loses_nothing() -> None:
    old = list(range(64))
    edited = [*old[:20], 999, *old[21:]]
    appended = [*old, *range(100, 116)]
    assert cached_share([[old], [edited]]).cached_tokens == 16
    assert cached_share([[old], [appended]]).cached_tokens == 64


def test_a_block_is_found_only_behind_the_same_blocks() -> None:
    first, second = list(range(16)), list(range(16, 32))
    assert block_keys([*first, *second])[1] != block_keys(second)[0]
    assert cached_share([[[*first, *second]], [second]]).cached_tokens == 0


def test_leaders_must_be_requests_of_the_step() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        cached_share([[[1]]], [[1]])
    with pytest.raises(ValueError, match="different numbers"):
        cached_share([[[1], [2]]], [[0, 0]])
    with pytest.raises(ValueError, match="2 steps of 1"):
        cached_share([[[1]]], [[0], [0]])


def test_nothing_asked_is_no_share() -> None:
    assert cached_share([]).share == 0.0
    assert cached_share([[list(range(32))], [list(range(32))]]).share == 0.5


prompts = st.lists(st.integers(0, 2), max_size=20)


@given(st.lists(st.lists(prompts, max_size=6), max_size=4), st.integers(1, 4), st.integers(1, 5))
def test_equals_a_model_that_keeps_whole_prefixes(
    steps: list[list[list[int]]], wave: int, block: int
) -> None:
    stored: set[tuple[int, ...]] = set()
    cached = 0
    for step in steps:
        for start in range(0, len(step), wave):
            together = step[start : start + wave]
            for prompt in together:
                ends = range(block, len(prompt) + 1, block)
                cached += max((end for end in ends if tuple(prompt[:end]) in stored), default=0)
            for prompt in together:
                stored.update(tuple(prompt[:end]) for end in range(block, len(prompt) + 1, block))
    assert cached_share(steps, wave=wave, block=block).cached_tokens == cached
