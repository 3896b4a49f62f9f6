"""Physical removal: rows of bookkeeping tables, and files that no version needs any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from asif_lance.database.commits import committing, exclude_older
from asif_lance.database.object_cleanup import remove_unneeded
from asif_lance.database.open_ingests import list_open_ingests, spare_fragments
from asif_lance.database.pair_rows import delete_at
from asif_lance.database.tables import find_replaced, find_table, open_table, table_uri
from asif_lance.object_stores import is_remote
from asif_lance.records import BoolArray

#: Chooses rows of a batch: as many bools as the batch has rows.
RowFilter = Callable[[pa.RecordBatch], BoolArray]


_AT_ONCE = timedelta(0)


def clean_up(
    uri: str,
    table: str = "pairs",
    *,
    grace: timedelta = _AT_ONCE,
    passing_after: int | None = None,
    sparing: bool = True,
) -> int:
    """Removes every file that neither head nor a tag needs; returns the bytes freed.

    Only under the lock: files of a write under way look like leftovers.

    Args:
        uri: the database.
        table: which table of it.
        grace: states that were head within this time stay with all their files, for those who
            have them open; leftovers of killed writes go in any case.
        passing_after: states between this Lance version and head go at once all the same.
        sparing: what open ingests have written stays.
    """
    path = table_uri(uri, table)
    dataset = lance.dataset(path)
    if is_remote(uri):
        dataset = exclude_older(dataset)
        old = _list_old(dataset, grace, passing_after)
        return remove_unneeded(dataset, old, sparing=sparing and bool(list_open_ingests(uri)))
    chosen = _choose_states(dataset, grace, passing_after)
    if sparing and spare_fragments(uri, table):
        chosen["delete_unverified"] = False
    with committing(uri):
        stats = dataset.cleanup_old_versions(**chosen)
    return int(stats.bytes_removed) + _remove_drafts(path)


def _remove_drafts(path: str) -> int:
    """What a kill left between writing and renaming; objects are there as a whole or not at all."""
    drafts = [file for file in Path(path).rglob("*") if is_draft(file.name) and file.is_file()]
    freed = sum(draft.stat().st_size for draft in drafts)
    for draft in drafts:
        draft.unlink()
    return freed


def is_draft(name: str) -> bool:
    """Whether a file was left by a kill between writing and renaming: `.tmpXXXXXX` or `NAME#1`.

    Lance's cleanup knows neither outside its folder of data.
    """
    return name.startswith(".tmp") or "#" in name


def count_reclaimable(uri: str, table: str, *, grace: timedelta = _AT_ONCE) -> int:
    """How many bytes `clean_up` would free; 0 when there is no such table."""
    dataset = find_table(uri, table)
    if dataset is None:
        return 0
    chosen = _choose_states(dataset, grace, None)
    if list_open_ingests(uri):
        chosen["delete_unverified"] = False
    explained = dataset.explain_cleanup_old_versions(**chosen)
    return int(explained.stats.bytes_removed)


def _choose_states(
    dataset: lance.LanceDataset, grace: timedelta, passing_after: int | None
) -> dict[str, Any]:
    """Lance's arguments for removing the states that are old enough, and all leftovers."""
    chosen: dict[str, Any] = {"delete_unverified": True, "error_if_tagged_old_versions": False}
    if not grace:
        return {**chosen, "older_than": grace}
    # Head is never removed, and for an empty list Lance raises.
    old = _list_old(dataset, grace, passing_after)
    return {**chosen, "versions": sorted(old | {dataset.version})}


def _list_old(dataset: lance.LanceDataset, grace: timedelta, passing_after: int | None) -> set[int]:
    """The Lance versions that are old enough."""
    versions = {ref["version"] for ref in dataset.version_refs()}
    if not grace:
        return versions
    old = set(find_replaced(dataset, grace))
    if passing_after is not None:
        old |= {version for version in versions if version > passing_after}
    return old


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


def finish_deletes(uri: str, table: str, *, grace: timedelta = _AT_ONCE) -> int:
    """Makes soft deletes of a bookkeeping table final and drops its old versions, as `clean_up`."""
    dataset = open_table(uri, table)
    if any(fragment.metadata.deletion_file for fragment in dataset.get_fragments()):
        with committing(uri):
            dataset.optimize.compact_files(materialize_deletions_threshold=0.0)
    return clean_up(uri, table, grace=grace)
