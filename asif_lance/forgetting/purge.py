"""Takes rows out of every state of the pairs table, physically, rewriting each fragment once.

Lance cannot edit an old version, so each tagged one is made anew and its tags move over: restore
it at head, swap the touched fragments for their rewritten copies, delete again what it had deleted
of them. The copies are written once and shared by all versions. Head's own state comes last. Then
one cleanup removes the old versions with everything that only they used.

Every step is noted in the journal after it is done; one that a kill cut short is done again, and
what its first try left behind is cleaned up at the end. Tags only ever move from a whole old state
to a whole new one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance import LanceOperation
from lance.fragment import FragmentMetadata, write_fragments

from asif_lance.database import clean_up, table_uri
from asif_lance.errors import StorageError
from asif_lance.forgetting.journal import Journal
from asif_lance.forgetting.survey import (
    FragmentKey,
    Survey,
    Touched,
    find_key,
    find_live_places,
    read_physical_rows,
)
from asif_lance.progress import track
from asif_lance.records import Int64Array

# What journals call the writing of a copy; those of older releases have to be finished, too.
_COPIED = "twin"

# The columns of a deletion file's key: the new fragment and the rows deleted of it.
_DeletionKey = tuple[int, bytes]


@dataclass
class Purge:
    """One run over the pairs table, under the caller's lock.

    Attributes:
        uri: the database.
        head: the Lance version that was head when the purge began.
        survey: where the rows are.
        journal: gets a line for every step.
        copies: the rewritten fragments that are there already; None for one with no row left.
        moved: old Lance version -> new one, of the states that are done already.
    """

    uri: str
    head: int
    survey: Survey
    journal: Journal
    copies: dict[FragmentKey, FragmentMetadata | None] = field(default_factory=dict)
    moved: dict[int, int] = field(default_factory=dict)
    _deletions: dict[_DeletionKey, FragmentMetadata] = field(default_factory=dict)

    @classmethod
    def resume(cls, uri: str, head: int, survey: Survey, journal: Journal) -> Purge:
        """A purge with the steps done that its journal lists."""
        purge = cls(uri, head, survey, journal)
        for entry in journal.entries():
            if entry["event"] == _COPIED:
                purge.copies[tuple(entry["key"])] = _from_json(entry["fragment"])
            elif entry["event"] == "moved":
                purge.moved[entry["old"]] = entry["new"]
        return purge

    def run(self) -> int:
        """Makes all tagged states and head anew where they need it; returns the bytes freed."""
        self._write_copies()
        for version in track("make versions anew", list(self._order_states())):
            if version not in self.moved:
                self._renew(version)
            self._move_tags(version)
        return clean_up(self.uri)

    def _order_states(self) -> Iterator[int]:
        """The states that have to be made anew, head last so that it is head again."""
        head = self.moved.get(self.head, self.head)
        tagged = set(self._read_tags().values()) - {head}
        states = sorted(tagged | (self.moved.keys() - {self.head}))
        needed = [state for state in states if state in self.moved or self._needs_renewal(state)]
        yield from needed
        if needed or self.head in self.moved or self._needs_renewal(self.head):
            yield self.head

    def _needs_renewal(self, version: int) -> bool:
        state = self._open(version)
        return bool(self.survey.find_in_state(state) or _leaks(state))

    # Fragments

    def _write_copies(self) -> None:
        for key, touched in track("rewrite fragments", self.survey.touched.items()):
            if key not in self.copies:
                copy = self._write_copy(touched)
                self.copies[key] = copy
                self.journal.note({"event": _COPIED, "key": key, "fragment": _to_json(copy)})

    def _write_copy(self, touched: Touched) -> FragmentMetadata | None:
        """Writes a fragment's rows without the forgotten ones; None when none is left."""
        if len(touched.places) == touched.rows:
            return None
        state = self._open(touched.lance_version)
        rows = read_physical_rows(state, state.get_fragment(touched.fragment_id))
        kept = pa.RecordBatchReader.from_batches(rows.schema, _drop_rows(rows, touched.places))
        written = write_fragments(kept, state, mode="append", max_rows_per_file=touched.rows)
        copy = written[0]
        copy.id = self._next_id()
        return copy

    def _next_id(self) -> int:
        """An id that no state has: deletion files, which states share, are named by it."""
        taken = [int(copy.id) for copy in self.copies.values() if copy is not None]
        return 1 + max([self.survey.highest_id, *taken])

    # States

    def _renew(self, version: int) -> None:
        """Commits the state at head without the forgotten rows."""
        old = self._open(version)
        affected = [fragment for _, fragment in self.survey.find_in_state(old)]
        expected = old.count_rows() - sum(len(self._find_forgotten(old, f)) for f in affected)
        new = self._commit(LanceOperation.Restore(version))
        new = _drop_indices(new)
        if affected:
            new = self._swap(new, old, affected)
        if new.count_rows() != expected:
            raise StorageError(
                f"{self.uri}: purging Lance version {version} gave {new.count_rows()} rows instead "
                f"of {expected}; nothing has been renamed"
            )
        self.moved[version] = new.version
        self.journal.note({"event": "moved", "old": version, "new": new.version})

    def _swap(
        self, new: lance.LanceDataset, old: lance.LanceDataset, affected: list[lance.LanceFragment]
    ) -> lance.LanceDataset:
        groups, late = [], {}
        for fragment in affected:
            copy = self.copies[find_key(fragment)]
            deleted = self._find_deleted(old, fragment)
            if copy is not None and len(deleted):
                ready = self._deletions.get((copy.id, deleted.tobytes()))
                late.update({} if ready else {copy.id: deleted})
                copy = ready or copy
            groups.append(LanceOperation.RewriteGroup([fragment.metadata], [copy] if copy else []))
        new = self._commit(LanceOperation.Rewrite(groups, []))
        return self._delete_again(new, late) if late else new

    def _delete_again(
        self, state: lance.LanceDataset, places: dict[int, Int64Array]
    ) -> lance.LanceDataset:
        """Soft-deletes rows of copies; later states with the same rows deleted share the file."""
        updated, removed = [], []
        for fragment_id, rows in places.items():
            left = state.get_fragment(fragment_id).delete_rows(rows.tolist())
            if left is None:
                removed.append(fragment_id)
            else:
                updated.append(left)
                self._deletions[fragment_id, rows.tobytes()] = left
        return self._commit(LanceOperation.Delete(updated, removed, "false"))

    def _find_deleted(self, state: lance.LanceDataset, fragment: lance.LanceFragment) -> Int64Array:
        """Positions in the copy of the rows that the state had deleted and nobody forgets."""
        gone = self.survey.touched[find_key(fragment)].places
        every = np.arange(fragment.physical_rows)
        deleted = np.setdiff1d(every, find_live_places(state, fragment), assume_unique=True)
        deleted = np.setdiff1d(deleted, gone, assume_unique=True)
        return deleted - np.searchsorted(gone, deleted)

    def _find_forgotten(
        self, state: lance.LanceDataset, fragment: lance.LanceFragment
    ) -> Int64Array:
        gone = self.survey.touched[find_key(fragment)].places
        return np.intersect1d(gone, find_live_places(state, fragment), assume_unique=True)

    def _move_tags(self, version: int) -> None:
        for tag, target in self._read_tags().items():
            if target == version:
                self._open().tags.update(tag, self.moved[version])

    # Lance

    def _open(self, version: int | None = None) -> lance.LanceDataset:
        return lance.dataset(table_uri(self.uri, "pairs"), version=version)

    def _read_tags(self) -> dict[str, int]:
        return {name: int(tag["version"]) for name, tag in self._open().tags.list().items()}

    def _commit(self, operation: Any) -> lance.LanceDataset:
        head = self._open()
        return lance.LanceDataset.commit(head, operation, read_version=head.version)


def _drop_rows(rows: pa.RecordBatchReader, places: Int64Array) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in rows:
        inside = places[(places >= start) & (places < start + len(batch))] - start
        keep = np.ones(len(batch), dtype=bool)
        keep[inside] = False
        yield batch.filter(pa.array(keep))
        start += len(batch)


def _leaks(state: lance.LanceDataset) -> bool:
    """Whether something besides the rows may hold content: an index, or the state's own log."""
    if state.describe_indices():
        return True
    operation = state.read_transaction(state.version).operation
    if isinstance(operation, LanceOperation.Delete):
        return bool(operation.predicate != "false")
    # A merge keeps a filter over the keys that it inserted.
    return isinstance(operation, LanceOperation.Update)


def _drop_indices(state: lance.LanceDataset) -> lance.LanceDataset:
    """An index keeps vectors and words of rows that are gone; states answer without."""
    for index in state.describe_indices():
        state.drop_index(index.name)
    return state


def _to_json(fragment: FragmentMetadata | None) -> Any:
    return None if fragment is None else fragment.to_json()


def _from_json(value: Any) -> FragmentMetadata | None:
    return None if value is None else FragmentMetadata.from_json(json.dumps(value))
