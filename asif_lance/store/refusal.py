"""Forgotten pairs stay out: what is added, and what others put at head, is looked up in receipts.

The caller holds the write lock, so no receipt comes between the look and the write.
"""

from __future__ import annotations

import lance
import pyarrow as pa

from asif_lance.database import data_files, find_changes
from asif_lance.forgetting import LOOKED_UP_COLUMNS, ForgottenPairs, Waiver


def check_added(
    uri: str, rows: pa.Table, looked_up: ForgottenPairs | None, waiver: Waiver | None
) -> None:
    """Passes pairs that may be added, and keeps on record what a waiver lets in.

    Args:
        uri: the database.
        rows: with the columns of `pairs`.
        looked_up: what the caller has looked the rows up in; they are looked up again only if a
            receipt came since.
        waiver: where the caller has not.

    Raises:
        ForgottenPairError: some were forgotten.
        KeysError: nobody can tell, for a key is missing.
    """
    if not len(rows):
        return
    if looked_up is not None:
        looked_up.record()
        if looked_up.is_current():
            return
    forgotten = looked_up.renew() if looked_up else ForgottenPairs(uri, waiver=waiver)
    forgotten.refuse(forgotten.find(rows))
    forgotten.record()


def check_unpublished(
    uri: str,
    latest: lance.LanceDataset | None,
    head: lance.LanceDataset,
    looked_up: ForgottenPairs | None,
    waiver: Waiver | None,
) -> None:
    """Passes a head without forgotten pairs that `latest` has not.

    Read are only files that `latest` does not have and the caller has not looked at.

    Args:
        uri: the database.
        latest: the pairs table as the newest version has it.
        head: the same as it is.
        looked_up: knows the files that the caller added itself.
        waiver: where the caller has no such thing.

    Raises:
        ForgottenPairError: there are some.
        KeysError: nobody can tell, for a key is missing.
    """
    if looked_up is not None and not looked_up.is_current():
        looked_up = looked_up.renew()
    published = set(map(data_files, latest.get_fragments())) if latest else set()
    new = [f for f in head.get_fragments() if data_files(f) not in published]
    if looked_up is not None:
        new = [fragment for fragment in new if not looked_up.has_seen(fragment)]
    if not new:
        return
    forgotten = looked_up or ForgottenPairs(uri, waiver=waiver)
    found = _find_forgotten(forgotten, head, new)
    if found:  # moved to other files, what `latest` has already is nothing new
        changes = find_changes(latest, head)
        found = {i: found[i] for i in (*changes.added, *changes.changed) if i in found}
    forgotten.refuse(found, at_head=True)
    forgotten.record()


def _find_forgotten(
    forgotten: ForgottenPairs, head: lance.LanceDataset, fragments: list[lance.LanceFragment]
) -> dict[str, str]:
    found: dict[str, str] = {}
    if forgotten.knows_any():
        scanner = head.scanner(columns=list(LOOKED_UP_COLUMNS), fragments=fragments)
        for batch in scanner.to_batches():
            found |= forgotten.find(pa.Table.from_batches([batch]))
    return found
