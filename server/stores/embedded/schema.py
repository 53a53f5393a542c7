"""The tables of a collection's file, and how a file of an older version gets them."""

import sqlite3
from datetime import UTC, datetime

SCHEMA_VERSION = 4

# Every document version, chunk and removal takes the next number of one counter (state.sequence) as
# its primary key, so "what changed since n" is a range of primary keys in each table, and a version
# never comes back with other labels. A row of derivations says that a document version is level in a
# generation, with how many chunks.
SCHEMA = """
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    description TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    pruned INTEGER NOT NULL,
    documents INTEGER NOT NULL,
    next_generation INTEGER NOT NULL,
    fence TEXT NOT NULL
);
CREATE TABLE documents (
    version INTEGER PRIMARY KEY,
    document_id TEXT NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    content_hash TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    title TEXT NOT NULL,
    source TEXT NOT NULL,
    acl TEXT NOT NULL,
    metadata TEXT NOT NULL
);
CREATE TABLE texts (
    version INTEGER PRIMARY KEY REFERENCES documents ON DELETE CASCADE,
    text TEXT NOT NULL
);
CREATE TABLE tombstones (
    document_id TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE labels (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    version INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    PRIMARY KEY (key, value, version)
) WITHOUT ROWID;
CREATE INDEX labels_by_version ON labels (version);
CREATE TABLE generations (
    id INTEGER PRIMARY KEY,
    recipe TEXT NOT NULL,
    text_folder TEXT NOT NULL,
    text_sequence INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    edition INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    version INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    position INTEGER NOT NULL,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL,
    headings TEXT NOT NULL,
    text TEXT NOT NULL
);
CREATE UNIQUE INDEX chunks_by_version ON chunks (version, generation, position);
CREATE INDEX chunks_by_generation ON chunks (generation);
CREATE TABLE terms (
    chunk INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    terms TEXT NOT NULL
);
CREATE TABLE vectors (
    chunk INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    vector BLOB NOT NULL
);
CREATE TABLE windows (
    chunk INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    windows BLOB NOT NULL
);
CREATE TABLE sparse (
    chunk INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    version INTEGER NOT NULL,
    weights BLOB NOT NULL
);
CREATE TABLE removals (
    sequence INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    chunk_id TEXT NOT NULL
);
CREATE INDEX removals_by_chunk ON removals (chunk);
CREATE TABLE derivations (
    generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
    version INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    chunks INTEGER NOT NULL,
    PRIMARY KEY (generation, version)
) WITHOUT ROWID;
CREATE INDEX derivations_by_version ON derivations (version);
CREATE TABLE notes (
    key TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    value TEXT NOT NULL
) WITHOUT ROWID;
"""

# Version 1 knew one generation, which was live, and no fences and notes.
_FROM_1 = (
    "ALTER TABLE state ADD COLUMN next_generation INTEGER NOT NULL DEFAULT 2",
    "ALTER TABLE state ADD COLUMN fence TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE generations ADD COLUMN edition INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE generations ADD COLUMN state TEXT NOT NULL DEFAULT 'live'",
    "ALTER TABLE generations ADD COLUMN created_at TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX chunks_by_generation ON chunks (generation)",
    """CREATE TABLE derivations (
        generation INTEGER NOT NULL REFERENCES generations ON DELETE CASCADE,
        version INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        chunks INTEGER NOT NULL,
        PRIMARY KEY (generation, version)
    ) WITHOUT ROWID""",
    "CREATE INDEX derivations_by_version ON derivations (version)",
    """CREATE TABLE notes (
        key TEXT PRIMARY KEY, version INTEGER NOT NULL, value TEXT NOT NULL
    ) WITHOUT ROWID""",
    "INSERT INTO derivations SELECT s.generation, d.version, (SELECT count(*) FROM chunks c "
    "WHERE c.version = d.version AND c.generation = s.generation) FROM documents d, state s",
    "UPDATE generations SET created_at = coalesce((SELECT min(updated_at) FROM documents), :now)",
    "PRAGMA user_version = 2",
)
# Version 2 kept one vector a chunk.
_FROM_2 = (
    """CREATE TABLE windows (
        chunk INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
        windows BLOB NOT NULL
    )""",
    "PRAGMA user_version = 3",
)
# Version 3 kept no sparse weights.
_FROM_3 = (
    """CREATE TABLE sparse (
        chunk INTEGER PRIMARY KEY REFERENCES chunks ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        version INTEGER NOT NULL,
        weights BLOB NOT NULL
    )""",
    "PRAGMA user_version = 4",
)
_STEPS = {1: _FROM_1 + _FROM_2 + _FROM_3, 2: _FROM_2 + _FROM_3, 3: _FROM_3}


def migrate(connection: sqlite3.Connection) -> bool:
    """Give an older file the present tables, in one transaction; False for an unknown version."""
    if _version(connection) in _STEPS:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        connection.execute("BEGIN IMMEDIATE")
        try:
            # None where another process was faster.
            for statement in _STEPS.get(_version(connection), ()):
                connection.execute(statement, {"now": now} if ":now" in statement else {})
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return _version(connection) == SCHEMA_VERSION


def _version(connection: sqlite3.Connection) -> int:
    [found] = connection.execute("PRAGMA user_version").fetchone()
    return int(found)
