"""Exact top-k search, whatever the order, batch, block size, thread count or device.

Stored vectors are float16, so every component is a multiple of 2^-24. Queries are rounded to
multiples of 2^-28, which changes only components below 2^-5, and those by at most 2^-29. Then
every product is a multiple of 2^-52, and since both vectors have unit length every partial sum
stays below 2 (Cauchy-Schwarz): a float64 holds it without rounding. So a dot product in float64 is
exact in any order of summation, and equal vectors tie exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from asif_lance.errors import DimensionError, InputError, InvalidVectorError
from asif_lance.records import Neighbors

_GRID = 2.0**28
_ROWS = 8192


def unit_queries(vectors: ArrayLike) -> NDArray[np.float32]:
    """L2-normalise (m, d) vectors in float64 and round them to the grid, as float32.

    Raises:
        InvalidVectorError: a row is NaN, infinite or all zero.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    peak = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
    for row in np.flatnonzero(~(np.isfinite(peak) & (peak > 0)))[:1]:
        what = "is all zero" if peak[row, 0] == 0 else "has NaN or infinite values"
        raise InvalidVectorError(f"vector {row} {what}")
    wide = wide / peak  # so that no square overflows
    wide /= np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    return _on_grid(wide)


def exact_top_k(
    queries: NDArray[np.float32],
    anchors: Sequence[torch.Tensor],
    k: int,
    *,
    live: NDArray[np.bool_] | None = None,
    tie_order: NDArray[np.int64] | None = None,
) -> Neighbors:
    """Each query's k most similar live anchors.

    Args:
        queries: (m, d) float32 from `unit_queries`.
        anchors: blocks of (rows, d) float16; positions count all their rows in order.
        k: anchors wanted; min(k, live anchors) come back.
        live: (n,) False for rows that must not be found.
        tie_order: (n,) among equal similarities the smaller goes first; by default the position.

    Raises:
        DimensionError: queries and anchors differ in dimension.
        InputError: k below 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    n = sum(len(block) for block in anchors)
    live = np.ones(n, dtype=bool) if live is None else live
    tie_order = np.arange(n) if tie_order is None else tie_order
    best = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0))
    start = 0
    for block in anchors:
        if block.shape[1] != queries.shape[1]:
            raise DimensionError("queries", block.shape[1], queries.shape[1])
        for rows in torch.split(block, _ROWS):
            here = start + np.flatnonzero(live[start : start + len(rows)])
            best = _merged(best, here, _exact(queries, rows)[:, here - start], k, tie_order)
            start += len(rows)
    return Neighbors(best[0], best[1].astype(np.float32))


def _exact(queries: NDArray[np.float32], rows: torch.Tensor) -> NDArray[np.float64]:
    wide = torch.from_numpy(_on_grid(queries)).double()
    products: NDArray[np.float64] = (wide @ rows.cpu().double().T).numpy()
    return products


def _merged(
    best: tuple[NDArray[np.int64], NDArray[np.float64]],
    here: NDArray[np.int64],
    values: NDArray[np.float64],
    k: int,
    tie_order: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    indices = np.hstack([best[0], np.broadcast_to(here, values.shape)])
    values = np.hstack([best[1], values])
    order = np.lexsort((tie_order[indices], -values), axis=1)[:, :k]
    return np.take_along_axis(indices, order, 1), np.take_along_axis(values, order, 1)


def _on_grid(vectors: ArrayLike) -> NDArray[np.float32]:
    grid: NDArray[np.float32] = (np.rint(np.asarray(vectors, np.float64) * _GRID) / _GRID).astype(
        np.float32
    )
    return grid
