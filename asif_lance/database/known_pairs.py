"""Which pairs a table has, looked up by id again and again while the table grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.database.fragments import live_rows_key
from asif_lance.records import Int64Array

UInt64Array = NDArray[np.uint64]

# A row address is its fragment's id in the upper and its place therein in the lower 32 bits.
_PLACE_BITS = np.uint64(32)


class HashTable:
    """A growing table of 64-bit hashes and 64-bit values, 16 bytes an entry.

    Entries lie in sorted runs, each at least twice as long as the next: what is added is merged
    into the runs of its own length, so that each entry moves a few times only.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[UInt64Array, UInt64Array]] = []

    def add(self, hashes: UInt64Array, values: UInt64Array) -> None:
        """Add n entries; equal hashes may have several values."""
        if not len(hashes):
            return
        while self._runs and len(self._runs[-1][0]) <= 2 * len(hashes):
            before = self._runs.pop()
            hashes, values = (
                np.concatenate(pair) for pair in zip(before, (hashes, values), strict=True)
            )
        order = np.argsort(hashes, kind="stable")  # linear where runs are merged
        self._runs.append((hashes[order], values[order]))

    def find(self, hashes: UInt64Array) -> tuple[Int64Array, UInt64Array]:
        """The entries with these hashes.

        Returns:
            (e,) which of the hashes each entry has, and (e,) its value.
        """
        places, values = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        order = np.argsort(hashes)  # neighbours are found far quicker, one after the other
        hashes = hashes[order]
        for own, held in self._runs:
            first = np.searchsorted(own, hashes)
            entries = np.flatnonzero(own[np.minimum(first, len(own) - 1)] == hashes)
            while len(entries):
                places.append(order[entries])
                values.append(held[first[entries]])
                first[entries] += 1
                entries = entries[first[entries] < len(own)]
                entries = entries[own[first[entries]] == hashes[entries]]
        return np.concatenate(places), np.concatenate(values)

    def drop_upper(self, upper: UInt64Array) -> None:
        """Drop the entries whose value has one of these numbers in its upper 32 bits."""
        kept = [~np.isin(values >> _PLACE_BITS, upper) for _, values in self._runs]
        both = zip(self._runs, kept, strict=True)
        runs = [(hashes[keep], values[keep]) for (hashes, values), keep in both]
        self._runs = [run for run in runs if len(run[0])]


def hash_ids(ids: pl.Series, seed: int = 0) -> UInt64Array:
    """(n,) hashes of n ids; the same in one process only."""
    hashes: UInt64Array = ids.hash(seed).to_numpy()
    return hashes


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """Those of some ids that a table has.

    Attributes:
        places: (f,) which of the ids they are, no order.
        addresses: (f,) where their rows are in the table.
        rows: f rows, with `pair_id` and the columns that were asked for.
    """

    places: Int64Array
    addresses: UInt64Array
    rows: pa.Table


class KnownPairs:
    """Where the live pairs of a table are: 16 bytes a pair, however long their ids.

    Hashes say where an id may be; the ids that are stored there decide. For one thread. Another
    column of strings may stand for the ids, which several rows may share then.
    """

    def __init__(self, column: str = "pair_id") -> None:
        self._column = column
        self._table: lance.LanceDataset | None = None
        self._fragments: frozenset[tuple[object, ...]] = frozenset()
        self._addresses = HashTable()

    @staticmethod
    def of(table: lance.LanceDataset, ids: pa.Array, addresses: UInt64Array) -> KnownPairs:
        """Those of a table where only its pairs with some ids will be asked for, and newer ones."""
        known = KnownPairs()
        known._table = table
        known._fragments = frozenset(map(_identify, table.get_fragments()))
        known._addresses.add(_hash(ids), addresses)
        return known

    def refresh(self, table: lance.LanceDataset) -> None:
        """Take in what the table has gained and lost since the last time."""
        if self._table is not None and self._table.version == table.version:
            return
        fragments = {_identify(fragment): fragment for fragment in table.get_fragments()}
        gone = self._fragments - fragments.keys()
        if gone:
            self._addresses.drop_upper(np.array([key[0] for key in gone], np.uint64))
        new = [fragments[key] for key in fragments.keys() - self._fragments]
        if new:
            scanner = table.scanner(columns=[self._column], with_row_address=True, fragments=new)
            parts = [
                (_hash(b[self._column]), b["_rowaddr"].to_numpy()) for b in scanner.to_batches()
            ]
            if parts:
                self._addresses.add(*map(np.concatenate, zip(*parts, strict=True)))
        self._table, self._fragments = table, frozenset(fragments)

    def may_have(self, ids: pa.Array) -> bool:
        """Whether the table may have had one of n ids when it was last looked at, if ever."""
        return self._table is None or len(self._addresses.find(_hash(ids))[0]) > 0

    def find(self, ids: pa.Array, columns: Sequence[str] = ()) -> FoundPairs:
        """Those of n distinct ids that the table had when it was last looked at."""
        places, addresses = self._addresses.find(_hash(ids))
        if self._table is None or not len(places):
            nothing = pa.table({self._column: pa.array([], pa.string())})
            return FoundPairs(places, addresses, nothing)
        order = np.argsort(addresses)  # far quicker to read
        places, addresses = places[order], addresses[order]
        rows = self._table._take_rows(pa.array(addresses), columns=[self._column, *columns])
        right = pc.equal(rows[self._column], ids.take(pa.array(places))).to_numpy()
        return FoundPairs(places[right], addresses[right], rows.filter(pa.array(right)))


def _identify(fragment: lance.LanceFragment) -> tuple[object, ...]:
    """Its id comes first; ids are given again after a rollback, so that its file counts too."""
    return (fragment.fragment_id, *live_rows_key(fragment))


def _hash(ids: pa.Array) -> UInt64Array:
    return hash_ids(pl.Series(pl.from_arrow(ids), dtype=pl.String))
