"""A cancellation that got lost on its way, heeded all the same.

Owns the one question that a loop of a task asks at its head. Never cancels anything.
"""

from __future__ import annotations

import asyncio


def heed() -> None:
    """Raise ``CancelledError`` when the task was told to end and something swallowed that.

    Until Python 3.12 ``asyncio.wait_for`` does when what it waits for has ended in the same
    moment (bpo-37658), and redis-py sends every command by it. For the head of a
    loop; in what a task does on its way out it would end that too.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
