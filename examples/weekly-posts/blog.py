"""The blog's little database: python blog.py [TITLE]

Without a title it makes blog.db with three readers, two posts of just now and one of weeks
ago; with one it publishes a post now. Only Python's own library is needed.
"""

import sqlite3
import sys

TABLES = """
CREATE TABLE posts (title TEXT NOT NULL, url TEXT NOT NULL, summary TEXT, author TEXT,
                    published_at TEXT NOT NULL);
CREATE TABLE readers (email TEXT PRIMARY KEY, name TEXT, weekly INTEGER NOT NULL);
INSERT INTO readers VALUES ('ann@example.com', 'Ann Bell', 1);
INSERT INTO readers VALUES ('bob@example.com', NULL, 1);
INSERT INTO readers VALUES ('carl@example.com', 'Carl', 0);
"""
POST = "INSERT INTO posts VALUES (?, ?, ?, ?, datetime('now', ?))"


def publish(database, title, summary=None, author=None, when="0 days"):
    address = "https://blog.example/" + title.lower().replace(" ", "-")
    database.execute(POST, (title, address, summary, author, when))


with sqlite3.connect("blog.db") as database:
    if len(sys.argv) > 1:
        publish(database, sys.argv[1])
    else:
        database.executescript(TABLES)
        publish(database, "The old lighthouse", when="-20 days")
        publish(database, "Nets and knots", "How to mend what winter tore.", "Ann", "-9 seconds")
        publish(database, "A new ferry", "It runs on the hour.", when="-5 seconds")
database.close()
