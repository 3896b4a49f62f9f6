"""Columns of vectors: checked, read as matrices and rounded as they are stored."""

from __future__ import annotations

import numpy as np
import polars as pl

from asif_lance.records import BoolArray, Float16Array, Float32Array, Int64Array

_DTYPE = pl.List(pl.Float32)

# Normalised at once: the double precision copies of a few rows stay in the cache.
_CACHED_ROWS = 64


def valid_vectors(vectors: pl.Series, dimension: int | None = None) -> tuple[BoolArray, pl.Series]:
    """Which vectors have a direction (and `dimension` numbers, if given).

    Args:
        vectors: n lists or arrays of numbers; the series' name is part of the reasons.
        dimension: the length they should have; any if None.

    Returns:
        (n,) mask of the valid ones, and the reason against each of the others (null where valid).
    """
    lists = vectors.cast(_DTYPE)
    sizes = lists.list.len()
    filled = (sizes > 0).fill_null(value=False).to_numpy()
    finite, nonzero = np.zeros(len(lists), bool), np.zeros(len(lists), bool)
    finite[filled], nonzero[filled] = _finite_and_nonzero(lists.filter(filled))
    facts = pl.DataFrame({"size": sizes, "finite": finite, "nonzero": nonzero})
    reasons = facts.select(_fault(vectors.name, dimension)).to_series().alias(vectors.name)
    return reasons.is_null().to_numpy(), reasons


def as_matrix(vectors: pl.Series, dimension: int) -> Float32Array:
    """Vectors that are all valid, as one (n, dimension) float32 matrix."""
    matrix: Float32Array = vectors.cast(_DTYPE).explode().to_numpy()
    return matrix.reshape(-1, dimension) if len(vectors) else np.empty((0, dimension), np.float32)


def given_vectors(frame: pl.DataFrame, name: str) -> tuple[Float32Array, Int64Array]:
    """The (n, d) vectors of a column, zeros where a row has none, and the rows that have none."""
    missing = np.flatnonzero(frame[name].is_null().to_numpy())
    present = frame[name].drop_nulls()
    if not len(present):
        return np.zeros((len(frame), 0), np.float32), missing
    vectors = np.zeros((len(frame), len(present[0])), np.float32)
    vectors[frame[name].is_not_null().to_numpy()] = as_matrix(present, vectors.shape[1])
    return vectors, missing


def unit_float16(vectors: Float32Array) -> Float16Array:
    """(n, d) vectors as the table stores them: unit length in float32, rounded to float16."""
    unit = np.empty(vectors.shape, np.float16)
    for start in range(0, len(vectors), _CACHED_ROWS):
        rows = vectors[start : start + _CACHED_ROWS]
        norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        unit[start : start + _CACHED_ROWS] = (rows / norms).astype(np.float32)
    return unit


def _finite_and_nonzero(lists: pl.Series) -> tuple[BoolArray, BoolArray]:
    """Per non-empty list: are all numbers finite, is any not zero. A null counts as NaN."""
    if not len(lists):
        return np.zeros(0, bool), np.zeros(0, bool)
    numbers = lists.explode().to_numpy()
    ends = lists.list.len().to_numpy().cumsum(dtype=np.intp)
    starts = np.concatenate([np.zeros(1, np.intp), ends[:-1]])
    finite = np.logical_and.reduceat(np.isfinite(numbers), starts)
    return finite, np.logical_or.reduceat(numbers != 0, starts)


def _fault(name: str, dimension: int | None) -> pl.Expr:
    size = pl.col("size")
    expected = size if dimension is None else pl.lit(dimension)
    return (
        pl.when(size.is_null())
        .then(pl.lit(f"missing {name}"))
        .when(size != expected)
        .then(pl.format("{} has {} dimensions instead of {}", pl.lit(name), size, expected))
        .when(size == 0)
        .then(pl.lit(f"{name} is empty"))
        .when(~pl.col("finite"))
        .then(pl.lit(f"{name} holds NaN or infinity"))
        .when(~pl.col("nonzero"))
        .then(pl.lit(f"{name} is all zeros"))
    )
