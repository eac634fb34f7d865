"""In: a schema in SQL. Out: its tables in SQLite on disk, so that ten million rows need little memory.

They are in a nameless temporary file in TMPDIR, deleted as soon as it is opened, so that a kill leaves
nothing behind.
"""

from __future__ import annotations

import sqlite3

_SETTINGS = """
PRAGMA journal_mode = OFF;      -- nobody reads this file after a crash
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;     -- 64 MiB, the most that it takes however many rows there are
"""


def temporary_tables(schema: str) -> sqlite3.Connection:
    """Return the tables, for one thread at a time. Autocommit is off: many inserts are one transaction."""
    database = sqlite3.connect("", check_same_thread=False)  # an empty name: SQLite's own temporary file
    database.executescript(_SETTINGS + schema)
    return database
