"""What was forgotten, why, and how it was checked."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

RECEIPTS = pa.schema(
    [
        pa.field("receipt_id", pa.string(), nullable=False),
        pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("clean", pa.bool_(), nullable=False),
        pa.field("body", pa.string(), nullable=False),
    ]
)


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty table; an interrupted first try may have made it already."""
    path = f"{uri}/receipts.lance"
    try:
        lance.dataset(path)
    except ValueError as error:
        if "was not found" not in str(error):
            raise
        lance.write_dataset(RECEIPTS.empty_table(), path, data_storage_version="2.2")
