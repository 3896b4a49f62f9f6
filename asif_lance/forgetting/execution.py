"""Forgetting: pairs physically gone from every model version, and a receipt that proves it.

The intent is written down first; then the purge (see `purge`), then everything derived from pairs
is erased (see `derived_data`), then everything that is left on the disk is searched, then the
receipt is stored, and last the journal goes. A process killed anywhere in between leaves the
journal, and whoever opens the database next finishes from there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asif_lance.database import (
    Ledger,
    WriteLock,
    check_readable,
    describe_indices,
    drop_gone_vectors,
    find_changes,
    open_table,
    rebuild_indices,
    record_digests,
    storage_errors,
    table_uri,
)
from asif_lance.errors import (
    DatabaseBusyError,
    DatabaseError,
    InputError,
    KeysError,
    StorageError,
    format_count,
)
from asif_lance.forgetting import receipts
from asif_lance.forgetting.content import Content, find_quote
from asif_lance.forgetting.derived_data import erase_derived
from asif_lance.forgetting.journal import Journal, interrupted
from asif_lance.forgetting.keys import (
    Keys,
    find_fingerprint_keys,
    find_keys,
    find_public_keys,
    obtain_keys,
)
from asif_lance.forgetting.planning import (
    check_can_forget,
    locate,
    locate_unnamed,
    read_content,
)
from asif_lance.forgetting.purge import Purge
from asif_lance.forgetting.sealed_hashes import save_hashes
from asif_lance.forgetting.shared_texts import find_shared
from asif_lance.forgetting.survey import State, Survey
from asif_lance.forgetting.twins import find_twins
from asif_lance.object_stores import is_remote, open_path
from asif_lance.progress import step
from asif_lance.verifier import (
    CONTENT_FILE,
    JOURNAL_FILE,
    KEY_BYTES,
    Document,
    Receipt,
    Report,
    RewrittenVersion,
    ScanReport,
    list_findings,
    scan,
    verify,
)

_ID_BYTES = 4
_UNDER_WAY = "a forget is under way: until it is done, counts may include what it removes"


def execute(
    uri: str,
    pair_ids: Sequence[str],
    *,
    reason: str,
    keys: Keys | None = None,
    folder: Path | None = None,
    twins: bool = True,
) -> Receipt:
    """Removes pairs from every version, table, cache and log; the caller holds the write lock.

    Args:
        uri: the database.
        pair_ids: which.
        reason: why; kept in the receipt.
        keys: of fingerprints and signature; by default those of the folder, made if there are
            none once it is sure that the forgetting can begin.
        folder: of the keys; by default the user's.
        twins: count the pairs that stay and have the same picture, for the receipt.

    Raises:
        InputError: none of the pairs is in the database, or the reason quotes one.
        KeysError: the keys are damaged, or cannot be made.
        DatabaseError: the database is one that cannot forget.
        StorageError: the disk refused; `recover` finishes what was begun.
    """
    check_can_forget(uri)
    wanted = sorted(set(pair_ids))
    found = locate(uri, wanted)
    ids = found.found | locate_unnamed(found, wanted).found
    if not ids:
        raise InputError("none of these pairs is in this database")
    rows = read_content(found, sorted(ids))
    shared = find_shared(found, rows)
    quoted = find_quote(rows, shared, reason)
    if quoted is not None:
        raise InputError(
            f"the reason is kept for good, and quotes what is to be forgotten: {quoted!r}; "
            "say it in other words"
        )
    if not is_remote(uri) and not os.access(uri, os.W_OK):
        raise StorageError(f"cannot write to {uri}: permission denied")
    keys = keys or obtain_keys(uri, folder)
    journal = _open_journal(uri)
    described = _describe_keys(keys, Content(keys.fingerprint, rows, shared))
    left = len(find_twins(uri, ids, rows).same_picture) if twins else None
    intent = {**_make_intent(uri, found, ids, reason), **described, "twins": left}
    journal.start({**intent, "shared": sorted(shared)}, rows)
    try:
        with storage_errors(uri):
            return _complete(uri, journal, keys, found)
    except StorageError as error:
        told = "the forget has begun, and is finished when the database is opened next"
        raise StorageError(f"{error}; {told}") from error


def recover(uri: str) -> str | None:
    """Finishes a forgetting that was killed; returns a note for the user.

    None when there is none to finish. One that is under way in another process is left to it, and
    told; in an object store it takes some seconds to know whether that process lives. What one
    left that was killed before it began is removed.
    """
    lock = WriteLock(uri, timeout=0.0)
    try:
        with lock.hold("forget (resumed)", outlive=True), storage_errors(uri):
            if not interrupted(uri):
                return None
            journal = _open_journal(uri)
            if not journal.started or journal.came_late:
                journal.close()
                return None
            check_readable(uri)  # or it would stop at the same place each time
            journal.repair()
            keys = _find_keys_of(uri, journal.intent())
            receipt = _complete(uri, journal, keys)
    except DatabaseBusyError:
        return _UNDER_WAY if interrupted(uri) else None
    told = (
        f"finished an interrupted forget of {format_count(receipt.pairs, 'pair')}: "
        f"receipt {receipt.receipt_id}"
    )
    sign = f"asif-lance receipt sign {receipt.receipt_id}"
    return told if keys else f"{told}, not signed: run `{sign}` where the keys are"


def verify_receipt(uri: str, receipt_id: str, *, folder: Path | None = None) -> Report:
    """Checks a receipt with the user's keys, as far as they are there; pairs that came back count.

    Keys that were replaced count, too.

    Args:
        uri: the database.
        receipt_id: an id, or a file that was handed out.
        folder: of the keys; by default the user's.

    Raises:
        InputError: there is no such receipt.
        ReceiptError: it is damaged.
    """
    keys, path = find_keys(folder), Path(receipt_id)
    public_keys = [*([keys.signer.public_key] if keys else []), *find_public_keys(folder)]
    document = Document.read(path) if path.is_file() else receipts.load_document(uri, receipt_id)[0]
    own = keys.fingerprint if keys else None
    key = find_fingerprint_keys(folder).get(document.receipt.key_id, own)
    return verify(open_path(uri), receipt_id, key=key, public_keys=public_keys)


# Steps


def _make_intent(uri: str, found: Survey, ids: Iterable[str], reason: str) -> dict[str, Any]:
    """All that finishing needs to know, as it is before the first change."""
    now = datetime.now(UTC)
    return {
        "event": "intent",
        "receipt_id": f"f{now:%Y%m%d-%H%M%S}-{secrets.token_hex(_ID_BYTES)}",
        "created_at": now.isoformat(),
        "reason": reason,
        "pair_ids": sorted(ids),
        "head": open_table(uri, "pairs").version,
        "versions": _count_pairs(uri, found),
        "indices": list(found.index_names),
        "recipes": describe_indices(open_table(uri, "pairs")),
    }


def _describe_keys(keys: Keys, content: Content) -> dict[str, Any]:
    """What a receipt needs of the keys, so that it can be made where they are not at hand."""
    prints = content.fingerprints()
    names = ("ids", "values", "vectors")
    return {
        "key_id": keys.key_id,
        "signer": keys.public,
        "fingerprints": {name: sorted(getattr(prints, name)) for name in names},
    }


def _find_keys_of(uri: str, intent: dict[str, Any]) -> Keys | None:
    """The keys with which a forget was begun; None if the user has none or others."""
    if "key_id" not in intent:  # of an earlier release
        try:
            return obtain_keys(uri)
        except InputError as error:
            raise DatabaseError(str(error)) from error
    with contextlib.suppress(KeysError):
        keys = find_keys()
        if keys is not None and keys.key_id == intent["key_id"]:
            return keys
    return None


def _complete(
    uri: str, journal: Journal, keys: Keys | None, found: Survey | None = None
) -> Receipt:
    """Takes all steps from where the journal stands.

    Without keys the receipt is not signed; without a survey it was interrupted.
    """
    intent = journal.intent()
    receipt = receipts.find_receipt(uri, intent["receipt_id"])
    if receipt is None:
        survey = found or _survey_again(uri, journal, intent)
        purge = Purge.resume(uri, intent["head"], survey, journal)
        content = _load_content(survey, journal, intent, keys)
        freed = purge.run()
        drop_gone_vectors(uri)
        _set_counts(uri, intent["versions"])
        elsewhere = erase_derived(uri, content)
        if keys is not None:
            save_hashes(uri, intent["receipt_id"], content.rows, keys.fingerprint)
        record_digests(uri)  # guesses at a file could be tested against its digest, too
        report = scan(open_path(uri), content, ignore=(JOURNAL_FILE, CONTENT_FILE))
        if keys is not None:
            new = "key_id" not in intent  # in journals of earlier releases
            intent |= _describe_keys(keys, content) if new else {"signer": keys.public}
        receipt = _make_receipt(uri, intent, purge, report, elsewhere)
        receipt = replace(receipt, bytes_freed=freed, resumed=found is None)
        if keys is not None:
            receipt = replace(receipt, shared=tuple(sorted(report.held)))
        receipt = receipts.save_receipt(uri, receipt, keys)
    journal.close()
    with step("build indices anew"):
        rebuilt = rebuild_indices(table_uri(uri, "pairs"), intent["recipes"])
    if rebuilt:
        Ledger(uri).adopt(open_table(uri, "pairs"))
    return receipt


def _survey_again(uri: str, journal: Journal, intent: dict[str, Any]) -> Survey:
    moved = {e["old"]: e["new"] for e in journal.entries() if e["event"] == "moved"}
    return locate(uri, intent["pair_ids"], moved.get(intent["head"], intent["head"]))


def _load_content(
    found: Survey, journal: Journal, intent: dict[str, Any], keys: Keys | None
) -> Content:
    """The forgotten rows, kept in the journal before the first change and taken from it after."""
    rows = journal.content()
    if rows is None:
        wanted = intent["pair_ids"]
        journal.check_content(found.found | locate_unnamed(found, wanted).found)
        rows = read_content(found, wanted)
        journal.keep_content(rows)
    key = keys.fingerprint if keys else secrets.token_bytes(KEY_BYTES)
    shared = intent.get("shared")  # not in journals of earlier releases
    return Content(key, rows, frozenset(find_shared(found, rows) if shared is None else shared))


def _make_receipt(
    uri: str, intent: dict[str, Any], purge: Purge, report: ScanReport, elsewhere: dict[str, int]
) -> Receipt:
    copies = [copy for copy in purge.copies.values() if copy is not None]
    return Receipt(
        receipt_id=intent["receipt_id"],
        created_at=datetime.fromisoformat(intent["created_at"]),
        reason=intent["reason"],
        pairs=len(intent["pair_ids"]),
        key_id=intent["key_id"],
        signer=intent["signer"],
        ids=tuple(intent["fingerprints"]["ids"]),
        values=tuple(intent["fingerprints"]["values"]),
        vectors=tuple(intent["fingerprints"]["vectors"]),
        shared=len(report.held),
        versions=tuple(_describe_rewrite(row, purge) for row in intent["versions"]),
        indices=tuple(intent["indices"]),
        elsewhere=elsewhere,
        fragments=len(purge.copies),
        bytes_written=sum(f.file_size_bytes or 0 for copy in copies for f in copy.files),
        bytes_freed=0,
        record=report.record,
        files_scanned=report.files,
        bytes_scanned=report.bytes,
        findings=list_findings(report.hits + report.doubtful),
        clean=not report.hits and not report.doubtful,
        surfaces=receipts.judge_surfaces(uri, report, elsewhere, intent["indices"]),
        resumed=False,
        not_covered=receipts.list_uncovered(uri),
        twins=intent.get("twins"),
    )


def _describe_rewrite(row: dict[str, Any], purge: Purge) -> RewrittenVersion:
    before = row["lance_version"]
    after = purge.moved.get(before, before)
    return RewrittenVersion(row["name"], before, after, row["pairs_before"], row["pairs"])


def _count_pairs(uri: str, found: Survey) -> list[dict[str, Any]]:
    """Each version's counts as they will be, for the table `versions` and the receipt."""
    ledger = Ledger(uri)
    versions = ledger.lance_versions()
    before: State | None = None
    counts = []
    for row in (row for row in ledger.rows() if row["name"] in versions):
        state = found.states[versions[row["name"]]]
        old = before.shown if before else frozenset[str]()
        changed = _find_changed(uri, before, state) if before and row["removed"] else set()
        counts.append(
            {
                "name": row["name"],
                "lance_version": state.version,
                "pairs_before": row["pairs"],
                "pairs": row["pairs"] - len(state.shown),
                "added": max(row["added"] - len(state.shown - old | changed), 0),
                "removed": max(row["removed"] - len(old - state.shown | changed), 0),
            }
        )
        before = state
    return counts


def _find_changed(uri: str, before: State, after: State) -> AbstractSet[str]:
    """The pairs to be forgotten that both states show, with other content in each."""
    both = before.shown & after.shown
    if not both or {part.key for part in before.parts} == {part.key for part in after.parts}:
        return set()
    old, new = (open_table(uri, "pairs", state.version) for state in (before, after))
    return both & set(find_changes(old, new).changed)


def _set_counts(uri: str, counts: list[dict[str, Any]]) -> None:
    ledger = Ledger(uri)
    new = {row["name"]: {key: row[key] for key in ("pairs", "added", "removed")} for row in counts}
    changed = [{**row, **new[row["name"]]} for row in ledger.rows() if row["name"] in new]
    if changed:
        ledger.write(changed)


def _open_journal(uri: str) -> Journal:
    return Journal(open_path(uri))
