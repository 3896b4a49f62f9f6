"""One change of a database: under the lock, after repair, and by who may still write.

Refused are a release that does not know the database's migrations any more, and whoever would write
what it read before pairs were forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lance

from asif_lance.database import (
    Ledger,
    WriteLock,
    check_epoch,
    check_still_migrated,
    count_changes,
    join_tiny_fragments,
    keep_digests,
    open_table,
    storage_errors,
    undo_overtaken,
    version_record,
    write_functions,
)
from asif_lance.forgetting import interrupted, recover
from asif_lance.progress import note
from asif_lance.records import ModelVersion


@contextmanager
def begin_change(
    uri: str, command: str, *, timeout: float, since: int | None, midway: bool
) -> Iterator[None]:
    """Holds the write lock around a change, see `PairStore.writing`."""
    while True:
        with WriteLock(uri, timeout).hold(command), storage_errors(uri):
            check_still_migrated(uri)
            if not interrupted(uri):
                undo_overtaken(uri)
                if since is not None:
                    check_epoch(uri, since)
                yield
                if not midway:
                    keep_digests(uri)
                return
        told = recover(uri)
        if told:
            note(told)


def name_head(
    uri: str,
    latest: lance.LanceDataset | None,
    command: str,
    message: str,
    like: ModelVersion | None = None,
) -> ModelVersion | None:
    """Gives what is at head the next version's name; None when `latest` holds the same pairs.

    A version that is to be `like` one of another database gets its number and time, and is made
    in any case.
    """
    head = open_table(uri, "pairs")
    added, removed, changed = count_changes(latest, head)
    if not added + removed + changed and like is None:
        return None
    if write_functions(head):
        head = open_table(uri, "pairs")
    counts = {"added": added + changed, "removed": removed + changed}
    if join_tiny_fragments(head):
        head = open_table(uri, "pairs")
    row = {"command": command, "message": message, "pairs": head.count_rows(), **counts}
    if like is not None:
        row |= {"number": like.number, "created_at": like.created_at}
    return version_record(Ledger(uri).publish(head, row), head.version)
