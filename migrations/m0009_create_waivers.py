"""What was let in although it was forgotten, or may have been, and why."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

WAIVERS = pa.schema(
    [
        pa.field("waiver_id", pa.string(), nullable=False),
        pa.field("created_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("allows", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("ids", pa.list_(pa.string()), nullable=False),
    ]
)


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty table; an interrupted first try may have made it already."""
    path = f"{uri}/waivers.lance"
    try:
        lance.dataset(path)
    except ValueError as error:
        if "was not found" not in str(error):
            raise
        lance.write_dataset(WAIVERS.empty_table(), path, data_storage_version="2.2")
