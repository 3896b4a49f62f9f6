"""Receipts are signed and linked, each with its number; a timestamp can be attached to them.

What is stored as the body of a new receipt no earlier release can read.
"""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

COLUMNS = (pa.field("number", pa.int64()), pa.field("timestamp", pa.binary()))


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Adds the columns, which stay empty; an interrupted first try may have added some already."""
    for column in COLUMNS:
        table = lance.dataset(f"{uri}/receipts.lance")
        if column.name not in table.schema.names:
            table.add_columns(column)
