"""Large files: only so many bytes of them are in a process at once, and each arrives whole."""

from __future__ import annotations

import asyncio
import email
from typing import Any

from mailgate.model.message import Attachment, Envelope
from mailgate.model.outcome import Outcome
from mailgate.model.state import Lane
from tests.integration.delivery.house import House, soon
from tests.integration.smtp.scripted import ScriptedRelay

NORMAL = Lane.NORMAL
SIZE = 400_000


def file(number: int, size: int = SIZE) -> Attachment:
    return Attachment(f"{number}.bin", "application/octet-stream", bytes([number]) * size)


class Watch:
    """Counts the large mails that are in hand from the rendering to the relay's answer."""

    def __init__(self, gateway: Any) -> None:
        self.most = self._now = 0
        send = gateway._pipeline._send

        async def watched(relay: str, envelope: Envelope, *rest: Any) -> Outcome:
            self._now += 1
            self.most = max(self.most, self._now)
            try:
                # So that all who may are in hand together.
                await asyncio.sleep(0.03)
                return await send(relay, envelope, *rest)
            finally:
                self._now -= 1

        gateway._pipeline._send = watched
        self.gateway = gateway

    @property
    def held(self) -> int:
        return int(self.gateway._pipeline._held.held)


def attached(mail: bytes) -> bytes:
    [part] = [p for p in email.message_from_bytes(mail).walk() if p.get_filename()]
    return bytes(part.get_payload(decode=True))  # type: ignore[arg-type]


async def test_only_so_many_large_files_are_in_hand_at_once(house: House) -> None:
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay}, worker={"attachment_bytes": 2**20})
        watch = Watch(gateway)
        for n in range(8):
            await house.add(f"a{n}@example.org", key=f"{n}", attachments=(file(n),))
        assert await gateway.deliver(NORMAL, soon(10)) == {"sent": 8}
        assert watch.most == 2
        assert watch.held == 0
        assert sorted(attached(mail) for mail in relay.mails) == [file(n).content for n in range(8)]


async def test_a_file_that_is_larger_than_all_the_room_goes_alone(small_house: House) -> None:
    house = small_house
    async with ScriptedRelay() as relay:
        gateway = await house.open({"main": relay}, worker={"attachment_bytes": 2**20})
        watch = Watch(gateway)
        for n in range(3):
            big = Attachment("big.bin", "application/octet-stream", bytes([n]) * 2 * 2**20)
            await house.add(f"a{n}@example.org", key=f"{n}", attachments=(big,))
        small = await house.add("small@example.org", key="small")
        assert await gateway.deliver(NORMAL, soon(10)) == {"sent": 4}
        assert house.state(small[0]) == "sent"
        assert (watch.held, len(relay.mails)) == (0, 4)


async def test_what_was_refused_is_written_down_before_the_next_takes_its_room(
    house: House,
) -> None:
    """The mail of a first attempt is kept: until then it is in memory. And it goes again as
    it was, though its bytes are not read for every claim at once."""
    answers = ["451 4.3.0 later"] * 2 + ["250 2.0.0 Ok"]
    async with ScriptedRelay(DOT=answers) as relay:
        gateway = await house.open(
            {"main": relay},
            worker={"attachment_bytes": 2**20},
            # The first is not to be due again before the second has had its turn.
            streams={"transactional": {"retry": {"first": 1, "cap": 1, "jitter": 0}}},
        )
        watch = Watch(gateway)
        for n in range(2):
            await house.add(f"a{n}@example.org", key=f"{n}", attachments=(file(n, 2 * SIZE),))
        assert await gateway.deliver(NORMAL, soon(5)) == {"defer": 2}
        assert watch.held == 0
        assert house.journal.count("renderings") == 2
        await asyncio.sleep(1.1)
        assert await gateway.deliver(NORMAL, soon(5)) == {"sent": 2}
        assert (watch.most, watch.held) == (1, 0)
        first, second = sorted(relay.mails[:2]), sorted(relay.mails[2:])
        assert first == second


async def test_who_waits_for_room_is_let_go_at_the_end(small_house: House) -> None:
    house = small_house
    async with ScriptedRelay(DOT="hang") as relay:
        gateway = await house.open({"main": relay}, worker={"attachment_bytes": 2**20})
        for n in range(6):
            await house.add(f"a{n}@example.org", key=f"{n}", attachments=(file(n),))
        await gateway.deliver(NORMAL, soon(0.4))
        await gateway.stop(0.1)
        house.gone(gateway)
        # Two were said whole and may have arrived; nothing was said of the others.
        assert (house.states(), house.uncertain()) == ({"queued": 6}, 2)
        house.nothing_is_left_behind()
