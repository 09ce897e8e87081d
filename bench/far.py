"""``python -m bench.far PORT SECONDS``: a relay whose every answer comes so much later.

Owns an SMTP server that pipelines, counts what it took and how much of it had the next
message's commands behind it (``rides``), and prints the counts as ``smtp-sink -c`` does,
each with the moment (monotonic). It delays as a distance does: each answer by itself, and
whatever was asked meanwhile is not held up by it. ``--book FILE`` has it note
each order of the workload, and the moment (monotonic) at which it took it; ``--for DOMAIN
ANSWER`` is what it says of recipients there, nothing more on that connection when empty.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from typing import cast

END = b"\r\n.\r\n"
OFFERS = b"250-far\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_ORDER = re.compile(rb"^Subject: .*?HS-(\S+)\r?$", re.MULTILINE)


class Far(asyncio.Protocol):
    taken = 0
    rides = 0
    delay = 0.0
    book: list[str] | None = None
    #: A destination with an answer of its own.
    dead = b""
    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._rest = b""
        self._body = False
        # The recipient of the moment was refused; nothing is answered any more.
        self._refused = self._deaf = False
        self._answer(b"220 far ESMTP\r\n")

    def _answer(self, said: bytes) -> None:
        asyncio.get_running_loop().call_later(Far.delay, self._transport.write, said)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
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
                Far.rides += rest != b""
                if Far.book is not None and (found := _ORDER.search(head)):
                    Far.book.append(f"{found[1].decode()} {time.monotonic():.6f}\n")
                said += b"250 2.0.0 taken\r\n"
            elif head[:4].upper() == b"EHLO":
                said += OFFERS
            elif head[:4].upper() == b"DATA" and self._refused:
                said += b"554 5.5.1 no valid recipients\r\n"
                self._refused = False
            elif head[:4].upper() == b"DATA":
                self._body = True
                said += b"354 go on\r\n"
            elif head[:4].upper() == b"QUIT":
                said += b"221 bye\r\n"
            elif Far.dead and head[:4].upper() == b"RCPT" and Far.dead in head:
                if not Far.answer:
                    self._deaf = True
                    break
                self._refused = True
                said += Far.answer
            else:
                self._refused = False
                said += b"250 2.0.0 ok\r\n"
        self._rest = rest
        if said:
            self._answer(said)


async def main(given: argparse.Namespace) -> None:
    Far.delay = given.seconds
    if given.book is not None:
        Far.book = []
    if given.answer is not None:
        Far.dead = f"@{given.answer[0]}>".encode()
        Far.answer = f"{given.answer[1]}\r\n".encode() if given.answer[1] else b""
    loop = asyncio.get_running_loop()
    await loop.create_server(Far, "127.0.0.1", given.port, backlog=512)
    told = -1
    while True:
        if Far.book:
            # Before the count: who waits for that reads the book next.
            with open(given.book, "a") as file:
                file.writelines(Far.book)
            Far.book.clear()
        if told != Far.taken:
            told = Far.taken
            print(f"mesg={told} rides={Far.rides} at={time.monotonic():.3f}", flush=True)
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.far", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--book")
    parser.add_argument("--for", nargs=2, dest="answer", metavar=("DOMAIN", "ANSWER"))
    asyncio.run(main(parser.parse_args()))
