"""Forgetting: pairs physically gone from every model version, and a receipt that proves it.

The intent is written down first; then the purge (see `purge`), then everything derived from pairs
is erased (see `derived_data`), then everything that is left on the disk is searched, then the
receipt is stored, and last the journal goes. A process killed anywhere in between leaves the
journal, and whoever opens the database next finishes from there.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from asif_lance.database import (
    Ledger,
    WriteLock,
    describe_indices,
    local_path,
    open_table,
    rebuild_indices,
    storage_errors,
    table_uri,
)
from asif_lance.errors import DatabaseBusyError, DatabaseError, InputError
from asif_lance.forgetting import receipts
from asif_lance.forgetting.derived_data import erase_derived
from asif_lance.forgetting.fingerprints import Content
from asif_lance.forgetting.journal import CONTENT_FILE, JOURNAL_FILE, Journal, interrupted
from asif_lance.forgetting.planning import (
    check_can_forget,
    find_shown_pairs,
    locate,
    locate_unnamed,
)
from asif_lance.forgetting.purge import Purge
from asif_lance.forgetting.receipts import Receipt, RewrittenVersion
from asif_lance.forgetting.survey import Survey, read_physical_rows
from asif_lance.forgetting.verify import ScanReport, scan
from asif_lance.progress import step

_SALT_BYTES = 16
_ID_BYTES = 4


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


def execute(uri: str, pair_ids: Sequence[str], *, reason: str) -> Receipt:
    """Removes pairs from every version, table, cache and log; the caller holds the write lock.

    Raises:
        InputError: none of the pairs is in the database.
        DatabaseError: the database is one that cannot forget.
        StorageError: the disk refused; `recover` finishes what was begun.
    """
    check_can_forget(uri)
    wanted = sorted(set(pair_ids))
    found = locate(uri, wanted)
    ids = found.found | locate_unnamed(found, wanted).found
    if not ids:
        raise InputError("none of these pairs is in this database")
    journal = _open_journal(uri)
    journal.start(_make_intent(uri, found, ids, reason))
    return _complete(uri, journal, found)


def recover(uri: str) -> str | None:
    """Finishes a forgetting that was killed; returns a note of it for the user.

    None when there is none to finish, or when it is under way in another process.
    """
    try:
        with WriteLock(uri, timeout=0.0).hold("forget (resumed)"), storage_errors(uri):
            if not interrupted(uri):
                return None
            journal = _open_journal(uri)
            journal.repair()
            receipt = _complete(uri, journal)
    except DatabaseBusyError:
        return None
    return f"finished an interrupted forget of {receipt.pairs} pairs: receipt {receipt.receipt_id}"


def verify_receipt(uri: str, receipt_id: str) -> VerifyReport:
    """Searches the database for what a receipt says is gone; pairs that came back are found.

    Raises:
        InputError: there is no such receipt.
    """
    receipt = receipts.load_receipt(uri, receipt_id)
    report = scan(_find_directory(uri), receipt.fingerprints())
    return VerifyReport(
        receipt_id=receipt_id,
        clean=not report.hits,
        findings=receipts.list_findings(report.hits),
        files=report.files,
        bytes=report.bytes,
    )


# Steps


def _make_intent(uri: str, found: Survey, ids: Iterable[str], reason: str) -> dict[str, Any]:
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
        "versions": _count_pairs(uri, found),
        "indices": list(found.index_names),
        "recipes": describe_indices(open_table(uri, "pairs")),
    }


def _complete(uri: str, journal: Journal, found: Survey | None = None) -> Receipt:
    """Takes all steps from where the journal stands; without a survey it was interrupted."""
    intent = next(journal.entries())
    done = [r for r in receipts.load_receipts(uri) if r.receipt_id == intent["receipt_id"]]
    if not done:
        survey = found or _survey_again(uri, journal, intent)
        purge = Purge.resume(uri, intent["head"], survey, journal)
        content = _load_content(survey, journal, intent)
        freed = purge.run()
        _set_counts(uri, intent["versions"])
        elsewhere = erase_derived(uri, content)
        report = scan(_find_directory(uri), content, ignore=(JOURNAL_FILE, CONTENT_FILE))
        receipt = _make_receipt(intent, purge, content, report)
        done = [replace(receipt, elsewhere=elsewhere, bytes_freed=freed, resumed=found is None)]
        receipts.save_receipt(uri, done[0])
    journal.close()
    with step("build indices anew"):
        rebuilt = rebuild_indices(table_uri(uri, "pairs"), intent["recipes"])
    if rebuilt:
        Ledger(uri).adopt(open_table(uri, "pairs"))
    return done[0]


def _survey_again(uri: str, journal: Journal, intent: dict[str, Any]) -> Survey:
    moved = {e["old"]: e["new"] for e in journal.entries() if e["event"] == "moved"}
    return locate(uri, intent["pair_ids"], moved.get(intent["head"], intent["head"]))


def _load_content(found: Survey, journal: Journal, intent: dict[str, Any]) -> Content:
    """The forgotten rows, kept in the journal before the first change and taken from it after."""
    rows = journal.content()
    if rows is None:
        others = locate_unnamed(found, intent["pair_ids"])
        rows = pa.concat_tables(
            [table for part in (found, others) for table in _read_forgotten(part)],
            promote_options="default",
        )
        journal.keep_content(rows)
    return Content(bytes.fromhex(intent["salt"]), rows)


def _read_forgotten(found: Survey) -> Iterator[pa.Table]:
    """All columns of the rows in question, once for each fragment that has them."""
    for touched in found.touched.values():
        state = open_table(found.uri, "pairs", touched.lance_version)
        rows = read_physical_rows(state, state.get_fragment(touched.fragment_id))
        yield rows.read_all().take(touched.places)


def _make_receipt(
    intent: dict[str, Any], purge: Purge, content: Content, report: ScanReport
) -> Receipt:
    prints = content.fingerprints()
    copies = [copy for copy in purge.copies.values() if copy is not None]
    return Receipt(
        receipt_id=intent["receipt_id"],
        created_at=datetime.fromisoformat(intent["created_at"]),
        reason=intent["reason"],
        pairs=len(intent["pair_ids"]),
        salt=intent["salt"],
        ids=tuple(sorted(prints.ids)),
        values=tuple(sorted(prints.values)),
        vectors=tuple(sorted(prints.vectors)),
        versions=tuple(_describe_rewrite(row, purge) for row in intent["versions"]),
        indices=tuple(intent["indices"]),
        elsewhere={},
        fragments=len(purge.copies),
        bytes_written=sum(f.file_size_bytes or 0 for copy in copies for f in copy.files),
        bytes_freed=0,
        files_scanned=report.files,
        bytes_scanned=report.bytes,
        shared=report.shared,
        findings=receipts.list_findings(report.hits + report.doubtful),
        clean=not report.hits and not report.doubtful,
        resumed=False,
    )


def _describe_rewrite(row: dict[str, Any], purge: Purge) -> RewrittenVersion:
    before = row["lance_version"]
    after = purge.moved.get(before, before)
    return RewrittenVersion(row["name"], before, after, row["pairs_before"], row["pairs"])


def _count_pairs(uri: str, found: Survey) -> list[dict[str, Any]]:
    """Each version's counts as they will be, for the table `versions` and the receipt."""
    ledger = Ledger(uri)
    versions = ledger.lance_versions()
    live = find_shown_pairs(uri, found)
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


def _find_directory(uri: str) -> Path:
    directory = local_path(uri)
    if directory is None:
        raise DatabaseError(f"{uri}: only local directories can be searched")
    return directory


def _open_journal(uri: str) -> Journal:
    return Journal(_find_directory(uri))
