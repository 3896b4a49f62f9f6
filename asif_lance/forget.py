"""Forgetting: pairs physically gone from every model version, and a receipt that proves it.

The intent is written down first; then the purge (see `purge`), then every other keeper of pairs'
content lets go, then everything that is left on the disk is searched, then the receipt is stored,
and last the journal goes. A process killed anywhere in between leaves the journal, and whoever
opens the database next finishes from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from asif_lance import receipts
from asif_lance.errors import DatabaseBusyError, DatabaseError, InputError
from asif_lance.journal import CONTENT_FILE, JOURNAL_FILE, Journal, interrupted
from asif_lance.keepers import KEEPERS
from asif_lance.locks import WriteLock
from asif_lance.needles import Content
from asif_lance.purge import Purge
from asif_lance.receipts import Receipt, RewrittenVersion
from asif_lance.reindex import build, recipes
from asif_lance.store import PairStore
from asif_lance.survey import Survey, live_places, physical_rows, survey
from asif_lance.tables import local_path, open_table, storage_errors, table_uri
from asif_lance.verify import ScanReport, scan
from asif_lance.versions import Ledger

_SALT_BYTES = 16
_ID_BYTES = 4


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
    """

    pairs: tuple[str, ...]
    unknown: tuple[str, ...]
    versions: tuple[str, ...]
    fragments: int
    bytes: int
    indices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A receipt checked again.

    Attributes:
        receipt_id: which.
        clean: nothing that it lists as forgotten is there.
        findings: where something was found, `file: where`.
        files: how many files were read.
        bytes: their size.
    """

    receipt_id: str
    clean: bool
    findings: tuple[str, ...]
    files: int
    bytes: int


def matching(store: PairStore, where: str) -> list[str]:
    """Ids of the pairs that a predicate holds for in any version or at head, sorted.

    Raises:
        PredicateError: it is not a predicate over the pairs table.
    """
    found = set(store.matching(where))
    for version in store.versions():
        found.update(store.matching(where, version=version.name))
    return sorted(found)


def plan(store: PairStore, pair_ids: Iterable[str]) -> ForgetPlan:
    """Says what forgetting these pairs would touch; changes nothing.

    Raises:
        DatabaseError: the database is one that cannot forget.
    """
    wanted = sorted(set(pair_ids))
    _check_can_forget(store.uri)
    with storage_errors(store.uri):
        found = _survey(store.uri, wanted)
        ids = found.found | _leftovers(found, wanted).found
        live = _live_ids(store.uri, found)
        indices = _indices(store.uri)
    return ForgetPlan(
        pairs=tuple(sorted(ids)),
        unknown=tuple(i for i in wanted if i not in ids),
        versions=tuple(name for name, ids in live.items() if ids),
        fragments=len(found.touched),
        bytes=sum(fragment.size for fragment in found.touched.values()),
        indices=indices,
    )


def forget(store: PairStore, pair_ids: Sequence[str], *, reason: str) -> Receipt:
    """Removes pairs from every model version, cache and log, physically.

    Versions keep their names, aliases, messages and times, and answer as if the pairs had never
    been in them. Takes the write lock; readers go on with the versions that they have open, and
    find their names again afterwards.

    Raises:
        InputError: none of the pairs is in the database.
        DatabaseError: the database is one that cannot forget.
        StorageError: the disk refused; what was begun is finished when the database is opened.
    """
    _check_can_forget(store.uri)
    with store.writing("forget"):
        wanted = sorted(set(pair_ids))
        found = _survey(store.uri, wanted)
        ids = found.found | _leftovers(found, wanted).found
        if not ids:
            raise InputError("none of these pairs is in this database")
        journal = _journal(store.uri)
        journal.start(_intent(store.uri, found, ids, reason))
        return _complete(store.uri, journal, resumed=False)


def recover(uri: str) -> str | None:
    """Finishes a forgetting that was killed; returns a note of it for the user.

    None when there is none to finish, or when it is under way in another process.
    """
    try:
        with WriteLock(uri, timeout=0.0).hold("forget (resumed)"), storage_errors(uri):
            if not interrupted(uri):
                return None
            journal = _journal(uri)
            journal.repair()
            receipt = _complete(uri, journal, resumed=True)
    except DatabaseBusyError:
        return None
    return f"finished an interrupted forget of {receipt.pairs} pairs: receipt {receipt.receipt_id}"


def verify_receipt(store: PairStore, receipt_id: str) -> VerifyReport:
    """Searches the database for what a receipt says is gone; pairs that came back are found.

    Raises:
        InputError: there is no such receipt.
    """
    receipt = receipts.load(store.uri, receipt_id)
    report = scan(_directory(store.uri), receipt.fingerprints())
    return VerifyReport(
        receipt_id=receipt_id,
        clean=not report.hits,
        findings=receipts.told(report.hits),
        files=report.files,
        bytes=report.bytes,
    )


# Steps


def _intent(uri: str, found: Survey, ids: Iterable[str], reason: str) -> dict[str, Any]:
    """All that finishing needs to know, as it is before the first change."""
    now = datetime.now(UTC)
    return {
        "event": "intent",
        "receipt_id": f"f{now:%Y%m%d-%H%M%S}-{secrets.token_hex(_ID_BYTES)}",
        "created_at": now.isoformat(),
        "reason": reason,
        "salt": secrets.token_hex(_SALT_BYTES),
        "pair_ids": sorted(ids),
        "head": open_table(uri, "pairs").version,
        "versions": _counts(uri, found),
        "indices": list(_indices(uri)),
        "recipes": recipes(open_table(uri, "pairs")),
    }


def _complete(uri: str, journal: Journal, *, resumed: bool) -> Receipt:
    """Takes all steps from where the journal stands."""
    intent = next(journal.entries())
    done = [r for r in receipts.load_all(uri) if r.receipt_id == intent["receipt_id"]]
    if not done:
        purge = _purge(uri, journal, intent)
        content = _content(purge.survey, journal, intent)
        freed = purge.run()
        _set_counts(uri, intent["versions"])
        elsewhere = {name: let_go(uri, content) for name, let_go in KEEPERS.items()}
        report = scan(_directory(uri), content, ignore=(JOURNAL_FILE, CONTENT_FILE))
        receipt = _receipt(intent, purge, content, report)
        done = [replace(receipt, elsewhere=elsewhere, bytes_freed=freed, resumed=resumed)]
        receipts.save(uri, done[0])
    journal.close()
    if build(table_uri(uri, "pairs"), intent["recipes"]):
        Ledger(uri).adopt(open_table(uri, "pairs"))
    return done[0]


def _purge(uri: str, journal: Journal, intent: dict[str, Any]) -> Purge:
    moved = {e["old"]: e["new"] for e in journal.entries() if e["event"] == "moved"}
    head = moved.get(intent["head"], intent["head"])
    found = survey(uri, {head, *_tagged(uri)}, intent["pair_ids"])
    return Purge.resume(uri, intent["head"], found, journal)


def _content(found: Survey, journal: Journal, intent: dict[str, Any]) -> Content:
    """The forgotten rows, kept in the journal before the first change and taken from it after."""
    rows = journal.content()
    if rows is None:
        others = _leftovers(found, intent["pair_ids"])
        rows = pa.concat_tables(
            [table for part in (found, others) for table in _forgotten_rows(part)],
            promote_options="default",
        )
        journal.keep_content(rows)
    return Content(bytes.fromhex(intent["salt"]), rows)


def _forgotten_rows(found: Survey) -> Iterator[pa.Table]:
    """All columns of the rows in question, once for each fragment that has them."""
    for touched in found.touched.values():
        state = open_table(found.uri, "pairs", touched.lance_version)
        rows = physical_rows(state, state.get_fragment(touched.fragment_id))
        yield rows.read_all().take(touched.places)


def _receipt(intent: dict[str, Any], purge: Purge, content: Content, report: ScanReport) -> Receipt:
    prints = content.fingerprints()
    twins = [twin for twin in purge.twins.values() if twin is not None]
    return Receipt(
        receipt_id=intent["receipt_id"],
        created_at=datetime.fromisoformat(intent["created_at"]),
        reason=intent["reason"],
        pairs=len(intent["pair_ids"]),
        salt=intent["salt"],
        ids=tuple(sorted(prints.ids)),
        values=tuple(sorted(prints.values)),
        vectors=tuple(sorted(prints.vectors)),
        versions=tuple(_rewritten(row, purge) for row in intent["versions"]),
        indices=tuple(intent["indices"]),
        elsewhere={},
        fragments=len(purge.twins),
        bytes_written=sum(f.file_size_bytes or 0 for twin in twins for f in twin.files),
        bytes_freed=0,
        files_scanned=report.files,
        bytes_scanned=report.bytes,
        shared=report.shared,
        findings=receipts.told(report.hits + report.doubtful),
        clean=not report.hits and not report.doubtful,
        resumed=False,
    )


def _rewritten(row: dict[str, Any], purge: Purge) -> RewrittenVersion:
    before = row["lance_version"]
    after = purge.moved.get(before, before)
    return RewrittenVersion(row["name"], before, after, row["pairs_before"], row["pairs"])


def _counts(uri: str, found: Survey) -> list[dict[str, Any]]:
    """Each version's counts as they will be, for the table `versions` and the receipt."""
    ledger = Ledger(uri)
    versions = ledger.lance_versions()
    live = _live_ids(uri, found)
    before: frozenset[str] = frozenset()
    counts = []
    for row in ledger.rows():
        now = live[row["name"]]
        counts.append(
            {
                "name": row["name"],
                "lance_version": versions[row["name"]],
                "pairs_before": row["pairs"],
                "pairs": row["pairs"] - len(now),
                "added": max(row["added"] - len(now - before), 0),
                "removed": max(row["removed"] - len(before - now), 0),
            }
        )
        before = now
    return counts


def _set_counts(uri: str, counts: list[dict[str, Any]]) -> None:
    ledger = Ledger(uri)
    new = {row["name"]: {key: row[key] for key in ("pairs", "added", "removed")} for row in counts}
    changed = [{**row, **new[row["name"]]} for row in ledger.rows() if row["name"] in new]
    if changed:
        ledger.write(changed)


# Looking


def _survey(uri: str, pair_ids: Sequence[str]) -> Survey:
    return survey(uri, {open_table(uri, "pairs").version, *_tagged(uri)}, pair_ids)


def _leftovers(found: Survey, wanted: Iterable[str]) -> Survey:
    """Pairs that only states without a name have any more; cleaning up takes these away."""
    missing = [pair_id for pair_id in wanted if pair_id not in found.found]
    refs = open_table(found.uri, "pairs").version_refs() if missing else []
    return survey(found.uri, {int(ref["version"]) for ref in refs} - set(found.states), missing)


def _tagged(uri: str) -> set[int]:
    return set(Ledger(uri).lance_versions().values())


def _live_ids(uri: str, found: Survey) -> dict[str, frozenset[str]]:
    """Which of the pairs each model version shows, by its name."""
    versions = Ledger(uri).lance_versions()
    names = [row["name"] for row in Ledger(uri).rows()]
    cache: dict[object, frozenset[str]] = {}
    return {
        name: _live_in(open_table(uri, "pairs", versions[name]), found, cache) for name in names
    }


def _live_in(
    state: lance.LanceDataset, found: Survey, cache: dict[object, frozenset[str]]
) -> frozenset[str]:
    """The pairs that a state shows; versions share fragments, so each is looked at once."""
    ids: set[str] = set()
    for key, fragment in found.in_state(state):
        known = (key, repr(fragment.metadata.deletion_file))
        if known not in cache:
            touched = found.touched[key]
            live = np.isin(touched.places, live_places(state, fragment))
            cache[known] = frozenset(np.array(touched.pair_ids, dtype=object)[live])
        ids |= cache[known]
    return frozenset(ids)


def _indices(uri: str) -> tuple[str, ...]:
    """Names of the search indices that head or a named version has."""
    states = (open_table(uri, "pairs", v) for v in (None, *sorted(_tagged(uri))))
    return tuple(sorted({index.name for state in states for index in state.describe_indices()}))


def _check_can_forget(uri: str) -> None:
    if local_path(uri) is None:
        raise DatabaseError(
            f"{uri}: forgetting works in local directories: an object store has no lock that "
            "keeps writers out meanwhile, and may keep versions of its own"
        )
    if open_table(uri, "pairs").branches.list():
        raise DatabaseError(f"{uri}: the pairs table has branches; delete them before forgetting")


def _directory(uri: str) -> Path:
    directory = local_path(uri)
    if directory is None:
        raise DatabaseError(f"{uri}: only local directories can be searched")
    return directory


def _journal(uri: str) -> Journal:
    return Journal(_directory(uri))
