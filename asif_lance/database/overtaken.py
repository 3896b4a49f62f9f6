"""What a writer had begun who lost the lease: nothing of it comes in, or it is taken back.

A paused or killed writer's requests may reach the store at any later moment. So whoever takes over
a lease that was not given back first restores every table to what it is: Lance lets nothing go
together with that which was begun before, no rows, fragments or indices. What Lance lets pass all
the same, to restore a state or to change settings, carries the epoch of its lease: the next change,
and a forget after it has cleaned up, looks whether heads do, and takes it back.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import lance

from asif_lance.database.commits import exclude_begun, find_excluded, find_sound, is_overtaken
from asif_lance.database.registry import TABLES
from asif_lance.database.tables import find_table, table_uri
from asif_lance.database.tags import touch_tags

_THREADS = 8  # which wait for the store


def exclude_overtaken(uri: str) -> None:
    """Keeps every commit out that was begun under an earlier lease; nothing else changes."""
    for table in TABLES:
        head = find_table(uri, table.name)
        if head is not None:
            exclude_begun(head, head.version)
    touch_tags(table_uri(uri, "pairs"))


def undo_overtaken(uri: str) -> bool:
    """Takes back what an overtaken writer made of tables all the same; says whether it did.

    Nothing is read where no lease was ever taken over, as in folders.
    """
    if not find_excluded(uri):
        return False
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda table: _find_overtaken(uri, table.name), TABLES))
    overtaken = [head for head in found if head is not None]
    for head in overtaken:
        exclude_begun(head, find_sound(head))
    return bool(overtaken)


def _find_overtaken(uri: str, name: str) -> lance.LanceDataset | None:
    """A table whose head an overtaken writer has made; None for any other."""
    head = find_table(uri, name)
    return head if head is not None and is_overtaken(head, head.version) else None
