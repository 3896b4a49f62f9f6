"""Where some pairs lie: in which fragments on disk, and in which states of the table.

States share fragments, so each fragment is read once, soft-deleted rows included. A fragment is
known by its data files; what a state has deleted of it is a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import table_uri
from asif_lance.progress import track
from asif_lance.records import Int64Array

FragmentKey = tuple[str, ...]

_PLACE_MASK = 2**32 - 1


def find_key(fragment: lance.LanceFragment) -> FragmentKey:
    """The data files of a fragment: equal keys are equal rows, whatever each state deleted."""
    return tuple(file.path for file in fragment.metadata.files)


@dataclass(frozen=True, slots=True)
class Touched:
    """A fragment that holds rows to be forgotten.

    Attributes:
        lance_version: a state that has it.
        fragment_id: its id there.
        rows: how many rows it holds, soft-deleted ones included.
        places: (n,) ascending positions of the rows to be forgotten.
        pair_ids: their ids, in the same order.
        size: bytes on disk.
    """

    lance_version: int
    fragment_id: int
    rows: int
    places: Int64Array
    pair_ids: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Survey:
    """What some pairs take up in the pairs table of a database.

    Attributes:
        uri: the database.
        states: the Lance versions that were looked at.
        touched: fragments with rows of the pairs, by their files.
        highest_id: no fragment of these states has a greater id.
    """

    uri: str
    states: tuple[int, ...]
    touched: dict[FragmentKey, Touched] = field(default_factory=dict)
    highest_id: int = 0

    @cached_property
    def found(self) -> frozenset[str]:
        """The ids that were found at all."""
        return frozenset(i for fragment in self.touched.values() for i in fragment.pair_ids)

    def find_in_state(
        self, state: lance.LanceDataset
    ) -> list[tuple[FragmentKey, lance.LanceFragment]]:
        """The touched fragments that a state has, with their keys."""
        fragments = [(find_key(fragment), fragment) for fragment in state.get_fragments()]
        return [(key, fragment) for key, fragment in fragments if key in self.touched]


def survey_states(uri: str, states: Iterable[int], pair_ids: Iterable[str]) -> Survey:
    """Looks for pairs in these states of the pairs table (Lance versions)."""
    wanted = pa.array(pair_ids, pa.string())
    result = Survey(uri, tuple(sorted(set(states))))
    seen: set[FragmentKey] = set()
    highest = 0
    for version in track("look for pairs in versions", result.states):
        state = lance.dataset(table_uri(uri, "pairs"), version=version)
        for fragment in state.get_fragments():
            highest = max(highest, fragment.fragment_id)
            if find_key(fragment) not in seen:
                seen.add(find_key(fragment))
                _survey_fragment(result, state, fragment, wanted)
    return Survey(uri, result.states, result.touched, highest)


def _survey_fragment(
    result: Survey, state: lance.LanceDataset, fragment: lance.LanceFragment, wanted: pa.Array
) -> None:
    ids = read_physical_rows(state, fragment, ["pair_id"]).read_all()["pair_id"]
    hits = np.flatnonzero(pc.is_in(ids, wanted).to_numpy())
    if len(hits):
        result.touched[find_key(fragment)] = Touched(
            lance_version=state.version,
            fragment_id=fragment.fragment_id,
            rows=fragment.physical_rows,
            places=hits.astype(np.int64),
            pair_ids=tuple(ids.take(hits).to_pylist()),
            size=sum(file.file_size_bytes or 0 for file in fragment.metadata.files),
        )


def read_physical_rows(
    state: lance.LanceDataset, fragment: lance.LanceFragment, columns: list[str] | None = None
) -> pa.RecordBatchReader:
    """All rows of a fragment in their order on disk, the soft-deleted ones included.

    Lance shows those only together with `_rowid`, which is dropped here (it is null for them).
    """
    names = columns or state.schema.names
    scanner = state.scanner(
        columns=names,
        fragments=[fragment],
        include_deleted_rows=True,
        with_row_id=True,
        scan_in_order=True,
    )
    reader = scanner.to_reader()
    schema = pa.schema([reader.schema.field(name) for name in names], state.schema.metadata)
    batches = (batch.select(names) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)


def find_live_places(state: lance.LanceDataset, fragment: lance.LanceFragment) -> Int64Array:
    """Positions within the fragment of the rows that this state has not deleted, ascending."""
    if fragment.metadata.deletion_file is None:
        return np.arange(fragment.physical_rows)
    scanner = state.scanner(columns=[], fragments=[fragment], with_row_address=True)
    addresses = scanner.to_table()["_rowaddr"].to_numpy()
    return np.sort(addresses & _PLACE_MASK).astype(np.int64)
