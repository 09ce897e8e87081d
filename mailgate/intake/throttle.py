"""What a message says about throttles: whether its producer may, and how it is kept.

Owns the rules between a submission and its producer's section. Pure.
"""

from __future__ import annotations

from mailgate.config.shape import Config
from mailgate.contract.faults import Fault
from mailgate.contract.submission import Submission
from mailgate.dispatch.throttles import own_text


def faults(said: Submission, producer: str, config: Config) -> list[Fault]:
    """What of the message's throttle its producer may not say."""
    throttle = said.throttle
    if throttle is None:
        return []
    may = config.producer(producer).throttle
    if may == "none":
        return [Fault("throttle", f"is not for producer {producer} to say")]
    found = []
    if throttle.replace and may != "any":
        rule = f"is not for producer {producer}, which may only add to the configured throttles"
        found.append(Fault("throttle.replace", rule))
    return found


def text(said: Submission) -> str | None:
    """The message's own throttle as the journal keeps it."""
    throttle = said.throttle
    if throttle is None:
        return None
    limited = throttle.window is not None
    return own_text(
        (
            throttle.key or "",
            throttle.limit if limited else None,
            int(throttle.window * 1000) if throttle.window is not None else None,
            throttle.on_limit,
            throttle.replace,
        )
    )
