"""Bringing a database up to date: its schema, and what a killed command left to be finished."""

from __future__ import annotations

from collections.abc import Iterator

from asif_lance.database import resolve_uri, run_migrations
from asif_lance.forgetting import recover


def migrate(uri: str) -> Iterator[str]:
    """Takes the pending migrations and finishes a forget that was killed; tells each as it is done.

    The migrations go first: finishing writes a receipt into today's tables.

    Args:
        uri: the database.

    Raises:
        DatabaseNotFoundError: there is none.
        NewerDatabaseError: it is newer than this release.
        DatabaseError: the forget cannot be finished here; the migrations are done.
    """
    uri = resolve_uri(uri)
    applied = run_migrations(uri)
    yield from (f"applied {name}" for name in applied)
    finished = recover(uri)
    if finished:
        yield finished
    if not applied and not finished:
        yield "nothing to do: the database is up to date"
