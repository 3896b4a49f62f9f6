"""Receipts that are gone, though the table `sealed_hashes` got its row for them before.

A receipt is the last that a forget writes: a digest made after it would be a change after all that
the receipt says was searched. Without it the forgotten pairs would be let in again.
"""

from __future__ import annotations

from asif_lance.database.tables import local_path, read_table

#: The journal of a forget under way, in the database's directory; see `forgetting.journal`.
JOURNAL_FILE = ".asif-forget.jsonl"


def find_lost_receipts(uri: str) -> list[str]:
    """Ids of receipts that are gone; none while a forget is under way, or was killed.

    Raises:
        DatabaseError: one of the two tables cannot be read.
    """
    root = local_path(uri)
    expected = _read_ids(uri, "sealed_hashes")
    # In this order: who ends its forget meanwhile has stored the receipt before the journal goes.
    if root is None or not expected or (root / JOURNAL_FILE).exists():
        return []
    return sorted(expected - _read_ids(uri, "receipts"))


def _read_ids(uri: str, table: str) -> set[str]:
    return set(read_table(uri, table, ["receipt_id"])["receipt_id"].to_pylist())
