"""What a writer had begun who lost the lease: nothing of it comes in, or it is taken back.

A paused or killed writer's requests may reach the store at any later moment. So whoever takes over
a lease that was not given back first restores every table to what it is: Lance lets nothing go
together with that which was begun before, no rows, fragments or indices. Cleaning up, which may
remove that state, first does the same again. What Lance lets pass all
the same, to restore a state or to change settings, carries the epoch of its lease: the next change,
and a forget after it has cleaned up, looks whether head does, and takes it back.
"""

from __future__ import annotations

from typing import Any

import lance
from lance import LanceOperation

from asif_lance.database.commits import EPOCH_PROPERTY, commit, exclude_older
from asif_lance.database.lease import find_lease
from asif_lance.database.registry import TABLES
from asif_lance.database.tables import find_table, table_uri
from asif_lance.database.tags import touch_tags


def exclude_overtaken(uri: str) -> None:
    """Keeps every commit out that was begun under an earlier lease; nothing else changes."""
    for table in TABLES:
        head = find_table(uri, table.name)
        if head is not None:
            exclude_older(head)
    touch_tags(table_uri(uri, "pairs"))


def undo_overtaken(uri: str) -> bool:
    """Takes back what an overtaken writer made of the pairs all the same; says whether it did.

    Nothing is read where no lease was ever taken over, as in folders.
    """
    lease = find_lease(uri)
    if lease is None or not lease.state.excluded:
        return False
    head = find_table(uri, "pairs")
    if head is None or not _is_overtaken(head, head.version, lease.state.excluded):
        return False
    older = (version["version"] for version in reversed(head.versions()))
    sound = (v for v in older if not _is_overtaken(head, v, lease.state.excluded))
    commit(head, LanceOperation.Restore(next(sound)))
    return True


def _is_overtaken(table: lance.LanceDataset, version: int, excluded: int) -> bool:
    """Whether a state was made under a lease from before the last taking over.

    What carries no epoch was not made by `commit`, and Lance has kept it out.
    """
    transaction: Any = table.read_transaction(version)
    properties = transaction.transaction_properties if transaction else None
    epoch = (properties or {}).get(EPOCH_PROPERTY)
    return epoch is not None and int(epoch) < excluded
