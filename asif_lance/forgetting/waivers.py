"""Waivers: pairs let in although they were forgotten, or may have been, on purpose and on record.

A record keeps the reason, and keyed fingerprints of the ids that were let in. Those pairs are not
refused again unless they are forgotten again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from asif_lance.database import append_rows, read_table, schemas
from asif_lance.errors import InputError

ALLOW_FORGOTTEN, WITHOUT_KEY = "forgotten pairs", "without key"


@dataclass(frozen=True, slots=True)
class Waiver:
    """What is let in all the same, and why.

    Attributes:
        reason: in the user's words; kept for good.
        allow_forgotten: pairs that receipts know.
        without_key: pairs that nobody can look up, for the key of some receipts is missing.

    Raises:
        InputError: there is no reason, or nothing that it allows.
    """

    reason: str
    allow_forgotten: bool = False
    without_key: bool = False

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise InputError("a waiver is kept on record, and needs a reason")
        if not (self.allow_forgotten or self.without_key):
            raise InputError("a waiver has to allow something: forgotten pairs, or a missing key")


@dataclass(frozen=True, slots=True)
class WaiverRecord:
    """What one command let in by a waiver.

    Attributes:
        waiver_id: names it.
        created_at: when; UTC.
        allows: `forgotten pairs` or `without key`.
        reason: in the user's words.
        pairs: how many pairs it let in; 0 where nobody could tell which had been forgotten.
    """

    waiver_id: str
    created_at: datetime
    allows: str
    reason: str
    pairs: int


def save_waiver(uri: str, waiver_id: str, allows: str, reason: str, ids: Iterable[str]) -> None:
    """Keeps on record what is let in; the caller holds the write lock.

    Args:
        uri: the database.
        waiver_id: the same for all that one command lets in.
        allows: what.
        reason: why.
        ids: fingerprints of the pairs' ids.
    """
    prints = sorted(ids)
    row = {
        "waiver_id": waiver_id,
        "created_at": datetime.now(UTC),
        "allows": allows,
        "reason": reason,
        "pairs": len(prints),
        "ids": prints,
    }
    append_rows(uri, "waivers", pa.Table.from_pylist([row], schema=schemas.WAIVERS))


def list_waivers(uri: str) -> list[WaiverRecord]:
    """All waivers of a database, oldest first."""
    columns = ["waiver_id", "created_at", "allows", "reason", "pairs"]
    found: dict[tuple[str, str], WaiverRecord] = {}
    rows = read_table(uri, "waivers", columns).sort_by("created_at").to_pylist()
    for row in rows:
        key = (row["waiver_id"], row["allows"])
        if key in found:
            first = found[key]
            row = {**row, "created_at": first.created_at, "pairs": first.pairs + row["pairs"]}
        found[key] = WaiverRecord(**row)
    return list(found.values())


def load_admitted(uri: str) -> dict[str, datetime]:
    """Fingerprints of the ids that waivers let in, and when they last did."""
    rows = read_table(uri, "waivers", ["created_at", "ids"]).sort_by("created_at").to_pylist()
    return {digest: row["created_at"] for row in rows for digest in row["ids"]}
