"""A pair may be of a picture with several captions: all of them, the first of which is `caption`.

The column is added at head. Model versions of before go on without it: nothing of theirs changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

CAPTIONS = pa.field("captions", pa.list_(pa.string()))


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Adds the column, which stays empty; an interrupted first try may have added it already."""
    table = lance.dataset(f"{uri}/pairs.lance")
    if CAPTIONS.name not in table.schema.names:
        table.add_columns(CAPTIONS)
