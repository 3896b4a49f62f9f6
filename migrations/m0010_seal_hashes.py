"""Quick hashes of what was forgotten, so that new pairs are looked up without reading receipts.

Receipts that are there already stay without: what they are about is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

SEALED_HASHES = pa.schema(
    [
        pa.field("receipt_id", pa.string(), nullable=False),
        pa.field("key_id", pa.string(), nullable=False),
        pa.field("sealed", pa.list_(pa.uint64()), nullable=False),
    ]
)


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty table; an interrupted first try may have made it already."""
    path = f"{uri}/sealed_hashes.lance"
    try:
        lance.dataset(path)
    except ValueError as error:
        if "was not found" not in str(error):
            raise
        lance.write_dataset(SEALED_HASHES.empty_table(), path, data_storage_version="2.2")
