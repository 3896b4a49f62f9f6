"""The receipts of a database, each linked by hash to the one before.

Links show what was altered, replaced, added or taken out anywhere but at the end: that receipts
were cut off there shows only against a newer receipt that somebody keeps elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
from securesystemslib.signer import SSlibKey

from asif_lance.errors import ReceiptError
from asif_lance.verifier.documents import Document
from asif_lance.verifier.files import open_lance, panics_as_errors

# Columns that repeat what the document says, so that SQL can read them.
_REPEATED = ("receipt_id", "created_at", "reason", "pairs", "clean")


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of the table `receipts`; `number` is 0 in the earlier format."""

    row: dict[str, Any]
    document: Document

    @property
    def name(self) -> str:
        """How people are told of it."""
        receipt = self.document.receipt
        return f"receipt {receipt.number or '(unsigned)'} {receipt.receipt_id}"


def read_receipts(database: Path) -> tuple[list[Stored], list[str]]:
    """All receipts in the order of the chain, those of the earlier format first; and problems."""
    try:
        with panics_as_errors():
            rows = lance.dataset(str(database / "receipts.lance")).to_table().to_pylist()
    except (OSError, ValueError, RuntimeError) as error:
        return [], [f"the table of receipts cannot be read: {type(error).__name__}"]
    stored, problems = [], []
    for row in rows:
        try:
            stored.append(Stored(row, Document.parse(row["body"])))
        except ReceiptError as error:
            problems.append(f"receipt {row['receipt_id']}: {error}")
    return sorted(stored, key=_place), problems


def holds_only(path: Path, stored: Sequence[Stored]) -> bool:
    """Whether a data file has nothing but receipts of this chain, signed or not yet."""
    known = {one.document.link("") for one in stored}
    try:
        with panics_as_errors():
            rows = open_lance(path).read_all().to_table().to_pylist()
        read = [Stored(row, Document.parse(row["body"])) for row in rows]
        return all(r.document.link("") in known and not _compare_row(r) for r in read)
    except (OSError, ValueError, KeyError, RuntimeError, ReceiptError):
        return False


def find_problems(stored: Sequence[Stored]) -> list[str]:
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


def find_strangers(stored: Sequence[Stored], keys: Sequence[SSlibKey]) -> list[str]:
    """Receipts that are signed, but by none of these keys."""
    signed = [one for one in stored if one.document.signed]
    return [one.name for one in signed if not any(map(one.document.signed_by, keys))]


def _place(one: Stored) -> tuple[Any, ...]:
    receipt = one.document.receipt
    return (receipt.number, receipt.created_at, receipt.receipt_id)


def _compare_row(one: Stored) -> list[str]:
    receipt = one.document.receipt
    expected = {name: getattr(receipt, name) for name in _REPEATED}
    expected |= {"number": receipt.number or None} if "number" in one.row else {}
    wrong = [name for name, value in expected.items() if one.row[name] != value]
    return [f"{one.name}: the table says something else than the receipt: {n}" for n in wrong]
