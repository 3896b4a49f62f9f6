"""Receipts of forgetting: what was done and checked, without what was forgotten."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa

from asif_lance.database import append_rows, read_table, schemas
from asif_lance.errors import InputError
from asif_lance.forgetting.fingerprints import Fingerprints
from asif_lance.forgetting.verify import Hit

# No program that sees only the database's directory can vouch for these.
NOT_COVERED = (
    "backups, snapshots of the file system and versions that an object store keeps of its own",
    "copies, clones and exports of the database",
    "disk blocks that were freed but not yet overwritten",
    "memory of processes that read the database before",
    "the original pictures and captions outside the database",
)


@dataclass(frozen=True, slots=True)
class RewrittenVersion:
    """What forgetting did to one model version.

    Attributes:
        name: `v3`.
        lance_before: the Lance version that the name meant.
        lance_after: the one that it means now; the same when nothing had to change.
        pairs_before: how many pairs it had.
        pairs_after: how many it has now.
    """

    name: str
    lance_before: int
    lance_after: int
    pairs_before: int
    pairs_after: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of one forgetting.

    Attributes:
        receipt_id: names it.
        created_at: when the forgetting began; UTC.
        reason: why, in the user's words.
        pairs: how many pairs were forgotten.
        salt: hex key of the fingerprints.
        ids: fingerprints of the pairs' ids (keyed blake2b).
        values: fingerprints of their ids, texts and pictures.
        vectors: fingerprints of their vectors.
        versions: what happened to each model version.
        indices: search indices that were dropped, for they remember rows.
        elsewhere: rows removed or changed in other tables and caches, by eraser.
        fragments: how many fragments were rewritten, each once.
        bytes_written: the size of what was written for them.
        bytes_freed: how much the clean-up removed.
        files_scanned: files that were searched afterwards, all there were.
        bytes_scanned: their size.
        shared: values sought that pairs which stay have too.
        findings: what was found nevertheless, `file: where`; empty when clean.
        clean: nothing was found.
        resumed: the forgetting had been killed, and was finished later.
        not_covered: what the receipt does not cover.
    """

    receipt_id: str
    created_at: datetime
    reason: str
    pairs: int
    salt: str
    ids: tuple[str, ...]
    values: tuple[str, ...]
    vectors: tuple[str, ...]
    versions: tuple[RewrittenVersion, ...]
    indices: tuple[str, ...]
    elsewhere: dict[str, int]
    fragments: int
    bytes_written: int
    bytes_freed: int
    files_scanned: int
    bytes_scanned: int
    shared: int
    findings: tuple[str, ...]
    clean: bool
    resumed: bool
    not_covered: tuple[str, ...] = NOT_COVERED

    def fingerprints(self) -> Fingerprints:
        """What to look for to check it again."""
        return Fingerprints(
            bytes.fromhex(self.salt),
            ids=frozenset(self.ids),
            values=frozenset(self.values),
            vectors=frozenset(self.vectors),
        )


def list_findings(hits: tuple[Hit, ...]) -> tuple[str, ...]:
    """Findings as a receipt lists them: where, not what; each place once."""
    return tuple(dict.fromkeys(f"{hit.file}: {hit.where}" for hit in hits))


def save_receipt(uri: str, receipt: Receipt) -> None:
    """Adds a receipt to the table `receipts`."""
    row = {name: getattr(receipt, name) for name in schemas.RECEIPTS.names if name != "body"}
    row["body"] = json.dumps({**asdict(receipt), "created_at": receipt.created_at.isoformat()})
    append_rows(uri, "receipts", pa.Table.from_pylist([row], schema=schemas.RECEIPTS))


def load_receipts(uri: str) -> list[Receipt]:
    """All receipts, oldest first."""
    rows = read_table(uri, "receipts").sort_by("created_at")
    return [_parsed(body) for body in rows["body"].to_pylist()]


def load_receipt(uri: str, receipt_id: str) -> Receipt:
    """One receipt.

    Raises:
        InputError: there is none of this name.
    """
    for receipt in load_receipts(uri):
        if receipt.receipt_id == receipt_id:
            return receipt
    raise InputError(f"no receipt {receipt_id!r} in {uri}")


def _parsed(body: str) -> Receipt:
    values = json.loads(body)
    values["created_at"] = datetime.fromisoformat(values["created_at"])
    values["versions"] = tuple(RewrittenVersion(**version) for version in values["versions"])
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Receipt(**{**values, **lists})
