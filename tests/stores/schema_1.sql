-- The tables of version 1, as they were released.
CREATE TABLE state (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    description TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    pruned INTEGER NOT NULL,
    documents INTEGER NOT NULL
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
    chunks INTEGER NOT NULL
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
CREATE TABLE removals (
    sequence INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    chunk_id TEXT NOT NULL
);
CREATE INDEX removals_by_chunk ON removals (chunk);
