"""Whether an item says something else than the pair that the database has under its id."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pyarrow as pa

from asif_lance.ingest.vector_columns import as_matrix, unit_float16
from asif_lance.records import BoolArray

# Columns that an item always has to say something about; null counts as said.
_TEXTS = ("caption", "image_uri", "license", "role")
_SIDES = ("image_vector", "text_vector")


def columns_to_compare(frame: pl.DataFrame) -> list[str]:
    """What has to be read of stored pairs to compare them with these items.

    An id that was made of the vectors says already that they are the same.
    """
    named = frame.filter(pl.col("own_id"))
    sides = [side for side in _SIDES if named[side].count()]
    return [*_TEXTS, "captions", "image_sha256", "source", "attributes", *sides]


def find_changed(frame: pl.DataFrame, stored: pa.Table) -> BoolArray:
    """(n,) which of n items differ from the stored pairs of the same ids, row by row.

    Compared are captions, addresses, licences, attributes, roles, sources that were stated rather
    than taken from a file's name, and vectors, or the pictures' digests where vectors are yet to
    be made. When a pair came in does not count.

    Args:
        frame: n items, named and with their digests.
        stored: their pairs, with the columns of `columns_to_compare`.
    """
    held = {name: pl.Series(stored[name].to_pylist(), dtype=pl.String) for name in _texts(stored)}
    differ = pl.DataFrame(
        {
            **{name: frame[name].ne_missing(held[name]) for name in _TEXTS[1:]},
            "caption": frame["caption"].fill_null("") != held["caption"],
            "source": frame["source"].ne_missing(held["source"]) & frame["own_source"],
            "picture": frame["image_sha256"].ne_missing(held["image_sha256"])
            & frame["image_vector"].is_null(),
            "attributes": _differ_as_json(frame["attributes"], held["attributes"]),
        }
    )
    captions = pl.Series(stored["captions"].to_pylist(), dtype=pl.List(pl.String))
    differ = differ.with_columns(captions=frame["captions"].ne_missing(captions))
    changed: BoolArray = differ.select(pl.any_horizontal(pl.all())).to_series().to_numpy().copy()
    for side in _SIDES:
        if side in stored.schema.names:
            changed |= _differ_as_vectors(frame, stored, side)
    return changed


def _texts(stored: pa.Table) -> list[str]:
    return [name for name in stored.schema.names if name not in (*_SIDES, "captions")]


def _differ_as_json(items: pl.Series, stored: pl.Series) -> pl.Series:
    """Readers differ in the blanks that they leave; only what is not equal as text is parsed."""
    differ = items.ne_missing(stored)
    for row in differ.arg_true():
        differ[row] = json.loads(items[row] or "{}") != json.loads(stored[row] or "{}")
    return differ


def _differ_as_vectors(frame: pl.DataFrame, stored: pa.Table, side: str) -> BoolArray:
    column = stored[side].combine_chunks()
    held = column.flatten().to_numpy(zero_copy_only=False).reshape(len(frame), -1)
    vectors = as_matrix(frame[side], held.shape[1])
    differ: BoolArray = np.any(unit_float16(vectors) != held, axis=1)
    return differ
