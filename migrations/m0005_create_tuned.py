"""Settings that `tune --store` chose for a model version."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

TUNED = pa.schema(
    [
        pa.field("version", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("k", pa.list_(pa.int64(), 2), nullable=False),
        pa.field("p", pa.list_(pa.float64(), 2), nullable=False),
        pa.field("ensemble", pa.string(), nullable=False),
        pa.field("top_1", pa.float64(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),
        pa.field("comparisons", pa.int64(), nullable=False),
        pa.field("held_out", pa.float64()),
        pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
    ]
)


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty table; an interrupted first try may have made it already."""
    path = f"{uri}/tuned.lance"
    try:
        lance.dataset(path)
    except ValueError as error:
        if "was not found" not in str(error):
            raise
        lance.write_dataset(TUNED.empty_table(), path, data_storage_version="2.2")
