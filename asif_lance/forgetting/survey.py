"""Where some pairs lie: in which fragments on disk, and in which states of the table.

States share fragments, so each state is opened once, and of its fragments only those are read that
no state looked at before had, all in one pass; soft-deleted rows included. The newest comes first:
it still has what the versions before it added. A fragment is known by its data files; what a state
has deleted of it is a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceOperation
from lance.fragment import FragmentMetadata

from asif_lance.database import (
    FragmentKey,
    data_files,
    open_table,
    read_transaction,
    storage_errors,
)
from asif_lance.errors import DatabaseError
from asif_lance.progress import track
from asif_lance.records import Int64Array

_PLACE_MASK = 2**32 - 1


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


@dataclass(frozen=True, slots=True)
class TouchedPart:
    """What a state has of a touched fragment; states with the same deletions share it.

    Attributes:
        key: names the fragment.
        metadata: the fragment as the state names it.
        forgotten: how many live rows are to be forgotten.
        shown: the ids of these.
        deleted: (n,) ascending positions of the rows that the state has deleted and nobody
            forgets, among the rows that stay.
    """

    key: FragmentKey
    metadata: FragmentMetadata
    forgotten: int
    shown: frozenset[str]
    deleted: Int64Array


@dataclass(frozen=True, slots=True)
class State:
    """What was seen of a state of the table.

    Attributes:
        version: its Lance version.
        rows: how many live rows it has.
        parts: what it has of touched fragments.
        indices: names of its search indices.
        logs_keys: whether its own log may name pairs.
    """

    version: int
    rows: int
    parts: tuple[TouchedPart, ...]
    indices: tuple[str, ...]
    logs_keys: bool

    @property
    def must_change(self) -> bool:
        """Whether the state holds something of the pairs; an index may."""
        return bool(self.parts or self.indices or self.logs_keys)

    @property
    def shown(self) -> frozenset[str]:
        """The ids of the pairs that it shows."""
        return frozenset[str]().union(*(part.shown for part in self.parts))


@dataclass
class Survey:
    """What some pairs take up in the pairs table of a database.

    Attributes:
        uri: the database.
        wanted: ids of the pairs.
        states: the states that were looked at, by their Lance versions.
        touched: fragments with rows of the pairs, by their files.
        fragments: a state that has it and its id there, of every fragment, by their files.
        highest_id: no fragment of these states has a greater id.
    """

    uri: str
    wanted: pa.Array
    states: dict[int, State] = field(default_factory=dict)
    touched: dict[FragmentKey, Touched] = field(default_factory=dict)
    fragments: dict[FragmentKey, tuple[int, int]] = field(default_factory=dict)
    highest_id: int = 0
    _parts: dict[object, TouchedPart] = field(default_factory=dict)

    @cached_property
    def found(self) -> frozenset[str]:
        """The ids that were found at all."""
        return frozenset(i for fragment in self.touched.values() for i in fragment.pair_ids)

    @property
    def index_names(self) -> tuple[str, ...]:
        """Names of the search indices that the states have."""
        return tuple(sorted({name for state in self.states.values() for name in state.indices}))

    def open(self, version: int) -> lance.LanceDataset:
        """A state of the table; all share what is known of their files."""
        with storage_errors(self.uri):
            return self._head.checkout_version(version)

    @cached_property
    def _head(self) -> lance.LanceDataset:
        return open_table(self.uri, "pairs")

    def add_state(self, version: int) -> None:
        """Looks at one more state."""
        state = self.open(version)
        # Keys once: Lance gathers a fragment's metadata anew each time that it is asked.
        fragments = [(data_files(fragment), fragment) for fragment in state.get_fragments()]
        self._find_rows(state, {key: f for key, f in fragments if key not in self.fragments})
        self.highest_id = max([self.highest_id, *(f.fragment_id for _, f in fragments)])
        touched = [(key, fragment) for key, fragment in fragments if key in self.touched]
        if touched:
            _check_blobs(self.uri, state.schema)
        self.states[version] = State(
            version=version,
            rows=state.count_rows(),
            parts=tuple(self._find_part(state, *one) for one in touched),
            indices=tuple(index.name for index in state.describe_indices()),
            logs_keys=_logs_keys(state),
        )

    def _find_rows(
        self, state: lance.LanceDataset, fragments: Mapping[FragmentKey, lance.LanceFragment]
    ) -> None:
        """Looks for the pairs in fragments that no state before had."""
        places, ids = _find_ids(state, list(fragments.values()), self.wanted)
        end = 0
        for key, fragment in fragments.items():
            self.fragments[key] = (state.version, fragment.fragment_id)
            start, end = end, end + fragment.physical_rows
            first, last = np.searchsorted(places, [start, end]).tolist()
            if first < last:
                self.touched[key] = Touched(
                    lance_version=state.version,
                    fragment_id=fragment.fragment_id,
                    rows=fragment.physical_rows,
                    places=places[first:last] - start,
                    pair_ids=tuple(ids[first:last]),
                    size=sum(file.file_size_bytes or 0 for file in fragment.metadata.files),
                )

    def _find_part(
        self, state: lance.LanceDataset, key: FragmentKey, fragment: lance.LanceFragment
    ) -> TouchedPart:
        known = (key, fragment.deletion_file(), fragment.fragment_id)
        if known not in self._parts:
            touched = self.touched[key]
            live = np.zeros(touched.rows, np.bool_)
            live[_find_live_places(state, fragment)] = True
            forgotten = live[touched.places]
            ids = np.array(touched.pair_ids, dtype=object)[forgotten]
            kept = np.delete(live, touched.places)
            self._parts[known] = TouchedPart(
                key=key,
                metadata=fragment.metadata,
                forgotten=len(ids),
                shown=frozenset(ids),
                deleted=np.flatnonzero(~kept),
            )
        return self._parts[known]


def survey_states(uri: str, versions: Iterable[int], pair_ids: Iterable[str]) -> Survey:
    """Looks for pairs in states of the pairs table, given by their Lance versions."""
    survey = Survey(uri, pa.array(pair_ids, pa.string()))
    for version in track("look for pairs in versions", sorted(set(versions), reverse=True)):
        survey.add_state(version)
    return survey


def _find_ids(
    state: lance.LanceDataset, fragments: Sequence[lance.LanceFragment], wanted: pa.Array
) -> tuple[Int64Array, list[str]]:
    """Where fragments, end to end, have some ids, soft-deleted rows included; and these ids."""
    places, found, start = [np.empty(0, np.int64)], [], 0
    for batch in read_physical_rows(state, list(fragments), ["pair_id"]) if fragments else ():
        hits = np.flatnonzero(pc.is_in(batch["pair_id"], wanted).to_numpy(False))
        places.append(hits + start)
        found += batch["pair_id"].take(pa.array(hits)).to_pylist()
        start += len(batch)
    return np.concatenate(places), found


def read_physical_rows(
    state: lance.LanceDataset,
    fragments: list[lance.LanceFragment],
    columns: list[str] | None = None,
) -> pa.RecordBatchReader:
    """All rows of fragments in their order on disk, the soft-deleted ones included.

    Lance shows those only together with `_rowid`, which is dropped here (it is null for them).
    """
    names = columns or state.schema.names
    scanner = state.scanner(
        columns=names,
        fragments=fragments,
        include_deleted_rows=True,
        with_row_id=True,
        scan_in_order=True,
    )
    reader = scanner.to_reader()
    schema = pa.schema([reader.schema.field(name) for name in names], state.schema.metadata)
    batches = (batch.select(names) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _check_blobs(uri: str, schema: pa.Schema) -> None:
    """Passes schemas whose columns can be rewritten: of blobs Lance reads the places only."""
    for column in schema:
        if isinstance(column.type, pa.BaseExtensionType) and "blob" in column.type.extension_name:
            raise DatabaseError(
                f"{uri}: the pairs table has a column {column.name!r} of blobs in files of their "
                "own, which forgetting cannot rewrite; drop it with Lance's drop_columns, and "
                "prune the versions that have it"
            )


def _find_live_places(state: lance.LanceDataset, fragment: lance.LanceFragment) -> Int64Array:
    """Positions within the fragment of the rows that this state has not deleted."""
    if fragment.deletion_file() is None:
        return np.arange(fragment.physical_rows)
    scanner = state.scanner(columns=[], fragments=[fragment], with_row_address=True)
    addresses = scanner.to_table()["_rowaddr"].to_numpy()
    places: Int64Array = (addresses & _PLACE_MASK).astype(np.int64)
    return places


def _logs_keys(state: lance.LanceDataset) -> bool:
    """Whether a state's own log may name pairs: by a predicate, or a filter over merged keys."""
    transaction = read_transaction(state, state.version)
    operation = transaction.operation if transaction else None
    if isinstance(operation, LanceOperation.Delete):
        return bool(operation.predicate != "false")
    return isinstance(operation, LanceOperation.Update)
