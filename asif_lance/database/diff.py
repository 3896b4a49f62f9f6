"""What changed between two states of the pairs table.

States share most of their fragments, so only the fragments that one of them has alone are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database.fragments import FragmentKey, content_files
from asif_lance.database.schemas import PAIR_COLUMNS

# When a pair was added is not part of its content: deleted and added again, it is unchanged.
_NOT_CONTENT = ("pair_id", "ingested_at")


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids of the pairs that differ between an old and a new state, sorted.

    Attributes:
        added: only the new state has them.
        removed: only the old state has them.
        changed: both have them, with different content.
        uncompared: how many both have in different files, where that was not compared.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    uncompared: int = 0

    def __len__(self) -> int:
        return len(self.added) + len(self.removed) + len(self.changed)


def count_changes(old: lance.LanceDataset | None, new: lance.LanceDataset) -> tuple[int, int, int]:
    """How many pairs `find_changes` finds added, removed, changed.

    The ids are not held where pairs were only added.
    """
    if old is not None and _find_unshared(old, new):
        found = find_changes(old, new)
        return len(found.added), len(found.removed), len(found.changed)
    after = new.get_fragments() if old is None else _find_unshared(new, old)
    return sum(fragment.count_rows() for fragment in after), 0, 0


def find_changes(
    old: lance.LanceDataset | None, new: lance.LanceDataset, *, most: int | None = None
) -> Changes:
    """Compares two states by pair id and content; the order of rows does not count.

    Without an old state all pairs of the new one are added.

    Args:
        old: a state, if there is one.
        new: a later one.
        most: pairs whose content is compared; of more than these it is only told how many.
    """
    if old is None:
        return Changes(_sort_ids(_read_ids(new, new.get_fragments())["pair_id"]), (), ())
    before, after = _find_unshared(old, new), _find_unshared(new, old)
    old_ids, new_ids = _drop_same_rows(_read_ids(old, before), _read_ids(new, after))
    common = new_ids.filter(pc.is_in(new_ids, old_ids))
    too_many = most is not None and len(common) > most
    return Changes(
        added=_sort_ids(new_ids.filter(pc.invert(pc.is_in(new_ids, old_ids)))),
        removed=_sort_ids(old_ids.filter(pc.invert(pc.is_in(old_ids, new_ids)))),
        changed=() if too_many else _find_changed(old, before, new, after, common),
        uncompared=len(common) if too_many else 0,
    )


Counts = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Diff:
    """Changes, and where the pairs came from.

    Attributes:
        changes: the ids.
        by_source: source -> how many were `added`, `removed`, `changed`; "" for none given.
        by_license: the same for licences.
    """

    changes: Changes
    by_source: Counts
    by_license: Counts


def diff_states(old: lance.LanceDataset, new: lance.LanceDataset) -> Diff:
    """Compares two states and counts the differences by source and licence."""
    found = find_changes(old, new)
    groups = {
        "added": rows_by_id(new, found.added),
        "removed": rows_by_id(old, found.removed),
        "changed": rows_by_id(new, found.changed),
    }
    return Diff(found, _count_values(groups, "source"), _count_values(groups, "license"))


def rows_by_id(
    state: lance.LanceDataset,
    ids: Sequence[str],
    columns: Sequence[str] = ("pair_id", "caption", "image_uri", "source", "license"),
) -> pa.Table:
    """Rows of a state by id, in the order of the ids."""
    wanted = pa.array(ids, pa.string())
    scanner = state.scanner(columns=list(columns))
    found = [b.filter(pc.is_in(b["pair_id"], wanted)) for b in scanner.to_batches()] if ids else []
    rows = pa.Table.from_batches(found, scanner.projected_schema)
    return rows.take(pc.drop_null(pc.index_in(wanted, rows["pair_id"].combine_chunks())))


def _count_values(groups: dict[str, pa.Table], column: str) -> Counts:
    counts: Counts = {}
    for kind, rows in groups.items():
        for value in rows[column].to_pylist():
            of_value = counts.setdefault(value or "", dict.fromkeys(groups, 0))
            of_value[kind] += 1
    return dict(sorted(counts.items()))


Fragments = list[lance.LanceFragment]

# A row address is its fragment's id in the upper and its place therein in the lower 32 bits.
_PLACE_BITS = 32


def _find_unshared(one: lance.LanceDataset, other: lance.LanceDataset) -> Fragments:
    """Fragments of `one` whose rows `other` does not hold in the very same files."""
    shared = set(_live_rows(other).values())
    own = _live_rows(one)
    return [f for f in one.get_fragments() if own[f.fragment_id] not in shared]


def _live_rows(state: lance.LanceDataset) -> dict[int, tuple[FragmentKey, str | None]]:
    """Names the files of ours and the deletions of each fragment, by the fragments' ids."""
    files = content_files(state)
    return {f.fragment_id: (files[f.fragment_id], f.deletion_file()) for f in state.get_fragments()}


def _read_ids(dataset: lance.LanceDataset, fragments: Fragments) -> pa.Table:
    """The ids of some fragments, and their `place`: files and the row in them, as one text."""
    files = content_files(dataset)
    asked = {"columns": ["pair_id"], "fragments": fragments, "with_row_address": True}
    batches = dataset.scanner(**asked).to_batches() if fragments else ()
    rows = [(batch["pair_id"], batch["_rowaddr"].to_numpy()) for batch in batches]
    if not rows:
        return pa.table({"pair_id": pa.array([], pa.string()), "place": pa.array([], pa.string())})
    addresses = np.concatenate([address for _, address in rows])
    names, which = np.unique(addresses >> _PLACE_BITS, return_inverse=True)
    of_files = pa.array(["|".join(files[int(name)]) for name in names]).take(pa.array(which))
    in_file = pa.array(addresses & (2**_PLACE_BITS - 1)).cast(pa.string())
    places = pc.binary_join_element_wise(of_files, in_file, ":")
    ids = pa.chunked_array([ids for ids, _ in rows], pa.string())
    return pa.table({"pair_id": ids, "place": places})


def _drop_same_rows(old: pa.Table, new: pa.Table) -> tuple[pa.Array, pa.Array]:
    """Ids of two states without the rows that both have at the same place of the same files."""
    both = ((old, new), (new, old))
    left = [one.filter(pc.invert(pc.is_in(one["place"], other["place"]))) for one, other in both]
    return left[0]["pair_id"].combine_chunks(), left[1]["pair_id"].combine_chunks()


def _sort_ids(ids: pa.Array) -> tuple[str, ...]:
    return tuple(sorted(ids.to_pylist()))


def _find_changed(
    old: lance.LanceDataset,
    before: Fragments,
    new: lance.LanceDataset,
    after: Fragments,
    common: pa.Array,
) -> tuple[str, ...]:
    if not len(common):
        return ()
    digests = dict(_digest_rows(old, before, common))
    return tuple(
        sorted(i for i, digest in _digest_rows(new, after, common) if digests[i] != digest)
    )


def _digest_rows(
    dataset: lance.LanceDataset, fragments: Fragments, ids: pa.Array
) -> Iterator[tuple[str, bytes]]:
    """Content digests of the pairs with these ids."""
    ours = [name for name in PAIR_COLUMNS if name in dataset.schema.names]
    for batch in dataset.scanner(columns=ours, fragments=fragments).to_batches():
        wanted = batch.filter(pc.is_in(batch["pair_id"], ids))
        names = sorted(set(wanted.schema.names) - set(_NOT_CONTENT))
        columns = [_to_python(wanted[name]) for name in names]
        for pair_id, *row in zip(wanted["pair_id"].to_pylist(), *columns, strict=True):
            # A state that lacks a column has nothing there, as one that has it empty.
            told = [both for both in zip(names, row, strict=True) if both[1] is not None]
            yield pair_id, hashlib.blake2b(repr(told).encode(), digest_size=16).digest()


def _to_python(column: pa.Array) -> list[object]:
    """Python values of a column; a vector becomes its bytes, which is far quicker to compare."""
    if not pa.types.is_fixed_size_list(column.type):
        return list(column.to_pylist())
    width = column.type.list_size
    vectors: np.ndarray = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return [vector.tobytes() for vector in vectors]
