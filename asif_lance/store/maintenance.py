"""Upkeep of a database: dropping old versions, compacting, and how much space all of it takes.

Bytes leave the disk only when no name needs them any more; cleaning up respects every tag, and
whatever a kill left behind goes with it. Names protect readers of versions; those who have head
open with plain Lance are protected by a grace period, which pruning and forgetting do not give.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import lance

from asif_lance.database import (
    GRACE,
    TABLES,
    Ledger,
    clean_up,
    committing,
    count_reclaimable,
    drop_old_caches,
    finish_deletes,
    fragment_rows,
    keep_digests,
    last_check,
    open_table,
    storage_errors,
)
from asif_lance.errors import InputError
from asif_lance.object_stores import list_sizes, open_path
from asif_lance.progress import step, track
from asif_lance.records import EncoderPin, ModelVersion
from asif_lance.store.pair_store import PairStore

_BOOKKEEPING = tuple(table.name for table in TABLES if table.name != "pairs")
# A fragment is worth rewriting when it is less than half full or a tenth of it is deleted.
_LIVE_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning dropped.

    Attributes:
        dropped: names of the versions that are gone.
        bytes_freed: how much space that freed.
        foreign_tags: tags that somebody set with plain Lance; what they name stays on the disk.
    """

    dropped: tuple[str, ...]
    bytes_freed: int
    foreign_tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OptimizeReport:
    """What upkeep did.

    Attributes:
        fragments_before: fragments at head.
        fragments_after: the same afterwards.
        bytes_before: size of the database.
        bytes_after: the same afterwards.
        bytes_freed: of files that nobody needed; new ones may have come.
        bytes_waiting: what nobody needs, and stays until its grace period is over.
    """

    fragments_before: int
    fragments_after: int
    bytes_before: int
    bytes_after: int
    bytes_freed: int
    bytes_waiting: int


@dataclass(frozen=True, slots=True)
class Info:
    """Sizes and counts of a database.

    Attributes:
        uri: where it is.
        image: the encoder of the pictures.
        text: the encoder of the captions.
        versions: how many model versions there are.
        latest: the newest of them, or None.
        unpublished: pairs at head that are not in `latest`, or the other way round.
        fragments: at head.
        bytes: size of all files.
        bytes_reclaimable: how much of it `optimize` would free without losing a version.
        bytes_waiting: how much more it would free after the grace period, or without one.
        indices: names of the search indices of `latest`.
        rejects: rejected items on record.
        receipts: receipts of forgetting.
        checked_at: when its files were last checked, or None.
        damaged: how many of them were damaged then.
    """

    uri: str
    image: EncoderPin
    text: EncoderPin
    versions: int
    latest: ModelVersion | None
    unpublished: int
    fragments: int
    bytes: int
    bytes_reclaimable: int
    bytes_waiting: int
    indices: tuple[str, ...]
    rejects: int
    receipts: int
    checked_at: datetime | None
    damaged: int


def moment_before(age: timedelta) -> datetime:
    """The moment that lies so long ago; for an age beyond the calendar, its first day.

    Raises:
        InputError: a negative age.
    """
    if age < timedelta(0):
        raise InputError("an age cannot be negative")
    now = datetime.now(UTC)
    first = datetime.min.replace(tzinfo=UTC)
    return now - age if age <= now - first else first


def prunable_versions(
    store: PairStore,
    *,
    keep_last: int = 1,
    keep_tagged: bool = True,
    older_than: timedelta | None = None,
) -> list[str]:
    """Names of the versions that `prune_versions` would drop; changes nothing.

    Args:
        store: the database.
        keep_last: how many of the newest versions stay in any case; at least one.
        keep_tagged: versions with an alias stay.
        older_than: younger versions stay.

    Raises:
        InputError: nothing would be kept, or a negative age.
    """
    if keep_last < 1:
        raise InputError("at least the newest version has to be kept")
    limit = moment_before(older_than) if older_than else None
    rows = Ledger(store.uri).rows()[:-keep_last]
    old = [row for row in rows if limit is None or row["created_at"] < limit]
    return [row["name"] for row in old if not (keep_tagged and row["aliases"])]


def prune_versions(
    store: PairStore,
    *,
    keep_last: int = 1,
    keep_tagged: bool = True,
    older_than: timedelta | None = None,
) -> PruneReport:
    """Drops versions, as `prunable_versions` says which, and the bytes that only they needed.

    Raises:
        InputError: nothing would be kept.
    """
    with store.writing("versions prune"):
        names = prunable_versions(
            store, keep_last=keep_last, keep_tagged=keep_tagged, older_than=older_than
        )
        before = _measure_size(store.uri)
        ledger = Ledger(store.uri)
        ledger.remove(names)
        ledger.mend()
        _clean(store.uri, timedelta(0))
        after = _measure_size(store.uri)
        return PruneReport(tuple(names), before - after, ledger.foreign_tags())


def optimize(store: PairStore, *, grace: timedelta = GRACE) -> OptimizeReport:
    """Compacts head, brings its indices up to date, and frees what no version needs.

    `latest` gets the compacted form when it has the same pairs. Old versions stay as they are.

    Args:
        store: the database.
        grace: what was head within this time stays readable for those who have it open with
            plain Lance, however old it is.
    """
    with store.writing("optimize"):
        before, size = len(_open_pairs(store).get_fragments()), _measure_size(store.uri)
        ledger = Ledger(store.uri)
        ledger.mend()
        with step("compact fragments"):
            _compact(_open_pairs(store))
        with step("bring indices up to date"):
            pairs = _open_pairs(store)
            with committing(store.uri):
                pairs.optimize.optimize_indices()
        ledger.adopt(_open_pairs(store))
        freed = _clean(store.uri, grace)
        after = len(_open_pairs(store).get_fragments())
        waiting = _count_reclaimable(store.uri, timedelta(0)) if grace else 0
        return OptimizeReport(before, after, size, _measure_size(store.uri), freed, waiting)


def info(store: PairStore) -> Info:
    """Sizes and counts of a database."""
    rows = Ledger(store.uri).rows()
    head, checked = _open_pairs(store), last_check(store.uri) or {}
    with storage_errors(store.uri):
        reclaimable = _count_reclaimable(store.uri, GRACE)
        return Info(
            uri=store.uri,
            image=store.image,
            text=store.text,
            versions=len(rows),
            latest=store.version() if rows else None,
            unpublished=len(store.unpublished()),
            fragments=len(head.get_fragments()),
            bytes=_measure_size(store.uri),
            bytes_reclaimable=reclaimable,
            bytes_waiting=max(_count_reclaimable(store.uri, timedelta(0)) - reclaimable, 0),
            indices=tuple(sorted(index.name for index in head.describe_indices())),
            rejects=open_table(store.uri, "rejects").count_rows(),
            receipts=open_table(store.uri, "receipts").count_rows(),
            checked_at=checked.get("checked_at"),
            damaged=checked.get("damaged", 0),
        )


def _open_pairs(store: PairStore) -> lance.LanceDataset:
    return open_table(store.uri, "pairs")


def _compact(pairs: lance.LanceDataset) -> None:
    rows = fragment_rows(pairs.count_rows())
    fine = [f.fragment_id for f in pairs.get_fragments() if _is_fine(f, rows)]
    if len(fine) < len(pairs.get_fragments()):
        with committing(pairs.uri):
            pairs.optimize.compact_files(target_rows_per_fragment=rows, excluded_fragment_ids=fine)


def _is_fine(fragment: lance.LanceFragment, rows: int) -> bool:
    live = fragment.count_rows()
    return bool(live >= rows // 2 and live >= _LIVE_SHARE * fragment.physical_rows)


def _clean(uri: str, grace: timedelta) -> int:
    """Frees what neither a name nor head needs, in all tables; returns the bytes."""
    with step("clean up"):
        freed = clean_up(uri, grace=grace)
    for table in track("clean tables up", _BOOKKEEPING):
        freed += finish_deletes(uri, table, grace=grace)
    freed += drop_old_caches(uri)
    keep_digests(uri)
    return freed


def _count_reclaimable(uri: str, grace: timedelta) -> int:
    return sum(count_reclaimable(uri, table.name, grace=grace) for table in TABLES)


def _measure_size(uri: str) -> int:
    return sum(list_sizes(open_path(uri)).values())
