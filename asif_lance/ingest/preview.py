"""What an ingest would make of some sources, without adding anything to the database."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from asif_lance.ingest.pipeline import IngestOptions, ingest_sources
from asif_lance.records import BROUGHT, Reject
from asif_lance.store import PairStore


def read_pairs(
    store: PairStore, sources: Sequence[str | Path], options: IngestOptions
) -> tuple[pa.Table, tuple[Reject, ...]]:
    """What `ingest` would make of some sources, by way of a database that is thrown away."""
    image, text = (None if p.name == BROUGHT else p.name for p in (store.image, store.text))
    options = replace(options, image_encoder=image, text_encoder=text)
    with tempfile.TemporaryDirectory() as folder:
        uri = str(Path(folder) / "whatif.lancedb")
        report = ingest_sources(uri, sources, options)
        pairs = PairStore.open(uri).dataset("latest").to_table()
    return pairs, report.rejects
