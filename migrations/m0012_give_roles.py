"""A pair may be an example: a labelled picture, apart from the ordinary pairs; see column `role`.

The column is added at head. Model versions of before go on without it: all their pairs are
ordinary.
"""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

ROLE = pa.field("role", pa.string())


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Adds the column, which stays empty; an interrupted first try may have added it already."""
    table = lance.dataset(f"{uri}/pairs.lance")
    if ROLE.name not in table.schema.names:
        table.add_columns(ROLE)
