"""Prompts that begin alike: a few lead, the others follow when the provider has their common beginning cached.

Nothing here changes what is asked, only when: keys, seeds and replies are the same with and without leaders.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from tfgrpo.types import Usage

#: Tokens that two prompts must have in common before one waits for the other. No hosted cache that we know of
#: keeps less (DeepSeek 64, OpenAI and Anthropic 1,024); a self-hosted server with smaller blocks loses little.
WORTHWHILE = 64
#: The longest (seconds) that followers wait for a leader's first token once it is sent. By then the prompt was
#: read, and so is cached, even where the first token cannot be seen because the answer comes as a whole.
LONGEST_HOLD = 20.0
#: How many times the usual wait for a first token followers allow, and the least that is (seconds).
PATIENT, SHORTEST_HOLD = 3.0, 1.0


class PrefixCache:
    """What a run knows of the prefix cache of its rollout model's provider.

    Args:
        used: whether there is one, as far as is known beforehand.
        learn: find out from the answers, which report cached tokens.
        leading_questions: how many different questions have to lead before a common beginning is kept: one for
            most providers, two for those that keep what two prompts had in common.
    """

    def __init__(self, *, used: bool, learn: bool = False, leading_questions: int = 1) -> None:
        self.used = used
        self.leading_questions = leading_questions
        self._learn = learn
        self._first_tokens: deque[float] = deque(maxlen=32)

    def reported(self, usage: Usage) -> None:
        """A reply came: one that had cached tokens shows that there is a cache."""
        if self._learn and usage.cached_tokens > 0:
            self.used = True

    def took(self, seconds: float) -> None:
        """A leader's first token came so long after it was sent."""
        self._first_tokens.append(seconds)

    @property
    def hold(self) -> float:
        """How long (seconds) followers wait for a leader that is sent."""
        if not self._first_tokens:
            return LONGEST_HOLD
        usual = statistics.median(self._first_tokens)
        return min(LONGEST_HOLD, max(SHORTEST_HOLD, PATIENT * usual))


class Leader:
    """A call that others wait for."""

    def __init__(self, cache: PrefixCache, question: str) -> None:
        self.question = question
        self._cache = cache
        self._sent: float | None = None
        self._launched = anyio.Event()
        self._there = anyio.Event()
        self._led = False

    @property
    def unsent(self) -> bool:
        """It is over and nothing was sent: the journal answered, or it was cut off before."""
        return self._there.is_set() and self._sent is None

    @property
    def vacant(self) -> bool:
        """It is over and has cached nothing: its place is free."""
        return self._there.is_set() and not self._led

    def launched(self) -> None:
        """Bound the wait of the followers from now on: the call is sent. Only the first time counts."""
        if self._sent is None:
            self._sent = anyio.current_time()
            self._launched.set()

    def first_token(self) -> None:
        """Mark the shared prefix as cached and release the followers."""
        if self._sent is not None and not self._led:
            self._led = True
            self._cache.took(anyio.current_time() - self._sent)
        self._release()

    def ended(self) -> None:
        """Release the followers: the call is over, in whatever way."""
        self._release()

    async def led(self) -> None:
        """Wait until it has led, ended, or had its time.

        While it waits for a slot nobody is held up by it: who follows would stand behind it in the same queue.
        """
        if self._there.is_set():
            return
        await self._launched.wait()
        sent = anyio.current_time() if self._sent is None else self._sent
        with anyio.CancelScope(deadline=sent + self._cache.hold):
            await self._there.wait()

    def _release(self) -> None:
        self._launched.set()
        self._there.set()


class PrefixGroup:
    """Calls whose prompts have a beginning in common.

    The first calls whose questions differ lead, as many as the cache wants; who leads is settled as they ask, since on
    resume much is answered by the store and asks nothing. A call that waited for a leader that never was sent gets
    its place; one that waited for a leader that was sent and failed goes at once, since a second wait might be as
    vain, and the next to come leads.

    Args:
        cache: the provider's.
        shared: tokens that all prompts of the group have in common.
        different: how many different questions have to lead.
    """

    def __init__(self, cache: PrefixCache, shared: int, different: int = 1) -> None:
        self._cache = cache
        self._shared = shared
        self._different = different
        self._leaders: list[Leader] = []

    @property
    def active(self) -> bool:
        """Whether leading is worth its time: the provider has a cache, and the prompts have enough in common."""
        return self._cache.used and self._shared >= WORTHWHILE

    async def join(self, question: str) -> Leader | None:
        """Become a leader, or wait for those there are.

        Args:
            question: the text that this prompt does not share with the others.

        Returns:
            The caller's own place at the front, to be told what becomes of its call; None for a follower,
            who may go now, and where leading is not worth its time.

        Cancellation: who waits leaves; a leader's place is given up by `leading`.
        """
        while self.active:
            self._leaders = [leader for leader in self._leaders if not leader.vacant]
            front = {leader.question for leader in self._leaders}
            if question not in front and len(front) < self._different:
                self._leaders.append(Leader(self._cache, question))
                return self._leaders[-1]
            ahead = tuple(self._leaders)
            for leader in ahead:
                await leader.led()
            if not any(leader.unsent for leader in ahead):
                break
        return None


class Places:
    """The places at the front that one call has: in its step, in its group, in both or in none."""

    def __init__(self) -> None:
        self.own: list[Leader] = []

    def add(self, leader: Leader | None) -> None:
        """Take a place, where there was one to take."""
        if leader is not None:
            self.own.append(leader)

    def launched(self) -> None:
        """The call is sent."""
        for leader in self.own:
            leader.launched()

    def first_token(self) -> None:
        """The first piece of its answer is there."""
        for leader in self.own:
            leader.first_token()


@contextmanager
def leading() -> Iterator[Places]:
    """Room for the places of one call, which are given up when it ends."""
    places = Places()
    try:
        yield places
    finally:
        for leader in places.own:
            leader.ended()
