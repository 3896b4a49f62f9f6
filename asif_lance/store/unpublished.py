"""Rows that another program wrote into our table of pairs: which of them can be pairs.

Plain LanceDB adds, changes and deletes rows at head, where no model version sees them. What is to
be part of one has to be a pair as `add` makes them: an id that is there once, a caption, and two
vectors of unit length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import pair_rows
from asif_lance.records import BoolArray, Float64Array

# |a|² of unit vectors is that near to 1, as float16 rounds each number by a 2^-11th at most.
_MOST_OFF_UNIT = 2.0**-9
_VECTORS = ("image_vector", "text_vector")
_TWICE = "its id is there already"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be a pair.

    Attributes:
        pair_id: its id, if it has one.
        reason: one short phrase.
        address: Lance's own, at the head that was looked at.
    """

    pair_id: str
    reason: str
    address: int


def find_bad_rows(
    head: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]
) -> list[BadRow]:
    """The rows of these fragments that cannot be pairs."""
    if not fragments:
        return []
    bad: dict[int, BadRow] = {}
    ids: list[pa.Array] = []
    for batch in _scan(head, fragments):
        ids.append(batch["pair_id"])
        for reason, mask in _find_faults(batch):
            for place in np.flatnonzero(mask).tolist():
                address = batch["_rowaddr"][place].as_py()
                name = batch["pair_id"][place].as_py() or ""
                bad.setdefault(address, BadRow(name, reason, address))
    own = {fragment.fragment_id for fragment in fragments}
    for row in _find_repeated(head, pa.chunked_array(ids, pa.string()), own):
        bad.setdefault(row.address, row)
    return sorted(bad.values(), key=lambda row: row.address)


def _scan(
    head: lance.LanceDataset, fragments: Sequence[lance.LanceFragment]
) -> Iterator[pa.RecordBatch]:
    columns = ["pair_id", "caption", *_VECTORS]
    scanner = head.scanner(columns=columns, fragments=list(fragments), with_row_address=True)
    yield from scanner.to_batches()


def _find_faults(batch: pa.RecordBatch) -> Iterator[tuple[str, BoolArray]]:
    ids = pc.utf8_trim_whitespace(pc.fill_null(batch["pair_id"], ""))
    yield "it has no id", pc.equal(ids, "").to_numpy(zero_copy_only=False)
    for name in ("pair_id", "caption"):
        holds = pc.fill_null(pc.match_substring(batch[name], "\0"), False)
        yield f"its {name} holds a NUL character", holds.to_numpy(zero_copy_only=False)
    # An empty one is a caption: pairs of brought vectors may have no other.
    yield "it has no caption", batch["caption"].is_null().to_numpy(zero_copy_only=False)
    for name in _VECTORS:
        with np.errstate(over="ignore", invalid="ignore"):
            off = ~(np.abs(_squares(batch[name]) - 1.0) <= _MOST_OFF_UNIT)
        yield f"its {name} has not the length 1", off


def _squares(column: pa.FixedSizeListArray) -> Float64Array:
    """|a|² of each vector; NaN for null."""
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    rows = values.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(column), width)
    squares: Float64Array = np.einsum("ij,ij->i", rows, rows)
    squares[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return squares


def _find_repeated(
    head: lance.LanceDataset, ids: pa.ChunkedArray, own: set[int]
) -> Iterator[BadRow]:
    """Rows of the fragments `own` whose id a row elsewhere, or an earlier one, has."""
    found = list(pair_rows.find_rows(head, pc.unique(pc.drop_null(ids))))
    if not found:
        return
    rows = pl.DataFrame(pl.from_arrow(pa.concat_tables(found)))
    repeated = rows.filter(rows["pair_id"].is_duplicated())
    places: dict[str, list[int]] = {}
    for pair_id, address in repeated.select("pair_id", "_rowaddr").iter_rows():
        places.setdefault(pair_id, []).append(address)
    for pair_id, addresses in places.items():
        elsewhere = [a for a in addresses if a >> 32 not in own]
        here = sorted(a for a in addresses if a >> 32 in own)
        for address in here if elsewhere else here[1:]:
            yield BadRow(pair_id, _TWICE, address)
