"""What an ingest would make of some sources, without adding anything to the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from asif_lance.database import pair_rows, schemas
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.expansion import expand_sources
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.preparation import Preparation
from asif_lance.ingest.sources import Source
from asif_lance.records import BROUGHT, Reject
from asif_lance.store import PairStore


def read_pairs(
    store: PairStore, sources: Sequence[Source], options: IngestOptions
) -> tuple[pa.Table, tuple[Reject, ...]]:
    """The pairs that some sources would become, known ones too, and what would be refused.

    Vectors without an encoder's name count as made by the database's own.

    Raises:
        SourceError, EncoderMismatchError, EncoderUnavailableError: as `ingest_sources`.
    """
    image, text = (None if p.name == BROUGHT else p.name for p in (store.image, store.text))
    options = replace(options, image_encoder=image, text_encoder=text)
    prepared = Preparation(Destination(store.uri, options), options)
    schema = schemas.pairs_schema(store.image.dimension, store.text.dimension)
    tables = [
        pair_rows.conform(pair_rows.add_ingest_time(rows), schema)
        for rows in prepared.tables(expand_sources(sources))
    ]
    return pa.concat_tables([schema.empty_table(), *tables]), tuple(prepared.rejects)
