"""Rows of the pairs table by id: finding, deleting, and bringing them into the table's form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceOperation
from lance.fragment import FragmentMetadata, write_fragments
from numpy.typing import NDArray

from asif_lance.database.commits import commit, committing
from asif_lance.database.schemas import LATER, ROLE
from asif_lance.errors import DimensionError, InputError

# Forgetting rewrites whole fragments: small ones make it cheap, tiny ones make scans slow.
ROWS_PER_FRAGMENT = 10_000
# Every state of the table lists all of its fragments: a table of billions has larger ones.
_MOST_FRAGMENTS = 4_000

# A row address is its fragment's id in the upper and its place therein in the lower 32 bits.
_PLACE_BITS = 32


def fragment_rows(rows: int) -> int:
    """How many rows upkeep brings together in one fragment, of a table of so many."""
    return max(ROWS_PER_FRAGMENT, -(-rows // _MOST_FRAGMENTS))


def find_rows(dataset: lance.LanceDataset, ids: pa.Array) -> Iterator[pa.Table]:
    """Tables of `pair_id` and `_rowaddr` of the live rows that have one of the ids.

    Ids are compared here rather than in a filter for Lance: thousands of them make slow SQL.
    """
    scanner = dataset.scanner(columns=["pair_id"], with_row_address=True)
    # Arrow makes a set of the ids for each look into it: rows are looked up as many at once.
    for rows in _gather(scanner.to_batches(), len(ids)):
        found = rows.filter(pc.is_in(rows["pair_id"], ids))
        if len(found):
            yield found


def _gather(batches: Iterable[pa.RecordBatch], least: int) -> Iterator[pa.Table]:
    """Batches as tables with at least so many rows, but for the last."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += len(batch)
        if rows >= least:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def append(dataset: lance.LanceDataset, rows: pa.Table) -> int:
    """Adds rows that are not there, in fragments of ten thousand; returns how many."""
    if len(rows):
        commit(dataset, LanceOperation.Append(write_apart(dataset, rows)))
    return len(rows)


def write_apart(dataset: lance.LanceDataset, rows: pa.Table) -> list[FragmentMetadata]:
    """Writes fragments that no state of the table has yet."""
    return list(
        write_fragments(
            _drop_roles(rows), dataset, mode="append", max_rows_per_file=ROWS_PER_FRAGMENT
        )
    )


def _drop_roles(rows: pa.Table) -> pa.Table:
    """Rows without the column of roles if none has one: such files need not be asked for roles."""
    return rows.drop_columns([ROLE.name]) if rows[ROLE.name].null_count == len(rows) else rows


def replace(dataset: lance.LanceDataset, rows: pa.Table, old: NDArray[np.uint64]) -> None:
    """Puts rows in, and takes out those at the addresses `old`, in one commit."""
    if not len(old):
        append(dataset, rows)
        return
    updated, removed = _delete_rows(dataset, old)
    new = write_fragments(rows, dataset, mode="append", max_rows_per_file=ROWS_PER_FRAGMENT)
    commit(dataset, LanceOperation.Update(removed, updated, new))


def delete(dataset: lance.LanceDataset, ids: pa.Array) -> int:
    """Soft-deletes rows in one commit; returns how many.

    Rows are named by their addresses, so that no id and no predicate gets into Lance's log.
    """
    addresses = [batch["_rowaddr"].to_numpy() for batch in find_rows(dataset, ids)]
    return delete_at(dataset, np.concatenate(addresses)) if addresses else 0


def delete_at(dataset: lance.LanceDataset, rows: NDArray[np.uint64]) -> int:
    """Soft-deletes the rows with these addresses in one commit; returns how many."""
    updated, removed = _delete_rows(dataset, rows)
    commit(dataset, LanceOperation.Delete(updated, removed, "false"))
    return len(rows)


def _delete_rows(
    dataset: lance.LanceDataset, rows: NDArray[np.uint64]
) -> tuple[list[FragmentMetadata], list[int]]:
    """Fragments without the rows at these addresses, and the ids of those without any row left."""
    updated: list[FragmentMetadata] = []
    removed: list[int] = []
    for fragment_id in np.unique(rows >> _PLACE_BITS).tolist():
        places = rows[rows >> _PLACE_BITS == fragment_id] & (2**_PLACE_BITS - 1)
        left = dataset.get_fragment(fragment_id).delete_rows(places.tolist())
        if left is None:
            removed.append(fragment_id)
        else:
            updated.append(left)
    return updated, removed


def complete_columns(head: lance.LanceDataset) -> None:
    """Gives head the columns of today if it is a state of before them; no row is rewritten."""
    if lacking := [field for field in LATER if field.name not in head.schema.names]:
        with committing(head.uri):
            head.add_columns(lacking)


def add_ingest_time(pairs: pa.Table) -> pa.Table:
    """The rows with the time of now where they have no `ingested_at`."""
    if "ingested_at" in pairs.schema.names:
        return pairs
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC"))
    return pairs.append_column("ingested_at", pa.repeat(now, len(pairs)))


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with exactly the schema's columns and types; nullable columns may be missing.

    Raises:
        InputError: a column is unknown, missing or of a type that cannot be converted.
        DimensionError: vectors of another size.
    """
    unknown = sorted(set(rows.schema.names) - set(schema.names))
    if unknown:
        raise InputError(
            f"pairs have no column {unknown[0]!r}; there are: {', '.join(schema.names)}"
        )
    return pa.table([_convert_column(rows, field) for field in schema], schema=schema)


def _convert_column(rows: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in rows.schema.names:
        if not field.nullable:
            raise InputError(f"pairs need a column {field.name!r}")
        return pa.chunked_array([pa.nulls(len(rows), field.type)])
    column = rows[field.name]
    _check_width(column, field)
    if column.null_count and not field.nullable:
        raise InputError(f"the column {field.name!r} of pairs has empty values")
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"the column {field.name!r} of pairs must be {field.type}") from error


def _check_width(column: pa.ChunkedArray, field: pa.Field) -> None:
    if pa.types.is_fixed_size_list(field.type) and pa.types.is_fixed_size_list(column.type):
        expected, given = field.type.list_size, column.type.list_size
        if expected != given:
            raise DimensionError(field.name, expected, given)


def drop_repeats(rows: pa.Table, key: str) -> pa.Table:
    """The rows without those whose key came up before."""
    first = pl.Series(pl.from_arrow(rows[key])).arg_unique()
    return rows if len(first) == len(rows) else rows.take(first.sort().to_arrow())
