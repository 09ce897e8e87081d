"""The mails that the local inbox keeps: an ``.eml`` file each, and an index.

Owns the directory ``inbox/``: its files, its SQLite index, and how many are kept.
Never looks into a mail beyond its first headers. Not for two threads: the owner
calls it from one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailgate.studio.inbox.letter import summary

# AUTOINCREMENT: the number of a deleted mail is never given to another.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS mails (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at INTEGER NOT NULL,
    mail_from TEXT NOT NULL,
    rcpt_to TEXT NOT NULL,
    subject TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    size INTEGER NOT NULL,
    search TEXT NOT NULL
) STRICT
"""
_COLUMNS = "id, received_at, mail_from, rcpt_to, subject, sender, recipients, size"


@dataclass(frozen=True, slots=True)
class Mail:
    """What the list shows: the envelope as said, the headers as decoded.

    ``received_at`` is in milliseconds since 1970 (UTC), ``size`` in bytes.
    """

    id: int
    received_at: int
    mail_from: str
    rcpt_to: tuple[str, ...]
    subject: str
    sender: str
    recipients: str
    size: int


class Store:
    """Mails on disk, the newest ``keep`` of them."""

    def __init__(self, directory: Path, keep: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Other people's mail: for this user's eyes only.
        directory.chmod(0o700)
        self._directory = directory
        self._keep = keep
        self._index = sqlite3.connect(
            directory / "index.db", isolation_level=None, check_same_thread=False
        )
        self._index.execute("PRAGMA journal_mode = WAL")
        # A mail that a power cut takes from a developer's inbox is no loss.
        self._index.execute("PRAGMA synchronous = OFF")
        self._index.execute(_SCHEMA)
        #: Rises with every change, so that a page can ask "anything new?".
        self.version = 0
        self._trim()
        self._sweep()

    def close(self) -> None:
        self._index.close()

    def add(self, content: bytes, mail_from: str, rcpt_to: Sequence[str], received_at: int) -> int:
        """Keep a mail; returns its number. Raises ``OSError`` or ``sqlite3.Error``."""
        head = summary(content)
        values = (mail_from, json.dumps(list(rcpt_to)), head.subject, head.sender, head.recipients)
        search = "\n".join([*values[2:], mail_from, *rcpt_to]).casefold()
        self._index.execute("BEGIN IMMEDIATE")
        try:
            found = self._index.execute(
                "INSERT INTO mails (received_at, mail_from, rcpt_to, subject, sender,"
                " recipients, size, search) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                (received_at, *values, len(content), search),
            ).fetchone()
            number = int(found[0])
            self._file(number).write_bytes(content)
        except BaseException:
            self._index.execute("ROLLBACK")
            raise
        self._index.execute("COMMIT")
        self.version += 1
        self._trim()
        return number

    def newest(self, query: str = "", limit: int = 100, before: int | None = None) -> list[Mail]:
        """The newest mails first, those below ``before``, with every word of ``query``."""
        where, values = self._matching(query)
        if before is not None:
            where += " AND id < ?"
            values.append(before)
        rows = self._index.execute(
            f"SELECT {_COLUMNS} FROM mails WHERE {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
            [*values, limit],
        )
        return [_mail(row) for row in rows]

    def count(self, query: str = "") -> int:
        where, values = self._matching(query)
        found = self._index.execute(f"SELECT count(*) FROM mails WHERE {where}", values)  # noqa: S608
        return int(found.fetchone()[0])

    def get(self, number: int) -> Mail | None:
        found = self._index.execute(
            f"SELECT {_COLUMNS} FROM mails WHERE id = ?",  # noqa: S608
            (number,),
        ).fetchone()
        return _mail(found) if found else None

    def source(self, number: int) -> bytes | None:
        """The mail as it came, byte for byte; None when it is not kept."""
        try:
            return self._file(number).read_bytes() if self.get(number) else None
        except FileNotFoundError:
            return None

    def delete(self, number: int) -> bool:
        """Whether there was such a mail; it is gone now."""
        gone = self._index.execute("DELETE FROM mails WHERE id = ?", (number,)).rowcount > 0
        self._file(number).unlink(missing_ok=True)
        self.version += gone
        return gone

    def clear(self) -> int:
        """Delete every mail; returns how many there were."""
        gone = self._index.execute("DELETE FROM mails").rowcount
        self._sweep()
        self.version += 1
        return gone

    def _trim(self) -> None:
        rows = self._index.execute(
            "DELETE FROM mails WHERE id IN"
            " (SELECT id FROM mails ORDER BY id DESC LIMIT -1 OFFSET ?) RETURNING id",
            (self._keep,),
        ).fetchall()
        for (number,) in rows:
            self._file(number).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove files that no row speaks of: left by a death between the two."""
        known = {f"{row[0]}.eml" for row in self._index.execute("SELECT id FROM mails")}
        for file in self._directory.glob("*.eml"):
            if file.name not in known:
                file.unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self._directory / f"{number}.eml"

    @staticmethod
    def _matching(query: str) -> tuple[str, list[object]]:
        words = query.casefold().split()[:10]
        # instr, not LIKE: '%' and '_' are what they are.
        return " AND ".join(["1", *("instr(search, ?) > 0" for _ in words)]), list(words)


def _mail(row: Sequence[object]) -> Mail:
    number, received_at, mail_from, rcpt_to, subject, sender, recipients, size = row
    return Mail(
        int(str(number)),
        int(str(received_at)),
        str(mail_from),
        tuple(json.loads(str(rcpt_to))),
        str(subject),
        str(sender),
        str(recipients),
        int(str(size)),
    )
