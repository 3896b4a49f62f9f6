"""Runs and tuned settings name their prompt templates; those of before have none."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

TEMPLATES = pa.field("templates", pa.string())


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Adds the column to both tables; an interrupted first try may have added it already."""
    for name in ("runs", "tuned"):
        table = lance.dataset(f"{uri}/{name}.lance")
        if TEMPLATES.name not in table.schema.names:
            table.add_columns(TEMPLATES)
