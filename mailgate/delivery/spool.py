"""The marks by which a dead process's conversations are judged.

Owns one small memory-mapped file a process: a slot for each open conversation,
with the recipient, the token and how far past the final dot it is. A store into
the mapping outlives a killed process and costs no system call. Never outlives
the machine: after a reboot its word is not taken (``Lease.boot``).

The order that makes it exact: the owner writes DOT, *then* looks at the seal,
then sends the dot. Whoever buries the owner seals first and reads the marks
afterwards. So a mark that the burier does not see is a dot that is never sent.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from enum import IntEnum
from pathlib import Path

_HEADER = struct.Struct("<8sQB")
_MAGIC = b"mgspool1"
_SEAL_AT = 16
_SLOT = struct.Struct("<QIB")
_SLOT_BYTES = 16
_MARK_AT = 12
_SLOTS_AT = 64


class Mark(IntEnum):
    #: Free, or not past the dot.
    NONE = 0
    #: The dot was about to be handed to the kernel, or has been.
    DOT = 1
    #: The relay's 250 has been read.
    ACCEPTED = 2
    #: The relay's refusal has been read: certainly not delivered.
    REFUSED = 3


class Spool:
    """The owner's side. ``slots`` bounds conversations plus outcomes not yet settled."""

    def __init__(self, path: Path, lease_id: int, slots: int) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        size = _SLOTS_AT + slots * _SLOT_BYTES
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Held as long as the process lives, in whatever state: its being free is death.
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
        _HEADER.pack_into(self._map, 0, _MAGIC, lease_id, 0)
        self._fence = threading.Lock()
        self._free = list(range(slots - 1, -1, -1))

    def take(self, recipient_id: int, token: int) -> int:
        """A slot for a conversation; raises ``IndexError`` when all are in use."""
        slot = self._free.pop()
        _SLOT.pack_into(self._map, _SLOTS_AT + slot * _SLOT_BYTES, recipient_id, token, 0)
        return slot

    def mark(self, slot: int, mark: Mark) -> bool:
        """Write the mark; false when the file is sealed: then the dot may not be sent."""
        self._map[_SLOTS_AT + slot * _SLOT_BYTES + _MARK_AT] = mark
        # A processor may look at the seal before others see the mark; a lock's atomic
        # instructions keep the order.
        with self._fence:
            return self._map[_SEAL_AT] == 0

    def free(self, slot: int) -> None:
        """The outcome is in the journal (or nothing was ever said)."""
        self._map[_SLOTS_AT + slot * _SLOT_BYTES + _MARK_AT] = 0
        self._free.append(slot)

    @property
    def room(self) -> int:
        return len(self._free)

    @property
    def sealed(self) -> bool:
        return self._map.closed or self._map[_SEAL_AT] != 0

    def close(self) -> None:
        """Leave nothing behind; only when nothing is claimed any more."""
        self.path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Let go of the file, and with it of the lock: whoever finds it free reads the marks."""
        if not self._map.closed:
            self._map.close()
            os.close(self._fd)


def is_dead(path: Path) -> bool:
    """Whether the owner of a spool on this host is gone: its lock is free."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def bury(path: Path, lease_id: int) -> dict[tuple[int, int], Mark] | None:
    """Seal a spool and read its marks by (recipient id, token).

    None when there is no evidence: no file, or not this lease's.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        size = os.fstat(fd).st_size
        if size < _SLOTS_AT:
            return None
        with mmap.mmap(fd, size) as file:
            magic, owner, _ = _HEADER.unpack_from(file, 0)
            if magic != _MAGIC or owner != lease_id:
                return None
            file[_SEAL_AT] = 1
            with threading.Lock():  # the seal before the marks, as the owner the mark before it
                pass
            marks = {}
            for at in range(_SLOTS_AT, size, _SLOT_BYTES):
                recipient_id, token, mark = _SLOT.unpack_from(file, at)
                if mark:
                    marks[recipient_id, token] = Mark(mark)
            return marks
    finally:
        os.close(fd)


def discard(path: Path) -> None:
    """Remove a dead process's spool once its claims are settled."""
    path.unlink(missing_ok=True)
