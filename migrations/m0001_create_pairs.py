"""The first schema: pairs with both embeddings, and the items that ingests refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def up(connection: Any, image: Any, text: Any) -> None:
    """Create both tables where they are missing.

    Args:
        connection: a LanceDB connection.
        image: the pinned image encoder (`name`, `revision`, `dimension`).
        text: the pinned text encoder.
    """
    pins = {
        f"asif_lance.{side}.{what}": str(getattr(pin, what))
        for side, pin in (("image", image), ("text", text))
        for what in ("name", "revision", "dimension")
    }
    connection.create_table("rejects", schema=_rejects(), exist_ok=True)
    pairs = connection.create_table(
        "pairs", schema=_pairs(image.dimension, text.dimension, pins), exist_ok=True
    )
    if not pairs.to_lance().schema.field("pair_id").metadata:
        # Concurrent upserts of the same new pair add it once only with a primary key.
        pairs.set_unenforced_primary_key("pair_id")


def _pairs(image_dimension: int, text_dimension: int, metadata: dict[str, str]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("pair_id", pa.string(), nullable=False),
            pa.field("caption", pa.string()),
            pa.field("image_uri", pa.string()),
            pa.field("image_sha256", pa.string()),
            pa.field("source", pa.string()),
            pa.field("license", pa.string()),
            pa.field("attributes", pa.string()),
            pa.field("thumbnail", pa.binary()),
            pa.field("image_vector", pa.list_(pa.float16(), image_dimension), nullable=False),
            pa.field("text_vector", pa.list_(pa.float16(), text_dimension), nullable=False),
            pa.field("ingested_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ],
        metadata=metadata,
    )


def _rejects() -> pa.Schema:
    return pa.schema(
        [
            pa.field("ingest_id", pa.string(), nullable=False),
            pa.field("source", pa.string()),
            pa.field("item", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("rejected_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ]
    )
