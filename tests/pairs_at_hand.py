"""Small real databases for the tests of the store and of what stands on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from asif_lance.forgetting import Waiver
from asif_lance.records import EncoderPin
from asif_lance.store.pair_store import PairStore

IMAGE = EncoderPin("timm/test_vit", "abc123", 8)
TEXT = EncoderPin("sentence-transformers/test", "def456", 4)
AGAIN = Waiver("agreed to it again", allow_forgotten=True)


def vectors(ids: Sequence[str], dimension: int) -> pa.FixedSizeListArray:
    """Unit vectors as float16, fixed by the ids and the dimension."""
    rows = [np.random.default_rng([dimension, *i.encode()]).normal(size=dimension) for i in ids]
    unit = np.array([row / np.linalg.norm(row) for row in rows] or np.empty((0, dimension)))
    flat = pa.array(unit.astype(np.float16).ravel(), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, dimension)


def pairs(
    ids: Sequence[str], *, image: int = 8, text: int = 4, **columns: Sequence[str]
) -> pa.Table:
    """A table of pairs with these ids; further columns by keyword."""
    base = {
        "pair_id": pa.array(ids, pa.string()),
        "caption": [f"a caption about {i}" for i in ids],
        "image_uri": [f"photos/{i}.jpg" for i in ids],
        "source": ["test"] * len(ids),
        "image_vector": vectors(ids, image),
        "text_vector": vectors(ids, text),
    }
    return pa.table({**base, **columns})


def names(start: int, stop: int) -> list[str]:
    """Ids that no other part of a file contains by chance."""
    return [f"pair-{number:06d}-id" for number in range(start, stop)]


def new_store(where: Path, image: int = 8, text: int = 4) -> PairStore:
    """An empty database."""
    pins = EncoderPin(IMAGE.name, "abc123", image), EncoderPin(TEXT.name, "def456", text)
    return PairStore.create(str(where / "db"), image=pins[0], text=pins[1])


def neutral(field: pa.Field) -> Any:
    """A value that no pair has."""
    if pa.types.is_fixed_size_list(field.type):
        return np.random.default_rng(7).normal(size=field.type.list_size).tolist()
    if pa.types.is_list(field.type):
        return []
    if pa.types.is_timestamp(field.type):
        return datetime.now(UTC)
    if pa.types.is_string(field.type):
        return "neutral"
    if pa.types.is_boolean(field.type):
        return False
    return b"neutral" if pa.types.is_binary(field.type) else 0
