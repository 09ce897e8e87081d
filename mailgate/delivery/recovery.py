"""What becomes of the recipients that a dead process had claimed.

Owns the judgement, as a pure function of what the row and the spool say.
Never looks whether a process is dead: the gateway does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mailgate.config.streams import Stream
from mailgate.delivery.retry import backoff_wait
from mailgate.delivery.spool import Mark
from mailgate.journal.leases import Orphan
from mailgate.journal.settling import Attempt, Settlement
from mailgate.model.outcome import Kind
from mailgate.model.state import Phase, State


def judge(
    orphan: Orphan,
    marks: Mapping[tuple[int, int], Mark] | None,
    *,
    stream: Stream,
    max_deaths: int,
    now: int,
    random: Callable[[], float],
) -> Settlement:
    """The settlement of one orphan.

    With the spool's evidence: no mark, or a refusal on record, is *certainly not
    delivered* and queued again; a 250 on record is sent; a dot without a reply is
    uncertain. Without evidence (``marks`` None) everything is uncertain, and the
    stream's policy says what follows.

    A row whose claimant died is a suspect and claimed alone from then on; only
    deaths alone count, and ``max_deaths`` of them hold it.
    """
    mark = Mark.DOT if marks is None else marks.get((orphan.recipient_id, orphan.token), Mark.NONE)
    alone = 1 if orphan.suspect else 0
    poison = orphan.deaths + alone >= max_deaths
    due = now
    attempt = None
    note = ""
    error_class = ""
    path: tuple[State, ...]
    if mark is Mark.ACCEPTED:
        path = (State.SENT,)
        note = "the relay's 250 was on record when the worker died"
        attempt = _attempt(orphan, Kind.SENT, now, 250, "accepted; worker died before writing it")
    elif mark is Mark.DOT:
        error_class = "worker_died_after_dot" if marks is not None else "worker_lost"
        attempt = _attempt(orphan, Kind.UNCERTAIN, now, 0, "the worker died", error_class)
        if stream.uncertain == "retry" and not poison:
            due = now + int(backoff_wait(stream.retry, orphan.attempts + 1, random) * 1000)
            path = (State.UNCERTAIN, State.QUEUED)
        else:
            path = (State.UNCERTAIN,)
    elif poison:
        path = (State.HELD,)
        error_class = "poison"
        note = f"its worker died {orphan.deaths + alone} times with this message alone"
    else:
        path = (State.QUEUED,)
        note = "the worker died before the dot: certainly not sent"
    return Settlement(
        recipient_id=orphan.recipient_id,
        message_id=orphan.message_id,
        token=orphan.token,
        path=path,
        due_at=due,
        attempt=attempt,
        error_class=error_class,
        suspect=path[-1] is not State.SENT,
        deaths=alone,
        sensitive=orphan.sensitive,
        note=note,
    )


def _attempt(
    orphan: Orphan, kind: Kind, now: int, code: int, reply: str, error_class: str = ""
) -> Attempt:
    return Attempt(
        relay=orphan.relay,
        started_at=now,
        ended_at=now,
        kind=kind.value,
        phase=Phase.DOT.value,
        code=code,
        enhanced="",
        reply=reply,
        error_class=error_class,
    )
