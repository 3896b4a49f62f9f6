"""What an ingest would do, told without writing anything.

All items are read, named and looked up, as an ingest does; encoded is only a small sample, to
estimate the time. So a damaged picture, or a forgotten one that only its vector tells, shows in a
dry run only if it is in the sample.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from asif_lance.ingest.destination import Destination
from asif_lance.ingest.hygiene import Finding
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.preparation import Preparation, write_rejects
from asif_lance.ingest.sources import Source
from asif_lance.progress import Advance
from asif_lance.records import Reject

#: New items that are shown, and those that are encoded to estimate time and room.
SHOWN, SAMPLE = 5, 32


@dataclass(frozen=True, slots=True)
class ComingPair:
    """A pair that an ingest would add or replace.

    Attributes:
        pair_id: its id.
        captions: one, or all of those that become one pair.
        image: the address of its picture, or None.
    """

    pair_id: str
    captions: tuple[str, ...]
    image: str | None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What an ingest would do.

    Attributes:
        first: the first few pairs.
        added: pairs that would be new, as far as it can be told without encoding all of them.
        already_there, changed, rejects: as in `IngestReport`.
        updated: changed pairs that would be replaced.
        sample: how many new items were encoded to try it.
        seconds: about what the ingest would take, by the sample; None where no encoder is needed.
        bytes: about what the new pairs would take on the disk.
        findings: as in `IngestReport`.
    """

    first: tuple[ComingPair, ...]
    added: int
    already_there: int
    changed: int
    updated: int
    rejects: tuple[Reject, ...]
    sample: int
    seconds: float | None
    bytes: int
    findings: tuple[Finding, ...] = ()

    def write_rejects(self, path: Path) -> None:
        """Write the refused items as CSV: source, item, reason."""
        write_rejects(self.rejects, path)


def try_ingest(
    uri: str | Path,
    sources: Sequence[Source],
    options: IngestOptions | None = None,
    *,
    progress: Advance | None = None,
) -> DryRun:
    """Say what `ingest_sources` would do; nothing is written, no database is made.

    Args:
        uri: the database, which need not be there.
        sources: as for `ingest_sources`.
        options: how.
        progress: called with the number of items done since the last call.

    Raises:
        SourceError, EncoderMismatchError, EncoderUnavailableError, KeysError: as there.
    """
    options = options or IngestOptions()
    destination = Destination(str(uri), options)
    destination.look_up_forgotten()
    prepared = Preparation(destination, options, skip_known=True, progress=progress)
    begun, count, sample = time.monotonic(), 0, list[pl.DataFrame]()
    for frame in prepared.new_items(sources):
        sample.append(frame.head(SAMPLE - sum(map(len, sample))))
        count += len(frame)
        if progress is not None:
            progress(len(frame))
    reading = time.monotonic() - begun
    tried = [frame for frame in sample if len(frame)]
    refused = len(prepared.rejects)
    seconds, size, made = _try(destination, prepared, tried)
    count -= len(prepared.rejects) - refused
    updated = prepared.changed if options.on_conflict == "update" else 0
    return DryRun(
        first=tuple(pair for frame in tried for pair in _describe(frame))[:SHOWN],
        added=count - updated,
        already_there=prepared.already_there,
        changed=prepared.changed,
        updated=updated,
        rejects=tuple(prepared.rejects),
        sample=made,
        seconds=reading + seconds * count if destination.encodes and made else None,
        bytes=int(size * count),
        findings=prepared.findings,
    )


def _try(
    destination: Destination, prepared: Preparation, sample: Sequence[pl.DataFrame]
) -> tuple[float, float, int]:
    """Seconds and bytes of a pair, and how many pairs were made to know it."""
    for frame in sample[:1]:  # so that loading the encoders is not taken for the pairs' time
        destination.load(*(s for s in ("image", "text") if not frame[f"{s}_vector"].count()))
    begun, size, made = time.monotonic(), 0, 0
    for pairs in prepared.encode(iter(sample)):
        size += pairs.nbytes
        made += len(pairs)
    return (time.monotonic() - begun) / max(made, 1), size / max(made, 1), made


def _describe(frame: pl.DataFrame) -> list[ComingPair]:
    return [
        ComingPair(row["pair_id"], tuple(row["captions"] or [row["caption"]]), row["image_uri"])
        for row in frame.select("pair_id", "caption", "captions", "image_uri").to_dicts()
    ]
