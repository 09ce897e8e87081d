"""How little memory a process holds, and what it holds no longer given back four times a minute.

Owns when the collector looks at everything, that free pages leave the heap, that there
is one heap, and what a TLS connection keeps for reading. Never looks at an object of its
own accord: what is reachable stays.

The collector of CPython counts objects, not bytes. What a lost connection leaves behind
is a cycle of a hundred objects around a buffer of 128 KiB (py-amqp's frame), or an
exception with the frames that it came through; in the middle generation such a cycle
would lie until some millions of objects were made.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from asyncio import sslproto
from typing import NoReturn

#: Seconds between two times.
EVERY = 15.0

# mallopt(3)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
#: Bytes. What is larger goes back to the system when it is freed.
_LARGE = 128 * 1024

#: Bytes: two records of TLS, each 16 KiB at most (RFC 8446 section 5.1).
_READ = 32 * 1024


def stays() -> None:
    """Say that all there is now is there for good: no collection looks at it again.

    Forks then go on sharing its pages, and ``let_go`` takes a few milliseconds.
    """
    gc.collect()
    gc.freeze()


def one_heap() -> None:
    """Have all threads allocate from one heap; to be called before the first thread.

    glibc gives each thread an arena of its own, and what one thread has freed no other uses
    again. It also raises the size from which memory goes back when it is freed, up to 32 MiB,
    as larger pieces are freed: each batch would leave holes of its own size. Few of our
    threads are ever in it at once (most hold the GIL), so that they do not wait for each other.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def small_reads() -> None:
    """Have each TLS connection keep 32 KiB for what comes in; to be called before the first.

    asyncio keeps 256, all of it in memory from the beginning, and an SMTP client reads replies
    of a hundred bytes. Whatever is longer comes in several reads.
    """
    if hasattr(sslproto.SSLProtocol, "max_size"):
        sslproto.SSLProtocol.max_size = _READ


def let_go() -> None:
    """Collect every cycle that nobody can reach, and give free pages back.

    glibc keeps what was freed below something that is still in use, in an arena for each
    thread; ``malloc_trim`` gives it back (malloc_trim(3)). Elsewhere there is no such call.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def keep_lean() -> NoReturn:
    """``let_go`` again and again, until cancelled."""
    while True:
        await asyncio.sleep(EVERY)
        let_go()
