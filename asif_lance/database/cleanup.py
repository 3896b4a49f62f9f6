"""Physical removal: rows of bookkeeping tables, and files that no version needs any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from asif_lance.database.pair_rows import delete_at
from asif_lance.database.tables import find_table, open_table, table_uri
from asif_lance.records import BoolArray

#: Chooses rows of a batch: as many bools as the batch has rows.
RowFilter = Callable[[pa.RecordBatch], BoolArray]


def clean_up(uri: str, table: str = "pairs") -> int:
    """Removes every file that neither head nor a tag needs; returns the bytes freed.

    Only under the lock: files of a write under way look like leftovers.
    """
    path = table_uri(uri, table)
    stats = lance.dataset(path).cleanup_old_versions(
        timedelta(0), delete_unverified=True, error_if_tagged_old_versions=False
    )
    # A kill between writing and renaming leaves `NAME#1`, which no cleanup knows.
    drafts = [draft for draft in Path(path).rglob("*#*") if draft.is_file()]
    freed = sum(draft.stat().st_size for draft in drafts)
    for draft in drafts:
        draft.unlink()
    return int(stats.bytes_removed) + freed


def purge_rows(uri: str, table: str, columns: Sequence[str], is_doomed: RowFilter) -> int:
    """Removes rows of a bookkeeping table, so that no file of it holds them; returns how many.

    Args:
        uri: the database.
        table: one without tags; nothing happens when it is not there.
        columns: those that `is_doomed` needs.
        is_doomed: says of each row of a batch whether it has to go.
    """
    dataset = find_table(uri, table)
    if dataset is None:
        return 0
    scanner = dataset.scanner(columns=list(columns), with_row_address=True)
    found = [b["_rowaddr"].to_numpy()[is_doomed(b)] for b in scanner.to_batches() if len(b)]
    addresses = np.concatenate(found) if found else np.empty(0, np.uint64)
    if len(addresses):
        delete_at(dataset, addresses)
    finish_deletes(uri, table)
    return len(addresses)


def finish_deletes(uri: str, table: str) -> None:
    """Makes soft deletes of a bookkeeping table final and drops its old versions."""
    dataset = open_table(uri, table)
    if any(fragment.metadata.deletion_file for fragment in dataset.get_fragments()):
        dataset.optimize.compact_files(materialize_deletions_threshold=0.0)
    clean_up(uri, table)
