"""The receipts of a database, each linked by hash to the one before.

Links show what was altered, replaced, added or taken out anywhere but at the end. That receipts
were cut off there shows by the table `sealed_hashes`, which has a row for each; if it was cut, too,
only against a newer receipt that somebody keeps elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
from securesystemslib.signer import SSlibKey

from asif_lance.errors import ReceiptError
from asif_lance.object_stores import fetch_file, is_there
from asif_lance.verifier.documents import Document
from asif_lance.verifier.files import open_lance, panics_as_errors

#: The journal of a forget under way, in the database's directory; see `forgetting.journal`.
JOURNAL_FILE = ".asif-forget.jsonl"
#: The rows that it is about.
CONTENT_FILE = ".asif-forget.arrow"

_RECEIPTS, _SEALED = "receipts.lance", "sealed_hashes.lance"
# Columns that repeat what the document says, so that SQL can read them.
_REPEATED = ("receipt_id", "created_at", "reason", "pairs", "clean")


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A row of the table `receipts`; `number` is 0 in the earlier format."""

    row: dict[str, Any]
    document: Document

    @property
    def name(self) -> str:
        """How people are told of it."""
        receipt = self.document.receipt
        return f"receipt {receipt.number or '(unsigned)'} {receipt.receipt_id}"


def read_receipts(database: Path) -> tuple[list[StoredReceipt], list[str]]:
    """All receipts in the order of the chain, those of the earlier format first; and problems."""
    if not (database / _RECEIPTS).is_dir():
        return [], ["there is no table of receipts"]
    try:
        with panics_as_errors():
            table = lance.dataset(str(database / _RECEIPTS)).to_table()
    except (OSError, ValueError, RuntimeError):
        return [], ["the table of receipts cannot be read: it is damaged"]
    for column in (*_REPEATED, "body"):
        if column not in table.column_names:
            return [], [f"the table of receipts has no column {column!r}"]
    stored, problems = [], []
    for row in table.to_pylist():
        try:
            stored.append(StoredReceipt(row, Document.parse(row["body"])))
        except ReceiptError as error:
            problems.append(f"receipt {row['receipt_id']}: {error}")
    return sorted(stored, key=_place), problems


def find_lost_receipts(database: Path) -> list[str]:
    """Ids of receipts that are gone, though the table `sealed_hashes` has their rows.

    A receipt is the last that a forget writes. One that was killed before has left its journal, and
    is finished by whoever opens the database. What cannot be read is told by whoever reads it.
    """
    try:
        expected = _read_ids(database / _SEALED)
        # In this order: a forget that ends meanwhile stores its receipt before the journal goes.
        if not expected or is_there(database / JOURNAL_FILE):
            return []
        return sorted(expected - _read_ids(database / _RECEIPTS))
    except (OSError, ValueError, RuntimeError):
        return []


def _read_ids(table: Path) -> set[str]:
    with panics_as_errors():
        rows = lance.dataset(str(table)).to_table(["receipt_id"])
    return set(rows["receipt_id"].to_pylist())


def holds_only(path: Path, stored: Sequence[StoredReceipt]) -> bool:
    """Whether a data file has nothing but receipts of this chain, signed or not yet."""
    known = {one.document.link("") for one in stored}
    try:
        with panics_as_errors(), fetch_file(path) as file:
            rows = open_lance(file).read_all().to_table().to_pylist()
        read = [StoredReceipt(row, Document.parse(row["body"])) for row in rows]
        return all(r.document.link("") in known and not _compare_row(r) for r in read)
    except (OSError, ValueError, KeyError, RuntimeError, ReceiptError):
        return False


def find_problems(stored: Sequence[StoredReceipt]) -> list[str]:
    """What is wrong with a chain; nothing if it is whole."""
    problems, link = [], ""
    for count, one in enumerate(stored, start=1):
        receipt = one.document.receipt
        problems += _compare_row(one)
        if one.document.envelope is not None:
            if receipt.number != count:
                problems.append(f"{one.name}: it is number {count} of those that are here")
            if receipt.previous != link:
                problems.append(f"{one.name}: what came before is not what it was made after")
            if one.document.signed and not one.document.signed_by_its_signer():
                problems.append(f"{one.name}: it was altered after it was signed")
        link = one.document.link(link)
    return problems


def find_strangers(stored: Sequence[StoredReceipt], keys: Sequence[SSlibKey]) -> list[str]:
    """Receipts that are signed, but by none of these keys."""
    signed = [one for one in stored if one.document.signed]
    return [one.name for one in signed if not any(map(one.document.signed_by, keys))]


def _place(one: StoredReceipt) -> tuple[Any, ...]:
    receipt = one.document.receipt
    return (receipt.number, receipt.created_at, receipt.receipt_id)


def _compare_row(one: StoredReceipt) -> list[str]:
    receipt = one.document.receipt
    expected = {name: getattr(receipt, name) for name in _REPEATED}
    expected |= {"number": receipt.number or None} if "number" in one.row else {}
    wrong = [name for name, value in expected.items() if one.row[name] != value]
    return [f"{one.name}: the table says something else than the receipt: {n}" for n in wrong]
