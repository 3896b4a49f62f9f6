"""What forgetting some pairs would touch: where they lie, and which versions show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from asif_lance.database import Ledger, check_readable, open_table, storage_errors
from asif_lance.forgetting.content import Content
from asif_lance.forgetting.copies import Copy, check_not_shared, find_copies, find_foreign
from asif_lance.forgetting.derived_data import find_runs
from asif_lance.forgetting.forgotten_pairs import find_forgotten_ids
from asif_lance.forgetting.shared_texts import find_shared
from asif_lance.forgetting.survey import Survey, read_physical_rows, survey_states
from asif_lance.forgetting.twins import Twins, find_twins
from asif_lance.object_stores import open_path

_VECTORS = ["image_vector", "text_vector"]


@dataclass(frozen=True, slots=True)
class PlannedPair:
    """A pair that would go, so that a person knows it again.

    Attributes:
        pair_id: its id.
        caption: as it was ingested last; of several, all of them.
        image: the address of its picture, or None.
    """

    pair_id: str
    caption: str
    image: str | None


@dataclass(frozen=True, slots=True)
class ForgetPlan:
    """What forgetting would touch.

    Attributes:
        pairs: ids that are somewhere in the database, sorted.
        unknown: ids that are nowhere, sorted.
        versions: names of the model versions that have one of the pairs.
        fragments: how many fragments would be rewritten.
        bytes: their size: about what would be written, and needs to be free.
        indices: search indices that would be dropped.
        copies: what is in the database's directory, is not ours, and holds content of the pairs:
            forgetting leaves it, and its receipt is not clean.
        listing: the pairs with their captions, in the order of `pairs`.
        runs: ids of recordings that would lose predictions, attributions or prompts, sorted.
        pictures: SHA-256 of their pictures, as they are or were in any version.
        twins: pairs that would stay and share something with these; None if nobody looked.
        forgotten: of the unknown ids those that receipts name, as far as their keys are there, with
            "forgotten on DATE, receipt R".
    """

    pairs: tuple[str, ...]
    unknown: tuple[str, ...]
    versions: tuple[str, ...]
    fragments: int
    bytes: int
    indices: tuple[str, ...]
    listing: tuple[PlannedPair, ...] = ()
    runs: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()
    pictures: frozenset[str] = frozenset()
    twins: Twins | None = None
    forgotten: Mapping[str, str] = field(default_factory=dict)


def plan(
    uri: str,
    pair_ids: Iterable[str],
    *,
    twins: bool = True,
    with_twins: bool = False,
    folder: Path | None = None,
) -> ForgetPlan:
    """Says what forgetting these pairs would touch; changes nothing.

    Args:
        uri: the database.
        pair_ids: which.
        twins: look for pairs that would stay and share something with these, which reads the
            image vectors of head and the newest version.
        with_twins: the pairs with the same picture are to be forgotten with them.
        folder: of the keys; by default the user's.

    Raises:
        DatabaseError: the database is one that cannot forget.
    """
    wanted = sorted(set(pair_ids))
    directory = check_can_forget(uri)
    with storage_errors(uri):
        found = locate(uri, wanted)
        ids = found.found | locate_unnamed(found, wanted).found
        live = find_shown_pairs(uri, found)
        rows = read_content(found, sorted(ids)) if ids else None
        sharing = None
        if rows is not None and (twins or with_twins):
            sharing = find_twins(uri, ids, rows)
        if with_twins and sharing and sharing.same_picture:
            return plan(uri, [*wanted, *sharing.same_picture], twins=twins, folder=folder)
        shared = frozenset[str]() if rows is None else find_shared(found, rows)
        runs = set() if rows is None else find_runs(uri, Content(b"", rows, shared).own())
        unknown = tuple(i for i in wanted if i not in ids)
        copies = _find_all_copies(directory, rows, shared, unknown)
    return ForgetPlan(
        pairs=tuple(sorted(ids)),
        unknown=unknown,
        versions=tuple(name for name, ids in live.items() if ids),
        fragments=len(found.touched),
        bytes=sum(fragment.size for fragment in found.touched.values()),
        indices=found.index_names,
        copies=copies,
        listing=_list_pairs(rows) if rows is not None else (),
        runs=tuple(sorted(runs)),
        pictures=frozenset(() if rows is None else rows["image_sha256"].drop_null().to_pylist()),
        twins=sharing,
        forgotten=find_forgotten_ids(uri, unknown, folder),
    )


def _list_pairs(rows: pa.Table) -> tuple[PlannedPair, ...]:
    newest = {}
    for row in rows.drop(_VECTORS).sort_by("ingested_at").to_pylist():
        captions = row.get("captions") or [row["caption"]]
        newest[row["pair_id"]] = PlannedPair(row["pair_id"], " · ".join(captions), row["image_uri"])
    return tuple(newest[pair_id] for pair_id in sorted(newest))


def _find_all_copies(
    directory: Path, rows: pa.Table | None, shared: frozenset[str], unknown: Sequence[str]
) -> tuple[Copy, ...]:
    """Of pairs that are nowhere in our tables any more the ids are sought."""
    if not find_foreign(directory):
        return ()
    nowhere = pa.table({"pair_id": pa.array(unknown, pa.string())}) if unknown else None
    counts: Counter[str] = Counter()
    for some in (rows, nowhere):
        copies = () if some is None else find_copies(directory, some, shared)
        counts.update({copy.place: copy.pairs for copy in copies})
    return tuple(Copy(place, count) for place, count in sorted(counts.items()))


def locate(uri: str, pair_ids: Sequence[str], head: int | None = None) -> Survey:
    """Where the pairs lie in all states that a tag names and in head, or what head was."""
    head = open_table(uri, "pairs").version if head is None else head
    return survey_states(uri, {head, *Ledger(uri).lance_versions().values()}, pair_ids)


def locate_unnamed(found: Survey, wanted: Iterable[str]) -> Survey:
    """Pairs that only states without a name have any more; cleaning up takes these away."""
    missing = [pair_id for pair_id in wanted if pair_id not in found.found]
    refs = open_table(found.uri, "pairs").version_refs() if missing else []
    return survey_states(
        found.uri, {int(ref["version"]) for ref in refs} - found.states.keys(), missing
    )


def read_content(found: Survey, pair_ids: Sequence[str]) -> pa.Table:
    """All columns of the pairs' rows, in every state that they are in, named or not."""
    others = locate_unnamed(found, pair_ids)
    parts = [table for part in (found, others) for table in _read_forgotten(part)]
    return pa.concat_tables(parts, promote_options="default")


def _read_forgotten(found: Survey) -> Iterator[pa.Table]:
    """All columns of the rows in question, once for each fragment that has them."""
    for touched in found.touched.values():
        state = found.open(touched.lance_version)
        rows = read_physical_rows(state, [state.get_fragment(touched.fragment_id)])
        yield rows.read_all().take(touched.places)


def find_shown_pairs(uri: str, found: Survey) -> dict[str, frozenset[str]]:
    """Which of the pairs each model version shows, by its name."""
    ledger = Ledger(uri)
    versions = ledger.lance_versions()
    named = [row["name"] for row in ledger.rows() if row["name"] in versions]
    return {name: found.states[versions[name]].shown for name in named}


def check_can_forget(uri: str) -> Path:
    """Passes a database that can forget; returns its place.

    Raises:
        DatabaseError: a table with branches, clones or columns of blobs.
        CorruptDatabaseError: a table cannot be read, and forgetting would stop half-way.
    """
    check_readable(uri)
    check_not_shared(uri)
    return open_path(uri)
