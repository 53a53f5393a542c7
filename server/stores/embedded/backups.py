"""Copies of a collection's database, out to a file and in again."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

from server.errors import InvalidInput, StoreUnavailable
from server.stores.embedded.database import Database
from server.stores.embedded.states import read_states


def copy_out(database: Database, file: Path) -> Path:
    """Write the database as it is now to ``file``, in place of an older copy."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    try:
        part.unlink(missing_ok=True)
        database.copy(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file


def copy_in(file: Path, folder: Path) -> None:
    """Make a collection's folder of a copy. Raises InvalidInput."""
    if not file.is_file():
        raise InvalidInput(f"There is no file {file}.", field="file")
    folder.mkdir()
    copied = folder / "collection.db"
    shutil.copyfile(file, copied)
    try:
        with contextlib.closing(Database(copied)) as database:
            with database.reading() as connection:
                [found] = connection.execute("PRAGMA integrity_check(1)").fetchone()
                if found != "ok":
                    raise sqlite3.DatabaseError(found)
                read_states(connection)
            with database.writing() as connection:  # its maker waits elsewhere
                connection.execute("UPDATE state SET fence = ''")
    except (sqlite3.Error, StoreUnavailable) as error:
        raise InvalidInput(
            f"{file} is no backup of a collection that can be read here: {error}", field="file"
        ) from error
