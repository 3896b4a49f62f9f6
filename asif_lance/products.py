"""Exact products of queries with anchors.

They do not depend on the order of summation, because no sum is rounded. A float16 number is
a multiple of 2^-24. Queries are scaled by a power of two to a norm in [0.75, 1.5) and each
component is rounded to a multiple of 2^-28, which float32 can hold and which moves a component by
at most 2^-29. Every product is then a multiple of 2^-52, and by Cauchy-Schwarz every partial sum,
in whatever order, stays below 1.5 * `ANCHOR_NORM` < 2 in size: 53 bits hold it. So float64 makes
no error at all, whatever the BLAS, fused multiply-adds, threads, blocks or the device.

A float32 anchor is cut into a part on the grid 2^-24 and a rest on the grid 2^-43 (at most
2^-44 of a component is lost). The rest is below 2^-25 * sqrt(d) in norm, so its products, multiples
of 2^-71, sum up without error too (for d < 7,000); one rounding adds the two sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from .blocks import Blocks
from .scales import Doubles
from .threads import share, thread_count

ANCHOR_NORM = 1.01
"""Upper bound on an anchor's L2 norm: anchors are stored normalised, float16 adds 0.05 %."""

_QUERY_GRID = 2.0**-28
_ANCHOR_GRIDS = (2.0**-24, 2.0**-43)
_TAKEN = 2**20  # elements of anchors that are multiplied with all queries at a time
_CACHED = 2**19  # and with their own query alone, by each thread
_SHARED = 2**22  # from so many on threads share them
_GATHERED = 2**24  # and gathered at a time, each with those of other queries in its block
_LONGER = 2  # times as many where coming back to a block is slow
_DENSE = 16  # one exact product on its own costs about as much as this many in a matrix product


def on_grid(vectors: NDArray[np.generic]) -> tuple[NDArray[np.float32], Doubles]:
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


def exact_products(
    queries: NDArray[np.float32],
    anchors: Blocks,
    rows: NDArray[np.int64],
    indices: NDArray[np.int64],
    beside: Doubles | None = None,
) -> tuple[Doubles, Doubles | None]:
    """Give the exact q·a of single (query, anchor) pairs.

    Args:
        queries: (m, d) on the grid.
        anchors: n anchors.
        rows: (p,) the query of each pair, ascending.
        indices: (p,) the anchor of each pair.
        beside: (d,) one vector more on the grid, or None.

    Returns:
        (p,) float64, and those of the same anchors with `beside`.
    """
    wide = torch.from_numpy(queries).double()
    other = None if beside is None else torch.from_numpy(beside)
    on_accelerator = _home(anchors).type != "cpu"
    if len(queries) == 1 and not on_accelerator:  # the same, without looking at all anchors
        return _by_query(wide, other, anchors, rows, indices)
    seen = np.zeros(len(anchors), dtype=np.bool_)
    seen[indices] = True
    distinct = np.flatnonzero(seen)
    if on_accelerator or len(indices) * _DENSE >= len(distinct) * len(queries):
        position = (np.cumsum(seen) - 1)[indices]  # as `np.unique` gives it, but without sorting
        return _by_matrix(wide, other, anchors, distinct, rows, position)
    return _by_query(wide, other, anchors, rows, indices)


def _by_matrix(
    wide: torch.Tensor,
    other: torch.Tensor | None,
    anchors: Blocks,
    distinct: NDArray[np.int64],
    rows: NDArray[np.int64],
    position: NDArray[np.int64],
) -> tuple[Doubles, Doubles | None]:
    """Multiply every query with every distinct anchor, and pick."""
    products = np.empty(len(rows))
    beside = None if other is None else np.empty(len(rows))
    columns = wide if other is None else torch.cat([wide, other[None]])
    most = max(min(_TAKEN // max(wide.shape[1], 1), len(distinct)), 1)
    widen = _Widener(anchors.blocks[0], _home(anchors), most)
    as_they_are = len(anchors.blocks) == 1 and len(distinct) == len(anchors)
    for start in range(0, len(distinct), most):
        stop = start + most
        here = distinct[start:stop]
        taken = anchors.blocks[0][start:stop] if as_they_are else anchors.take(here)
        matrix = widen.multiply(widen(taken), columns.T).cpu().numpy()
        here = np.flatnonzero((position >= start) & (position < stop))
        products[here] = matrix[position[here] - start, rows[here]]
        if beside is not None:
            beside[here] = matrix[position[here] - start, -1]
    return products, beside


def _by_query(
    wide: torch.Tensor,
    other: torch.Tensor | None,
    anchors: Blocks,
    rows: NDArray[np.int64],
    indices: NDArray[np.int64],
) -> tuple[Doubles, Doubles | None]:
    """Multiply each query with its own anchors only."""
    found = np.empty((1 if other is None else 2, len(rows)))
    d, first = wide.shape[1], anchors.blocks[0]
    most = max(_GATHERED * (_LONGER if anchors.streamed else 1) // max(d, 1), 1)
    room = first.new_empty((min(most, len(rows)), d))
    worth = len(rows) * d >= _SHARED and first.device.type == "cpu"
    threads = thread_count() if worth else 1
    for begin in range(0, len(rows), most):
        here = slice(begin, begin + most)
        taken, place = anchors.take_by_block(indices[here], room, threads)
        found[:, here] = _of_gathered(taken, place, wide, other, rows[here], threads)
    return found[0], None if other is None else found[1]


def _of_gathered(
    taken: torch.Tensor,
    place: torch.Tensor | None,
    wide: torch.Tensor,
    other: torch.Tensor | None,
    own: NDArray[np.int64],
    threads: int,
) -> Doubles:
    """Multiply (r, d) gathered anchors with the query of each, and in a second row with `other`.

    `place` and `own`, (r,), say where each lies and whose it is; threads share the queries.
    """
    found = np.empty((1 if other is None else 2, len(own)))
    most = max(min(_CACHED // max(taken.shape[1], 1), len(own)), 1)

    def multiply(runs: Iterator[tuple[int, int]]) -> None:
        widen = _Widener(taken, wide.device, most)
        ordered = taken.new_empty((most, taken.shape[1]))
        for lo, hi in runs:
            mine = taken[lo:hi]
            if place is not None:
                mine = torch.index_select(taken, 0, place[lo:hi], out=ordered[: hi - lo])
            mine = widen(mine)
            found[0, lo:hi] = widen.multiply(mine, wide[int(own[lo])]).numpy()
            if other is not None:
                found[1, lo:hi] = widen.multiply(mine, other).numpy()

    share(list(_runs(own, most)), multiply, threads)
    return found


def _runs(own: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut (r,) queries into runs of one and the same, of at most so many."""
    cuts = [*np.flatnonzero(np.diff(own, prepend=-1)).tolist(), len(own)]
    for begin, end in itertools.pairwise(cuts):
        for lo in range(begin, end, most):
            yield lo, min(lo + most, end)


def _home(anchors: Blocks) -> torch.device:
    """Where products are exact: where the anchors are, but MPS has no float64."""
    device = anchors.blocks[0].device
    return torch.device("cpu") if device.type == "mps" else device


class _Widener:
    """Makes anchors float64 and multiplies them without rounding."""

    def __init__(self, like: torch.Tensor, home: torch.device, most: int) -> None:
        """Prepare for at most so many anchors at a time, of the type and length of (…, d) others.

        `home` is where they are multiplied.
        """
        self._exact = like.dtype == torch.float16
        # By way of float32 is faster than at one go, and new memory costs as much as converting.
        steps = [torch.float32, torch.float64] if self._exact else [torch.float64]
        shape = most, like.shape[1]
        self._buffers = [torch.empty(shape, dtype=step, device=home) for step in steps]

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Copy anchors to float64; the next call overwrites them."""
        for buffer in self._buffers:
            rows = buffer[: rows.shape[0]].copy_(rows)
        return rows

    def multiply(self, rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """Write anchors as a sum of matrices with exact products, and round once."""
        queries = queries.to(rows.device)
        if self._exact:
            return rows @ queries
        coarse, fine = _ANCHOR_GRIDS
        high = torch.round(rows / coarse) * coarse
        return high @ queries + torch.round((rows - high) / fine) * fine @ queries
