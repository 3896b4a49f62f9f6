"""What a database keeps beside its pairs, taken over by another one that holds the same pairs.

Receipts go along as they are, so that what was forgotten stays out of the copy, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import append_rows, read_table
from asif_lance.errors import DatabaseError
from asif_lance.store.pair_store import PairStore

# By what their rows are known. The receipts go first: sealed hashes without one count as its loss.
_RECORDS = {
    "receipts": ("receipt_id",),
    "sealed_hashes": ("receipt_id",),
    "waivers": ("waiver_id", "created_at"),
    "rejects": ("ingest_id",),
}


def copy_records(source: PairStore, target: PairStore) -> int:
    """Add the receipts, waivers and rejects of one database that another has not.

    Returns:
        How many receipts were new.

    Raises:
        DatabaseError: both have receipts of their own, which no chain can hold.
    """
    with source.writing("copy records"):  # while nothing is being forgotten
        theirs = {name: read_table(source.uri, name) for name in _RECORDS}
    with target.writing("copy records"):
        new = {
            name: _new_rows(rows, read_table(target.uri, name), _RECORDS[name])
            for name, rows in theirs.items()
        }
        count = len(new["receipts"])
        if count and len(theirs["receipts"]) - count < target.epoch():
            raise DatabaseError(
                f"{source.uri} and {target.uri} have each forgotten pairs of their own since they "
                "parted: name another place"
            )
        for name, rows in new.items():
            append_rows(target.uri, name, rows)
    return count


def _new_rows(rows: pa.Table, known: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows that differ from all known ones in these columns."""
    if not len(rows):
        return rows
    keys, there = (_join(table, columns) for table in (rows, known))
    return rows.filter(pc.invert(pc.is_in(keys, there)))


def _join(table: pa.Table, columns: Sequence[str]) -> pa.Array:
    parts = [table[name].combine_chunks().cast(pa.string()) for name in columns]
    return pc.binary_join_element_wise(*parts, " ")
