"""Who waits for one relay's connections, urgent mail aside.

Owns the order of those who wait, and who of them may have his commands sent with the
dot of the message before (RFC 2920). Never opens a connection and says nothing: ``desk``
and ``session`` do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from mailgate.model.message import Envelope
from mailgate.smtp.desk import Desk, Kept
from mailgate.smtp.transaction import unfit
from mailgate.smtp.wire import Due


@dataclass(frozen=True, slots=True)
class Ride:
    """A message's commands went out on a connection that another message is still on."""

    kept: Kept
    due: Due


class Line:
    """``places`` may be before the desk or on a connection at once; first come, first served."""

    def __init__(self, places: int) -> None:
        # Who rides behind another has that one's place, so that a place stays a connection.
        # Below zero where he has left it while that one is still there.
        self._free = places
        self._turns: deque[_Turn] = deque()

    def enter(self) -> bool:
        """Whether there is a place at once: then it is taken."""
        if self._free <= 0 or self._turns:
            return False
        self._free -= 1
        return True

    async def wait(self, desk: Desk, envelope: Envelope | None) -> Ride | None:
        """Until there is a place, which is taken then; or a ride, which is a place too.

        ``envelope`` is what may ride, if it may.
        """
        turn = _Turn(envelope)
        self._turns.append(turn)
        try:
            return await turn.granted
        except asyncio.CancelledError:
            if turn.granted.cancelled() or not turn.granted.done():
                with contextlib.suppress(ValueError):
                    self._turns.remove(turn)
                raise
            ride = turn.granted.result()
            if ride is not None:
                ride.kept.session.forsake(ride.due)
                self.step_off(desk, ride.kept)
            self.leave()
            raise

    def step_off(self, desk: Desk, kept: Kept) -> None:
        """Give a connection back; where another one is on it still, the place is his."""
        if not desk.give_back(kept):
            self._free -= 1

    def leave(self) -> None:
        """A place is free again."""
        self._free += 1
        while self._free > 0 and self._turns:
            turn = self._turns.popleft()
            if not turn.granted.done():
                self._free -= 1
                turn.granted.set_result(None)

    def follower(self, desk: Desk, kept: Kept) -> Boarding | None:
        """The first who waits, if he may go out on ``kept`` behind the message on it."""
        while self._turns and self._turns[0].granted.done():
            self._turns.popleft()
        if not self._turns or not desk.takes_another(kept):
            return None
        envelope = self._turns[0].envelope
        if envelope is None or unfit(envelope, kept.session.offers) is not None:
            return None
        return Boarding(self, desk, kept, envelope)

    def _ride(self, desk: Desk, kept: Kept, due: Due) -> None:
        desk.join(kept)
        self._turns.popleft().granted.set_result(Ride(kept, due))


class _Turn:
    __slots__ = ("envelope", "granted")

    def __init__(self, envelope: Envelope | None) -> None:
        self.envelope = envelope
        self.granted: asyncio.Future[Ride | None] = asyncio.get_running_loop().create_future()


class Boarding:
    """The first of a line, as a session sees him: nobody else runs before he is on."""

    __slots__ = ("_desk", "_kept", "_line", "envelope")

    def __init__(self, line: Line, desk: Desk, kept: Kept, envelope: Envelope) -> None:
        self._line, self._desk, self._kept, self.envelope = line, desk, kept, envelope

    def board(self, due: Due) -> None:
        self._line._ride(self._desk, self._kept, due)
