"""Unit queries, rounded to a grid on which products with anchors are exact."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from asif_lance.errors import InputError, InvalidVectorError
from asif_lance.records import Float32Array, Float64Array


def unit_queries(vectors: ArrayLike | torch.Tensor) -> Float32Array:
    """L2-normalise vectors (in float64) and round them to the grid that makes products exact.

    Args:
        vectors: (m, d) finite numbers, no row all zero.

    Returns:
        (m, d) float32, multiples of 2^-28.

    Raises:
        InvalidVectorError: a row is NaN, infinite or all zero.
    """
    wide = query_matrix(vectors).astype(np.float64)
    peak = np.abs(wide).max(axis=1, initial=0.0)
    for row in np.flatnonzero(~(np.isfinite(peak) & (peak > 0)))[:1]:
        what = "is all zero" if peak[row] == 0 else "holds NaN or infinity"
        raise InvalidVectorError(f"vector {row} {what}", int(row))
    wide /= peak[:, None]  # so that no square over- or underflows
    wide /= np.sqrt(np.square(wide).sum(axis=1))[:, None]
    return on_grid(wide)[0]


def query_matrix(vectors: ArrayLike | torch.Tensor) -> NDArray[np.generic]:
    """(m, d) numbers in main memory.

    Raises:
        InputError: not a matrix of numbers.
    """
    if isinstance(vectors, torch.Tensor):
        vectors = vectors.detach().cpu().numpy()
    matrix = np.asarray(vectors)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise InputError(f"vectors: expected 2-d numbers, got {matrix.ndim}-d {matrix.dtype}")
    return matrix


_QUERY_GRID = 2.0**-28


def on_grid(vectors: NDArray[np.generic]) -> tuple[Float32Array, Float64Array]:
    """Scale finite rows by powers of two to norms in [0.75, 1.5) and round them to the grid.

    Returns:
        The (m, d) scaled rows, multiples of 2^-28, and the (m,) powers of two that scale them
        back. Rows that are on the grid already (what `unit_queries` gives) come back unchanged.
    """
    wide = vectors.astype(np.float64)
    peak, power = np.frexp(np.abs(wide).max(axis=1, initial=0.0))  # no square over- or underflows
    wide = np.ldexp(wide, -power[:, None])
    mantissa, exponent = np.frexp(np.sqrt(np.square(wide).sum(axis=1)))
    exponent -= mantissa < 0.75
    rounded = np.rint(np.ldexp(wide, -exponent[:, None]) / _QUERY_GRID) * _QUERY_GRID
    scale = np.where(peak > 0, np.ldexp(1.0, power + exponent), 1.0)
    return rounded.astype(np.float32), scale
