"""The first requests of a group's attempts: equal ones share an exchange, or one leads to the provider's cache.

Only requests with the same digest meet. Which of them share an exchange, and who waits for whom, changes when things
are sent, never what is asked: each attempt's effect is its own, and is completed by its own choice.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import anyio

from tfgrpo.dispatch.calls import Dispatcher
from tfgrpo.dispatch.effects import Watcher
from tfgrpo.dispatch.prefix import Places, PrefixCache, PrefixGroup, leading
from tfgrpo.dispatch.priority import Priority
from tfgrpo.errors import GroupRequestUnsupportedError, ModelError, TfgrpoError
from tfgrpo.protocols import Effect
from tfgrpo.types import ModelReply, ModelRequest

#: How long (seconds) a first request waits for those of its siblings that are doing something else before they ask.
GATHER = 0.05


class Member:
    """One attempt of a group, up to its first request."""

    __slots__ = ("arrived", "seat")

    def __init__(self) -> None:
        self.arrived = False
        self.seat: Seat | None = None


class Sharing:
    """The first requests of one group's attempts.

    A request goes when all attempts of the group have asked or ended, or after `GATHER`; equal ones go together, as
    many in one exchange as the endpoint permits. Where it permits one, the first to go leads, and the others follow
    at its first token.

    Args:
        dispatcher: sends the calls.
        cache: the provider's prefix cache.
        step: the prompts that begin alike, over all groups that are asked with the same prior.
        prompt: the tokens of a first request of this group.
        members: how many attempts there are.
        priority: of first requests; those that follow a leader finish what is started.
        single: every attempt makes a request of its own.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        cache: PrefixCache,
        step: PrefixGroup,
        prompt: int,
        members: int,
        priority: int,
        single: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._cache = cache
        self._step = step
        self._prompt = prompt
        self._expected = members
        self._priority = priority
        self._single = single
        self._arrived = 0
        self._pending: dict[bytes, list[Seat]] = defaultdict(list)
        self._groups: dict[bytes, PrefixGroup] = {}
        self._timer: asyncio.TimerHandle | None = None

    def member(self) -> Member:
        """The place of one attempt."""
        return Member()

    def arrive(self, member: Member) -> None:
        """Wait for this attempt no longer: it has asked, or ended, or had its answer already."""
        if not member.arrived:
            member.arrived = True
            self._arrived += 1
            if self._arrived >= self._expected:
                self._flush()

    async def settled(self, member: Member) -> None:
        """Wait until no exchange holds an effect of this attempt: only then may its terminal record be written.

        Cancellation: changes nothing.
        """
        if member.seat is not None and member.seat.exchange is not None:
            await member.seat.over.wait()

    async def ask(
        self, member: Member, effect: Effect, request: ModelRequest, watcher: Watcher
    ) -> ModelReply:
        """The answer to the first request of an attempt, which is not in the store.

        Args:
            member: the attempt.
            effect: what it asks, as the store knows it.
            request: what it asks, as the model is sent it.
            watcher: told of the call.

        Raises:
            ModelError: the call failed for good; every member of a shared exchange gets an error of its own.
            RunStoppedError, JournalError: the run cannot go on.

        Cancellation: the attempt gives its place up; the exchange ends with the last of its members, and until then
            the attempt's effect is under way: see `settled`.
        """
        role = effect.role
        if request.n == 1 and not self._single and self._dispatcher.group_limit(role) != 1:
            seat = member.seat = Seat(effect, request, watcher)
            self._pending[effect.digest].append(seat)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(GATHER, self._flush)
            self.arrive(member)
            try:
                reply = await seat.answer()
            except GroupRequestUnsupportedError:
                if self._dispatcher.group_limit(role) != 1:
                    raise
                reply = None  # the endpoint has just told its limit: ask again within it
            if reply is not None:
                return reply
        self.arrive(member)
        return await self._alone(effect, request, watcher)

    # --- together ----------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what is gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pending, self._pending = self._pending, defaultdict(list)
        for seats in pending.values():
            waiting = [seat for seat in seats if not seat.left]
            limit = self._dispatcher.group_limit(seats[0].effect.role) or len(seats)
            for start in range(0, len(waiting), limit):
                chunk = waiting[start : start + limit]
                if len(chunk) == 1:
                    chunk[0].go_alone()
                else:
                    self._dispatcher.tasks.start_soon(self._together, chunk)

    async def _together(self, seats: Sequence[Seat]) -> None:
        """One exchange for several members; it ends with the last of them."""
        seats = [seat for seat in seats if not seat.left]
        if not seats:
            return
        with anyio.CancelScope() as scope:
            for seat in seats:
                seat.exchange = scope
                seat.beside = seats
            try:
                replies = await self._led(
                    [seat.effect for seat in seats], seats[0].request, _Watchers(seats), several=False
                )
            except TfgrpoError as error:
                for seat in seats:
                    seat.failed(error.again())
            else:
                for seat, reply in zip(seats, replies, strict=True):
                    seat.answered(reply)
            finally:
                for seat in seats:
                    seat.over.set()

    # --- alone, in front of the others or behind them ----------------------------------------------------

    async def _alone(self, effect: Effect, request: ModelRequest, watcher: Watcher) -> ModelReply:
        return (await self._led([effect], request, watcher, several=self._expected > 1))[0]

    async def _led(
        self, effects: list[Effect], request: ModelRequest, watcher: Watcher, *, several: bool
    ) -> list[ModelReply]:
        group = self._groups.get(effects[0].digest)
        if group is None:
            group = self._groups[effects[0].digest] = PrefixGroup(self._cache, self._prompt)
        question = request.messages[-1].content if request.messages else ""
        several = several and group.active
        with leading() as places:
            if several:
                places.add(await group.join(question))
            # A follower's leader has waited for the leaders of the step.
            follows = several and not places.own
            if not follows:
                places.add(await self._step.join(question))
            replies = await self._dispatcher.send(
                effects,
                request,
                priority=Priority.FINISH if follows else self._priority,
                watcher=_Led(watcher, places),
                stream=bool(places.own),
            )
            places.first_token()  # a model that does not tell its first token has told it now
        for reply in replies:
            self._cache.reported(reply.usage)
        return replies


class Seat:
    """One member's place in an exchange that is about to be shared."""

    def __init__(self, effect: Effect, request: ModelRequest, watcher: Watcher) -> None:
        self.effect = effect
        self.request = request
        self.watcher = watcher
        self.left = False
        self.over = anyio.Event()
        self.exchange: anyio.CancelScope | None = None
        self.beside: Sequence[Seat] = (self,)
        self._future: asyncio.Future[ModelReply | None] = asyncio.get_running_loop().create_future()

    async def answer(self) -> ModelReply | None:
        """The member's reply; None where nobody shares with it, and it has to ask by itself."""
        try:
            return await self._future
        except asyncio.CancelledError:
            self.left = True
            if self.exchange is not None and all(seat.left for seat in self.beside):
                self.exchange.cancel()
            raise

    def go_alone(self) -> None:
        """Let the member ask by itself."""
        if not self._future.done():
            self._future.set_result(None)

    def answered(self, reply: ModelReply) -> None:
        """Hand the member its own reply."""
        if not self._future.done():
            self._future.set_result(reply)

    def failed(self, error: TfgrpoError) -> None:
        """Hand the member its own error."""
        if not self._future.done():
            self._future.set_exception(error)


class _Watchers(Watcher):
    """The watchers of all members of an exchange as one."""

    def __init__(self, seats: Sequence[Seat]) -> None:
        self._seats = seats

    def launched(self) -> None:
        for seat in self._seats:
            seat.watcher.launched()

    def first_token(self) -> None:
        for seat in self._seats:
            seat.watcher.first_token()

    def queued(self) -> None:
        for seat in self._seats:
            seat.watcher.queued()

    def abandoned(self) -> ModelError | None:
        reasons = [seat.watcher.abandoned() for seat in self._seats]
        return reasons[0] if all(reason is not None for reason in reasons) else None


class _Led(Watcher):
    """A watcher, and the places at the front that its call has."""

    def __init__(self, watcher: Watcher, places: Places) -> None:
        self._watcher = watcher
        self._places = places

    def launched(self) -> None:
        self._watcher.launched()
        self._places.launched()

    def first_token(self) -> None:
        self._watcher.first_token()
        self._places.first_token()

    def queued(self) -> None:
        self._watcher.queued()

    def abandoned(self) -> ModelError | None:
        return self._watcher.abandoned()
