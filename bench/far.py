"""``python -m bench.far PORT SECONDS [BOOK]``: a relay whose every answer comes so much later.

Owns an SMTP server that pipelines, counts what it took, and prints the count as
``smtp-sink -c`` does. It delays as a distance does: each answer by itself, and
whatever was asked meanwhile is not held up by it. ``BOOK`` is a file in which it notes
each order of the workload, and the moment (monotonic) at which it took it.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

END = b"\r\n.\r\n"
OFFERS = b"250-far\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_ORDER = re.compile(rb"^Subject: .*?HS-(\S+)\r?$", re.MULTILINE)


class Far(asyncio.Protocol):
    taken = 0
    delay = 0.0
    book: list[str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._rest = b""
        self._body = False
        self._answer(b"220 far ESMTP\r\n")

    def _answer(self, said: bytes) -> None:
        asyncio.get_running_loop().call_later(Far.delay, self._transport.write, said)

    def data_received(self, data: bytes) -> None:
        rest = self._rest + data if self._rest else data
        said = b""
        while True:
            head, end, after = rest.partition(END if self._body else b"\r\n")
            if not end:
                break
            rest = after
            if self._body:
                self._body = False
                Far.taken += 1
                if Far.book is not None and (found := _ORDER.search(head)):
                    Far.book.append(f"{found[1].decode()} {time.monotonic():.6f}\n")
                said += b"250 2.0.0 taken\r\n"
            elif head[:4].upper() == b"EHLO":
                said += OFFERS
            elif head[:4].upper() == b"DATA":
                self._body = True
                said += b"354 go on\r\n"
            elif head[:4].upper() == b"QUIT":
                said += b"221 bye\r\n"
            else:
                said += b"250 2.0.0 ok\r\n"
        self._rest = rest
        if said:
            self._answer(said)


async def main(port: int, delay: float, book: str | None) -> None:
    Far.delay = delay
    if book is not None:
        Far.book = []
    loop = asyncio.get_running_loop()
    await loop.create_server(Far, "127.0.0.1", port, backlog=512)
    told = -1
    while True:
        if Far.book and book is not None:
            # Before the count: who waits for that reads the book next.
            with open(book, "a") as file:
                file.writelines(Far.book)
            Far.book.clear()
        if told != Far.taken:
            told = Far.taken
            print(f"mesg={told}", flush=True)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), *(sys.argv[3:4] or [None])))
