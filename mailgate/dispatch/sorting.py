"""What was found due, apart: to send, over, to be claimed alone, to be put aside.

Pure. Never looks anything up at the journal.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailgate.config.shape import Config
from mailgate.dispatch.gate import Way
from mailgate.dispatch.lanes import Due
from mailgate.journal.arrivals import BucketKey
from mailgate.journal.asides import Aside
from mailgate.journal.queue import Head

Found = list[tuple[BucketKey, list[Head]]]


def late(head: Head, config: Config, now: int) -> bool:
    """Whether its time is over: its own, or that of its stream's tries.

    The latter counts from when it was last due, so that what an operator sends again is
    tried again, however old it is.
    """
    if head.expires_at is not None and head.expires_at <= now:
        return True
    stream = config.streams.get(head.stream)
    return stream is not None and head.due_at + int(stream.retry.give_up * 1000) <= now


def apart(found: Found, config: Config, now: int) -> tuple[Found, list[Head], list[Head]]:
    """Those that may be sent, by bucket; those whose time is over; those to be claimed alone."""
    sure: Found = []
    over: list[Head] = []
    suspects: list[Head] = []
    for key, heads in found:
        ended = {h.id for h in heads if late(h, config, now)}
        over += [h for h in heads if h.id in ended]
        suspects += [h for h in heads if h.suspect and h.id not in ended]
        sure.append((key, [h for h in heads if not h.suspect and h.id not in ended]))
    return sure, over, suspects


def going(found: Found, ways: Mapping[int, Way]) -> list[Due[Head]]:
    """Those that have a way now, with retries apart."""
    out = []
    for key, heads in found:
        able = [h for h in heads if ways[h.id].relay]
        fresh, retries = [h for h in able if not h.retry], [h for h in able if h.retry]
        out.append(Due(key, fresh, retries))
    return out


def asides(found: Found, ways: Mapping[int, Way]) -> list[Aside]:
    """What has to be put aside, each kind of each bucket once."""
    moves: dict[Aside, None] = {}
    for key, heads in found:
        for head in heads:
            by = ways[head.id].aside
            if by is not None:
                moves[Aside(head.bucket.id, key, *by)] = None
    return list(moves)
