"""What opening or making a database takes besides its tables."""

from __future__ import annotations

from asif_lance.database import find_table, local_path, read_pins, storage_errors
from asif_lance.errors import DatabaseError
from asif_lance.forgetting import interrupted, recover


def finish_forget(uri: str) -> str | None:
    """Finishes a forget that was killed, if possible; returns a note of it for the user.

    Readers can go on without: every version's name means a whole state at any time.
    """
    try:
        return recover(uri) if interrupted(uri) else None
    except DatabaseError as error:
        return f"an interrupted forget could not be finished yet: {error}"


def make_directory(uri: str) -> None:
    """Makes a local database's directory, if it is missing."""
    directory = local_path(uri)
    if directory is not None:
        with storage_errors(uri):
            directory.mkdir(parents=True, exist_ok=True)


def is_foreign(uri: str) -> bool:
    """Whether there is a `pairs` table that is in use, though no database of ours is there."""
    pairs = find_table(uri, "pairs")
    return pairs is not None and (not read_pins(pairs) or pairs.count_rows() > 0)
