"""Columns of vectors: checked, read as matrices and rounded as they are stored."""

from __future__ import annotations

import numpy as np
import polars as pl

from asif_lance.records import BoolArray, Float16Array, Float32Array

_DTYPE = pl.List(pl.Float32)

# Normalised at once: their double precision copies stay in the cache, and torch takes one thread.
_CACHED_NUMBERS = 2**15


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
    with_numbers = lists if filled.all() else lists.filter(filled)
    finite[filled], nonzero[filled] = _finite_and_nonzero(with_numbers)
    facts = pl.DataFrame({"size": sizes, "finite": finite, "nonzero": nonzero})
    reasons = facts.select(_fault(vectors.name, dimension)).to_series().alias(vectors.name)
    return reasons.is_null().to_numpy(), reasons


def as_matrix(vectors: pl.Series, dimension: int) -> Float32Array:
    """Vectors that are all valid, as one (n, dimension) float32 matrix."""
    matrix: Float32Array = vectors.cast(_DTYPE).explode().to_numpy()
    return matrix.reshape(-1, dimension) if len(vectors) else np.empty((0, dimension), np.float32)


def given_vectors(frame: pl.DataFrame, name: str) -> Float32Array | None:
    """The (n, d) vectors of a source's column that has n, or None where it has none."""
    column = frame[name]
    return as_matrix(column, len(column[0])) if column.count() else None


def wrong_sizes(vectors: pl.Series, dimension: int) -> pl.Series:
    """The reason against each of n vectors that has another length, null against the others."""
    sizes = vectors.list.len().alias("size")
    reason = _wrong_size(vectors.name, pl.lit(dimension))
    return sizes.to_frame().select(pl.when(pl.col("size") != dimension).then(reason)).to_series()


def unit_float16(vectors: Float32Array) -> Float16Array:
    """(n, d) vectors as the table stores them: unit length in float32, rounded to float16."""
    import torch  # takes seconds, and what is read may be refused before

    unit = np.empty(vectors.shape, np.float16)
    step = max(_CACHED_NUMBERS // max(vectors.shape[1], 1), 1)
    for start in range(0, len(vectors), step):
        rows = torch.tensor(vectors[start : start + step], dtype=torch.float64)
        rows *= torch.linalg.vector_norm(rows, dim=1, keepdim=True).reciprocal_()
        unit[start : start + step] = rows.float().half().numpy()
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
        .then(_wrong_size(name, expected))
        .when(size == 0)
        .then(pl.lit(f"{name} is empty"))
        .when(~pl.col("finite"))
        .then(pl.lit(f"{name} holds NaN, infinity or a number beyond float32"))
        .when(~pl.col("nonzero"))
        .then(pl.lit(f"{name} is all zeros"))
    )


def _wrong_size(name: str, expected: pl.Expr) -> pl.Expr:
    return pl.format("{} has {} dimensions instead of {}", pl.lit(name), pl.col("size"), expected)
