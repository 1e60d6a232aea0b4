"""A provider's prefix cache, simulated: which share of the prompt tokens would not have been computed again.

The rule is the one of block-wise caches: a prompt is cut into blocks of 16 tokens; a block is found if it and all
that stands before it were stored; a rest shorter than a block is never found. The store forgets nothing. Requests
that run at the same time do not see each other: all of a wave see what was stored before the wave began.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

BLOCK, WAVE = 16, 16

Prompt = Sequence[int]


class CacheReport(NamedTuple):
    """Tokens asked for, and how many of them were in the cache."""

    prompt_tokens: int
    cached_tokens: int

    @property
    def share(self) -> float:
        """Cached tokens of all; 0 where nothing was asked for."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def block_keys(prompt: Prompt, block: int = BLOCK) -> list[bytes]:
    """One key a full block, each made of the key before it and the block's tokens."""
    keys: list[bytes] = []
    chain = b""
    for start in range(0, len(prompt) - block + 1, block):
        tokens = b"".join(token.to_bytes(8, "little") for token in prompt[start : start + block])
        chain = hashlib.blake2b(chain + tokens, digest_size=16).digest()
        keys.append(chain)
    return keys


def waves(count: int, leaders: Sequence[int], wave: int = WAVE) -> Iterator[list[int]]:
    """The requests of a step in the order they are sent: each leader alone, then the others in waves.

    Raises:
        ValueError: a leader is named twice or is no request of the step.
    """
    if len(set(leaders)) != len(leaders) or any(not 0 <= leader < count for leader in leaders):
        raise ValueError(f"leaders {list(leaders)} are not {count} requests' different numbers")
    for leader in leaders:
        yield [leader]
    followers = [number for number in range(count) if number not in set(leaders)]
    for start in range(0, len(followers), wave):
        yield followers[start : start + wave]


def cached_share(
    steps: Sequence[Sequence[Prompt]],
    leaders: Sequence[Sequence[int]] = (),
    *,
    wave: int = WAVE,
    block: int = BLOCK,
) -> CacheReport:
    """Runs the steps, whose prompts are lists of token ids, against one cache.

    Args:
        steps: the prompts of each step, in the order in which they would be sent.
        leaders: for each step the places of the prompts that are sent alone before the others; empty: none leads.
        wave: how many requests run at the same time.
        block: tokens a block.

    Raises:
        ValueError: leaders for another number of steps, or no requests of theirs.
    """
    if leaders and len(leaders) != len(steps):
        raise ValueError(f"leaders are given for {len(leaders)} steps of {len(steps)}")
    stored: set[bytes] = set()
    asked = cached = 0
    for number, prompts in enumerate(steps):
        for together in waves(len(prompts), leaders[number] if leaders else (), wave):
            fresh: list[bytes] = []
            for place in together:
                keys = block_keys(prompts[place], block)
                known = 0
                while known < len(keys) and keys[known] in stored:
                    known += 1
                asked += len(prompts[place])
                cached += known * block
                fresh += keys[known:]
            stored.update(fresh)
    return CacheReport(asked, cached)
