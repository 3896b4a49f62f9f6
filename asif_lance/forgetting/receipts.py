"""Receipts of forgetting made, stored and found; what they say is `verifier.documents`."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import rfc8785
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signer

from asif_lance.database import (
    CACHES,
    TABLES,
    WriteLock,
    append_rows,
    check_conditions,
    read_table,
    schemas,
    upsert_rows,
)
from asif_lance.errors import InputError, KeysError, ReceiptError
from asif_lance.forgetting.keys import Keys
from asif_lance.object_stores import is_remote
from asif_lance.verifier import (
    ERASED,
    NO_BASELINE,
    NOT_COVERED,
    REDACTED,
    RESIDUAL,
    Document,
    Receipt,
    ScanReport,
    Surface,
    check_timestamp,
    hash_reason,
    name_surface,
)
from asif_lance.verifier.documents import PAYLOAD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE

# No program that sees only the database's directory can vouch for these.
OUT_OF_REACH = (
    "backups, snapshots of the file system and versions that an object store keeps of its own",
    "copies, clones and exports of the database",
    "disk blocks that were freed but not yet overwritten",
    "memory of processes that read the database before",
    "the original pictures and captions outside the database",
)
# The same of a database in an object store.
_OF_CACHES = (
    "vectors that other machines hold of this database: each removes them when it opens it next"
)
_OF_BUCKETS = (
    "what was deleted or replaced: this bucket keeps versions of its objects, until a rule of its "
    "own or whoever owns it removes these"
)
# What could be in a database and is not looked for, or not in every way.
NOT_SOUGHT = (
    "labels and templates that somebody asked with, even if they read like a caption",
    "single characters in other texts; texts of two or three letters in files that are no texts",
    "in files of Lance, receipts and digests: words that they are made of, as names of columns",
    "parts of captions and values: all is sought whole, and by whole words",
    "texts that are not in UTF-8, and what is packed or encrypted in a format unknown here",
)
_INDICES = "search indices"
_SALT_BYTES = 16


def list_uncovered(uri: str) -> tuple[str, ...]:
    """What a receipt of this database cannot vouch for."""
    if not is_remote(uri):
        return (*OUT_OF_REACH, *NOT_SOUGHT)
    kept = (_OF_BUCKETS,) if check_conditions(uri) else ()
    return (*kept, _OF_CACHES, *OUT_OF_REACH, *NOT_SOUGHT)


def judge_surfaces(
    uri: str, report: ScanReport, elsewhere: Mapping[str, int], indices: Iterable[str]
) -> tuple[Surface, ...]:
    """A verdict for each place that was searched, and for those that nobody can search.

    Args:
        uri: the database.
        report: what the search found.
        elsewhere: what each eraser took away: the proof that there was something.
        indices: search indices that were dropped.
    """
    stored = (*TABLES, *CACHES)
    held = {"pairs"} | ({_INDICES} if list(indices) else set())
    held |= {one.name for one in stored if one.eraser and elsewhere.get(one.eraser)}
    searched = {name_surface(file.path) for file in report.record} | held
    residual = {name_surface(hit.file) for hit in report.hits}
    doubtful = {name_surface(hit.file) for hit in report.doubtful}
    order = dict.fromkeys(["pairs", _INDICES, *(one.name for one in stored), *sorted(searched)])

    def judge(name: str) -> str:
        if name in residual:
            return RESIDUAL
        if name in doubtful:
            return NOT_COVERED
        return ERASED if name in held else NO_BASELINE

    verdicts = tuple(Surface(name, judge(name)) for name in order if name in searched)
    return verdicts + tuple(Surface(name, NOT_COVERED) for name in list_uncovered(uri))


def write_document(receipt: Receipt, signer: Signer | None) -> Document:
    """A receipt in its envelope, signed unless there is nobody to sign; its reason lies beside."""
    salt = secrets.token_hex(_SALT_BYTES)
    receipt = replace(receipt, reason_hash=hash_reason(receipt.reason, salt))
    # Without the record of files, thousands maybe, that `asdict` would copy to be dropped.
    predicate = asdict(replace(receipt, record=()))
    predicate["created_at"] = receipt.created_at.isoformat()
    del predicate["record"], predicate["salt"], predicate["reason"]
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": f.path, "digest": {"sha256": f.sha256}, "annotations": {"bytes": f.bytes}}
            for f in receipt.record
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    envelope = Envelope(rfc8785.dumps(statement), PAYLOAD_TYPE, {})
    aside = {"reason": {"text": receipt.reason, "salt": salt}}
    return sign(Document(receipt, json.dumps(aside), envelope, salt), signer)


def sign(document: Document, signer: Signer | None) -> Document:
    """The same receipt with a signature more."""
    envelope = document.envelope
    if envelope is None:
        raise InputError("a receipt of the earlier format cannot be signed")
    if signer is not None:
        envelope.sign(signer)
    return _spell(document, json.loads(document.body).get("reason"))


def _spell(document: Document, aside: dict[str, str] | None) -> Document:
    """A document written down, with the reason that lies beside its envelope, if any."""
    content = json.loads(document.sealed) | ({"reason": aside} if aside else {})
    return replace(document, body=rfc8785.dumps(content).decode())


def redact_reason(document: Document) -> Document | None:
    """The same receipt without its reason; None if the reason itself is signed and has to stay."""
    if not document.reason_salt:
        return None
    receipt = replace(document.receipt, reason=REDACTED)
    return replace(_spell(document, None), receipt=receipt, reason_salt="")


def save_receipt(uri: str, receipt: Receipt, keys: Keys | None) -> Receipt:
    """Links a receipt to those before, signs it and adds it to the table `receipts`."""
    number, previous = _find_end(uri)
    receipt = replace(receipt, number=number, previous=previous)
    document = write_document(receipt, keys.signer if keys else None)
    append_rows(uri, "receipts", make_row(document, None))
    return document.receipt


def _find_end(uri: str) -> tuple[int, str]:
    """The number of the next receipt, and the link that it has to name."""
    rows = read_table(uri, "receipts", ["receipt_id", "created_at", "number"])
    numbers = rows["number"].drop_null().to_pylist()
    where = f"number = {max(numbers)}" if numbers else None
    last = read_table(uri, "receipts", where=where).sort_by(
        [("created_at", "ascending"), ("receipt_id", "ascending")]
    )
    link = ""
    for body in last["body"].to_pylist():
        link = _link(body, link)
    return max(numbers, default=len(rows)) + 1, link


def _link(body: str, previous: str) -> str:
    """A damaged receipt is for the verifier to tell, and keeps nobody from forgetting."""
    try:
        return Document.parse(body).link(previous)
    except ReceiptError:
        return hashlib.sha256((previous + body).encode()).hexdigest()


def find_receipt(uri: str, receipt_id: str) -> Receipt | None:
    """What one receipt says, or None if there is none of this name.

    Raises:
        ReceiptError: it is damaged.
    """
    found = _find_row(uri, receipt_id)
    return _parse(found).receipt if found else None


def load_documents(uri: str) -> list[Document]:
    """All receipts as they are stored, oldest first.

    Raises:
        ReceiptError: one is damaged.
    """
    documents = map(_parse, read_table(uri, "receipts", ["receipt_id", "body"]).to_pylist())
    return sorted(documents, key=lambda d: (d.receipt.number, d.receipt.created_at))


def _parse(row: Mapping[str, Any]) -> Document:
    try:
        return Document.parse(row["body"])
    except ReceiptError as error:
        raise ReceiptError(f"receipt {row['receipt_id']} is damaged: {error}") from error


def load_receipts(uri: str) -> list[Receipt]:
    """What all receipts say, oldest first.

    Raises:
        ReceiptError: one is damaged.
    """
    return [document.receipt for document in load_documents(uri)]


def load_receipt(uri: str, receipt_id: str) -> Receipt:
    """What one receipt says.

    Raises:
        InputError: there is none of this name.
        ReceiptError: it is damaged.
    """
    return load_document(uri, receipt_id)[0].receipt


def load_document(uri: str, receipt_id: str) -> tuple[Document, bytes | None]:
    """One receipt as it is stored, and its timestamp.

    Raises:
        InputError: there is none of this name.
        ReceiptError: it is damaged.
    """
    row = _find_row(uri, receipt_id)
    if row is None:
        raise InputError(f"no receipt {receipt_id!r} in {uri}")
    return _parse(row), row["timestamp"]


def _find_row(uri: str, receipt_id: str) -> dict[str, Any] | None:
    """Reads one body only: receipts name every file that was searched."""
    if receipt_id not in read_table(uri, "receipts", ["receipt_id"])["receipt_id"].to_pylist():
        return None
    [row, *_] = read_table(uri, "receipts", where=f"receipt_id = '{receipt_id}'").to_pylist()
    return dict(row)


def sign_receipt(uri: str, receipt_id: str, keys: Keys) -> None:
    """Signs a receipt that was stored where the signing key was not at hand.

    Raises:
        InputError: there is no such receipt, it is signed, or of the earlier format.
        KeysError: it names another signer.
    """
    with WriteLock(uri).hold("receipt sign"):
        document, _ = load_document(uri, receipt_id)
        if document.signed:
            raise InputError(f"receipt {receipt_id} is signed already")
        if document.receipt.signer not in ("", keys.public):
            raise KeysError(f"receipt {receipt_id} names another signer than {keys.folder} has")
        _replace_row(uri, sign(document, keys.signer), None)


def attach_timestamp(uri: str, receipt_id: str, response: bytes) -> str:
    """Keeps an authority's response with its receipt; returns what it says.

    Raises:
        InputError: there is no such receipt, or the response is not about it.
    """
    with WriteLock(uri).hold("receipt attach"):
        document, _ = load_document(uri, receipt_id)
        check = check_timestamp(document, response)
        if check.holds is False:
            raise InputError(f"not a timestamp of {receipt_id}: {check.told}")
        _replace_row(uri, document, response)
        return check.told


def _replace_row(uri: str, document: Document, timestamp: bytes | None) -> None:
    upsert_rows(uri, "receipts", make_row(document, timestamp), "receipt_id")


def make_row(document: Document, timestamp: bytes | None) -> pa.Table:
    """A document as a row of the table `receipts`."""
    receipt = document.receipt
    columns = ("receipt_id", "created_at", "reason", "pairs", "clean")
    row = {name: getattr(receipt, name) for name in columns}
    row |= {"body": document.body, "number": receipt.number or None, "timestamp": timestamp}
    return pa.Table.from_pylist([row], schema=schemas.RECEIPTS)
