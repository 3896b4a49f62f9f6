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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from lance import LanceOperation
from lance.fragment import FragmentMetadata, write_fragments

from asif_lance.database import (
    FragmentKey,
    Ledger,
    clean_up,
    commit,
    committing,
    name_files,
    open_table,
    set_tag,
    undo_overtaken,
)
from asif_lance.errors import StorageError
from asif_lance.forgetting.journal import Journal
from asif_lance.forgetting.survey import State, Survey, Touched, TouchedPart, read_physical_rows
from asif_lance.progress import track
from asif_lance.records import Int64Array

# What journals call the writing of a copy; those of older releases have to be finished, too.
_COPIED = "twin"

_RewriteGroup = LanceOperation.RewriteGroup

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
    _deletions: dict[_DeletionKey, FragmentMetadata | None] = field(default_factory=dict)

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
        tags = Ledger(self.uri).lance_versions()
        states = list(self._order_states(set(tags.values())))
        for version in track("make versions anew", states):
            if version not in self.moved:
                self._renew(self.survey.states[version])
            for tag in (name for name, target in tags.items() if target == version):
                set_tag(self._latest, tag, self.moved[version])
        undo_overtaken(self.uri)  # else head's own state would be cleaned away
        freed = clean_up(self.uri, sparing=False)
        while undo_overtaken(self.uri):
            freed += clean_up(self.uri, sparing=False)
        return freed

    def _order_states(self, tagged: set[int]) -> Iterator[int]:
        """The states that have to be made anew, head last so that it is head again."""
        head = self.moved.get(self.head, self.head)
        states = sorted(tagged - {head} | self.moved.keys() - {self.head})
        needed = [state for state in states if self._must_change(state)]
        yield from needed
        if needed or self._must_change(self.head):
            yield self.head

    def _must_change(self, version: int) -> bool:
        return version in self.moved or self.survey.states[version].must_change

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
        state = self.survey.open(touched.lance_version)
        rows = read_physical_rows(state, [state.get_fragment(touched.fragment_id)])
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

    def _renew(self, old: State) -> None:
        """Commits the state at head without the forgotten rows."""
        self._replace_head(self.survey.open(old.version), old.parts)
        # Whatever the old state had indexed: indices keep vectors and words of rows that are gone.
        for index in self._latest.describe_indices():
            with committing(self._latest.uri):
                self._latest.drop_index(index.name)
        rows = self._latest.count_rows()
        expected = old.rows - sum(part.forgotten for part in old.parts)
        if rows != expected:
            raise StorageError(
                f"{self.uri}: purging Lance version {old.version} gave {rows} rows instead "
                f"of {expected}; nothing has been renamed"
            )
        new = self._latest.version
        self.moved[old.version] = new
        self.journal.note({"event": "moved", "old": old.version, "new": new})

    def _replace_head(self, state: lance.LanceDataset, parts: Sequence[TouchedPart]) -> None:
        """Commits a state with copies in place of its touched fragments.

        From the state before it, which shares most fragments, in one commit; where Lance does not
        take that, by restoring the state first.
        """
        copies = {part.metadata.id: self._find_copy(part) for part in parts}
        fragments = [fragment.metadata for fragment in state.get_fragments()]
        renewed = [copies.get(each.id, each) for each in fragments]
        groups = _find_differences(
            [fragment.metadata for fragment in self._latest.get_fragments()],
            # In the order in which Lance keeps them.
            sorted((each for each in renewed if each is not None), key=lambda each: each.id),
        )
        if groups is None or self._latest.lance_schema != state.lance_schema:
            self._commit(LanceOperation.Restore(state.version))
            pairs = [(part.metadata, copies[part.metadata.id]) for part in parts]
            groups = [_RewriteGroup([old], [copy] if copy else []) for old, copy in pairs]
        if groups:
            self._commit(LanceOperation.Rewrite(groups, []))

    def _find_copy(self, part: TouchedPart) -> FragmentMetadata | None:
        """A touched fragment's copy with the rows deleted that the state has deleted of it."""
        copy = self.copies[part.key]
        if copy is None or not len(part.deleted):
            return copy
        key = (int(copy.id), part.deleted.tobytes())
        if key not in self._deletions:  # states with the same rows deleted share the file
            whole = self._stage.get_fragment(copy.id)
            self._deletions[key] = whole.delete_rows(part.deleted.tolist())
        return self._deletions[key]

    @cached_property
    def _stage(self) -> lance.LanceDataset:
        """A state of all copies with nothing deleted, from which deletions can be written."""
        some = next(iter(self.survey.touched.values()))
        self._commit(LanceOperation.Restore(some.lance_version))
        whole = [fragment.metadata for fragment in self._latest.get_fragments()]
        copies = [copy for copy in self.copies.values() if copy is not None]
        self._commit(LanceOperation.Rewrite([LanceOperation.RewriteGroup(whole, copies)], []))
        return self._latest

    # Lance

    @cached_property
    def _latest(self) -> lance.LanceDataset:
        """Head as it is now; nobody else writes."""
        return open_table(self.uri, "pairs")

    def _commit(self, operation: Any) -> None:
        self._latest = commit(self._latest, operation)


def _find_differences(
    old: list[FragmentMetadata], new: list[FragmentMetadata]
) -> list[LanceOperation.RewriteGroup] | None:
    """What makes the new list of fragments from the old, at least one group; None if Lance cannot.

    It wants an old fragment in every group, and gives new ones whose id is 0 another id, by which
    the file of their deletions would not be found.
    """
    keys = [[_name_rows(fragment) for fragment in side] for side in (old, new)]
    steps = SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes()
    changes = [step[1:] for step in steps if step[0] != "equal"]
    groups = []
    for start, stop, new_start, new_stop in changes or [(len(old), len(old), len(new), len(new))]:
        one = int(start == stop)  # besides what is inserted: the fragment before
        if start < one:
            return None
        groups.append(_RewriteGroup(old[start - one : stop], new[new_start - one : new_stop]))
    return None if any(not f.id for group in groups for f in group.new_fragments) else groups


def _name_rows(fragment: FragmentMetadata) -> tuple[str | None, ...]:
    """Equal for fragments with the same live rows under the same id."""
    deleted = fragment.deletion_file
    return (deleted and deleted.path(fragment.id), str(fragment.id), *name_files(fragment))


def _drop_rows(rows: pa.RecordBatchReader, places: Int64Array) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in rows:
        inside = places[(places >= start) & (places < start + len(batch))] - start
        keep = np.ones(len(batch), dtype=bool)
        keep[inside] = False
        yield batch.filter(pa.array(keep))
        start += len(batch)


def _to_json(fragment: FragmentMetadata | None) -> Any:
    return None if fragment is None else fragment.to_json()


def _from_json(value: Any) -> FragmentMetadata | None:
    return None if value is None else FragmentMetadata.from_json(json.dumps(value))
