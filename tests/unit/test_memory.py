"""What nobody can reach any more is given back, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import ssl
import subprocess
import sys
import weakref
from asyncio import sslproto
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from mailgate import memory
from tests.unit.cycles import collected_only_when_told, old_cycle


@pytest.fixture(autouse=True)
def _only_when_told() -> Iterator[None]:
    with collected_only_when_told():
        yield


def _held() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_cycle_that_grew_old_before_it_was_lost_is_collected() -> None:
    lost, kept = old_cycle(), [object()]
    gc.collect(0)
    assert lost() is not None
    memory.let_go()
    assert lost() is None
    assert kept


def test_what_was_freed_below_something_in_use_goes_back_to_the_system() -> None:
    if os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("not glibc")
    many = [bytes(2000) for _ in range(20_000)]
    last = many.pop()
    del many
    before = _held()
    memory.let_go()
    assert before - _held() > 20 * 2**20
    assert len(last) == 2000


#: Eight threads, each with pieces of its own; the heaps are those that glibc tells of.
_THREADS = """
import ctypes, sys, threading
from mailgate import memory

if "one" in sys.argv:
    memory.one_heap()
ready, over = threading.Barrier(9), threading.Event()

def work():
    pieces = [bytearray(1000 + n) for n in range(2000)]
    ready.wait()
    over.wait()
    del pieces

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
ready.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
told = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, told)
libc.fclose(told)
over.set()
"""


def test_all_threads_allocate_from_one_heap(tmp_path: Path) -> None:
    if os.confstr("CS_GNU_LIBC_VERSION") is None:
        pytest.skip("not glibc")
    heaps = {}
    for how in ("one", "many"):
        told = tmp_path / how
        subprocess.run([sys.executable, "-c", _THREADS, str(told), how], check=True, timeout=60)
        heaps[how] = told.read_text().count("<heap nr=")
    assert heaps["one"] == 1
    assert heaps["many"] > 1  # else nobody would see whether it does anything


async def test_a_tls_connection_keeps_little_and_reads_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", sslproto.SSLProtocol.max_size)
    memory.small_reads()
    authority = trustme.CA()
    theirs, ours = (
        ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
    )
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    said = os.urandom(1_000_000)

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(len(said)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1", 0, ssl=theirs) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=ours, server_hostname="localhost"
        )
        protocol = writer.transport._ssl_protocol  # type: ignore[attr-defined]
        assert len(protocol._ssl_buffer) <= 32 * 1024
        writer.write(said)
        async with asyncio.timeout(20):
            assert await reader.readexactly(len(said)) == said
        writer.close()


async def test_it_is_done_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY", 0.0)
    task = asyncio.create_task(memory.keep_lean())
    for _ in range(2):
        lost: weakref.ref[object] = old_cycle()
        async with asyncio.timeout(5):
            while lost() is not None:
                await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
