"""What a bill says: counts by source and licence, the encoders, what was refused and forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pyarrow.compute as pc

from asif_lance.bill.licenses import find_spdx_id
from asif_lance.database import LATEST, retry_read
from asif_lance.encoders import EncoderCard, read_card
from asif_lance.errors import printable
from asif_lance.forgetting import WaiverRecord, list_waivers, load_receipts
from asif_lance.ingest import RESERVED
from asif_lance.store import PairStore


@dataclass(frozen=True, slots=True)
class SourceCount:
    """The pairs of one source under one licence.

    Attributes:
        source: its name; empty for pairs that name none.
        license: as the pairs have it; empty likewise.
        spdx: the licence's SPDX identifier, where that is certain; else empty.
        pairs: how many.
        pictures: different pictures among them, of those whose bytes were seen.
    """

    source: str
    license: str
    spdx: str
    pairs: int
    pictures: int


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One act of forgetting, as its receipt says.

    Attributes:
        receipt_id: of the receipt.
        created_at: UTC.
        pairs: how many were forgotten.
        clean: whether nothing of them was found afterwards.
        reason: as given, unless it was redacted.
    """

    receipt_id: str
    created_at: datetime
    pairs: int
    clean: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ChangesSince:
    """What a version has that an earlier one had not, and the other way round.

    Attributes:
        version: the earlier one.
        added, removed, changed: pairs.
        sources: (source, added, removed, changed), for the sources that differ.
        licenses: the same for licences.
    """

    version: str
    added: int
    removed: int
    changed: int
    sources: tuple[tuple[str, int, int, int], ...]
    licenses: tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Bill:
    """What one model version is made of.

    Attributes:
        database: the last part of the database's address.
        model: the version's name.
        model_made_at: UTC.
        bill_made_at: UTC.
        pairs: pairs in the version.
        reserved: those among them that were flagged because their rights are reserved.
        sources: by source and licence, most pairs first.
        licenses: (licence, pairs), most first: SPDX identifiers where they are certain.
        encoders: image side, text side.
        refused: (reason, items) of everything that ingests into this database refused, most first;
            an item that several refused for one reason counts once.
        forgotten: what was forgotten from any version of this database, oldest first.
        let_in: waivers by which pairs came in although they had, or might have, been forgotten.
        since: what changed since another version, if that was asked.
    """

    database: str
    model: str
    model_made_at: datetime
    bill_made_at: datetime
    pairs: int
    reserved: int
    sources: tuple[SourceCount, ...]
    licenses: tuple[tuple[str, int], ...]
    encoders: tuple[EncoderCard, EncoderCard]
    refused: tuple[tuple[str, int], ...]
    forgotten: tuple[Forgotten, ...]
    let_in: tuple[WaiverRecord, ...]
    since: ChangesSince | None


def make_bill(store: PairStore, version: str = LATEST, *, since: str | None = None) -> Bill:
    """The bill of a model version.

    Args:
        store: the database.
        version: a version's name or alias.
        since: another one, to say what changed since.

    Raises:
        VersionNotFoundError: there is no such version.
        ReceiptError: a receipt is damaged.
    """
    model = store.version(version)
    sources = _count_sources(store, model.name)
    return Bill(
        database=printable(store.uri.rstrip("/").rsplit("/", 1)[-1]),
        model=model.name,
        model_made_at=model.created_at,
        bill_made_at=datetime.now(UTC),
        pairs=sum(one.pairs for one in sources),
        reserved=_count_reserved(store, model.name),
        sources=sources,
        licenses=_count_licenses(sources),
        encoders=(read_card(store.image), read_card(store.text)),
        refused=_count_refused(store),
        forgotten=tuple(
            Forgotten(r.receipt_id, r.created_at, r.pairs, r.clean, r.reason)
            for r in load_receipts(store.uri)
        ),
        let_in=tuple(list_waivers(store.uri)),
        since=_compare(store, since, model.name) if since else None,
    )


def _count_sources(store: PairStore, version: str) -> tuple[SourceCount, ...]:
    rows = pl.DataFrame(store.read(version, ["source", "license", "image_sha256"]))
    counts = (
        rows.with_columns(pl.col("source", "license").fill_null("").str.strip_chars())
        .group_by("source", "license")
        .agg(pairs=pl.len(), pictures=pl.col("image_sha256").drop_nulls().n_unique())
        .sort(["pairs", "source", "license"], descending=[True, False, False])
    )
    known = {license: find_spdx_id(license) for license in counts["license"].unique()}
    return tuple(
        SourceCount(source, license, known[license], pairs, pictures)
        for source, license, pairs, pictures in counts.iter_rows()
    )


def _count_reserved(store: PairStore, version: str) -> int:
    # Within a text the quotes would be escaped, so this is a key.
    key = f'"{RESERVED}":'

    def count() -> int:
        batches = store.dataset(version).scanner(columns=["attributes"]).to_batches()
        found = (pc.sum(pc.match_substring(batch["attributes"], key)).as_py() for batch in batches)
        return sum(one or 0 for one in found)

    return retry_read(store.uri, count)


def _count_licenses(sources: tuple[SourceCount, ...]) -> tuple[tuple[str, int], ...]:
    counts: dict[str, int] = {}
    for one in sources:
        name = one.spdx or one.license
        counts[name] = counts.get(name, 0) + one.pairs
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _count_refused(store: PairStore) -> tuple[tuple[str, int], ...]:
    rejects = pl.DataFrame(store.rejects().select(["source", "item", "reason"])).unique()
    counts = rejects.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
    return tuple((str(reason), int(items)) for reason, items in counts.iter_rows())


def _compare(store: PairStore, since: str, version: str) -> ChangesSince:
    earlier = store.version(since).name
    diff = store.diff(earlier, version)
    changes = diff.changes
    return ChangesSince(
        version=earlier,
        added=len(changes.added),
        removed=len(changes.removed),
        changed=len(changes.changed),
        sources=_rows(diff.by_source),
        licenses=_rows(diff.by_license),
    )


def _rows(counts: Mapping[str, Mapping[str, int]]) -> tuple[tuple[str, int, int, int], ...]:
    return tuple((n, c["added"], c["removed"], c["changed"]) for n, c in counts.items())
