"""A process that consumes and is killed: prints the identities it was given, then waits.

``python consumer.py URL QUEUE COUNT IDLE``; it acknowledges nothing.
"""

import asyncio
import sys

from mailgate.intake.doors import open_doors


async def main() -> None:
    url, queue, count, idle = sys.argv[1:]
    doors = open_doors(url, queue, idle=float(idle))
    for door in doors:
        await door.open()
    got = 0
    while got < int(count):
        for door in doors:
            for delivery in await door.receive(int(count) - got, 0.05):
                got += 1
                print(delivery.identity, delivery.body.decode(), flush=True)
    print("holding", flush=True)
    await asyncio.sleep(60)


asyncio.run(main())
