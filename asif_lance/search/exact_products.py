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
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.search.blocks import Blocks
from asif_lance.search.compiled import compiles
from asif_lance.search.parallel import share_work
from asif_lance.search.row_products import pair_products

ANCHOR_NORM = 1.01


"""Upper bound on an anchor's L2 norm: anchors are stored normalised, float16 adds 0.05 %."""


_ANCHOR_GRIDS = (2.0**-24, 2.0**-43)


_SHARE = 2**21  # elements of anchors that a thread multiplies with their own queries at a time


_NEAR = 2**8  # anchors so near one another are read in any order


_TAKEN = 2**20  # elements of anchors that are multiplied with all queries at a time


def multiply_exactly(
    queries: Float32Array,
    anchors: Blocks,
    rows: Int64Array,
    indices: Int64Array,
    beside: Float64Array | None = None,
) -> tuple[Float64Array, Float64Array | None]:
    """Give the exact q·a of single (query, anchor) pairs.

    Args:
        queries: (m, d) on the grid.
        anchors: n anchors.
        rows: (p,) the query of each pair.
        indices: (p,) the anchor of each pair.
        beside: (d,) one vector more on the grid, or None.

    Returns:
        (p,) float64, and those of the same anchors with `beside`.
    """
    wide = np.ascontiguousarray(queries, dtype=np.float64)
    other = None if beside is None else np.ascontiguousarray(beside)
    multiply = _by_pair if _readable(anchors.blocks) else _by_matrix
    found = multiply(wide, other, anchors, rows, indices)
    return found[0], None if beside is None else found[1]


def _readable(blocks: Sequence[torch.Tensor]) -> bool:
    """Whether compiled loops can multiply anchors where they lie."""
    filled = [b for b in blocks if len(b)]
    return all(b.device.type == "cpu" and b.stride(1) == 1 for b in filled) and compiles()


def _by_pair(
    queries: Float64Array,
    beside: Float64Array | None,
    anchors: Blocks,
    rows: Int64Array,
    indices: Int64Array,
) -> Float64Array:
    """Multiply each anchor where it lies: (1, p), or with another vector beside (2, p)."""
    order, parts = _in_turn(anchors, indices, max(_SHARE // max(queries.shape[1], 1), 1))
    indices, rows = indices[order], rows[order]
    addresses = anchors.addresses(indices)
    products = np.empty((1 if beside is None else 2, len(rows)))

    def multiply(parts: Iterator[slice]) -> None:
        for at in parts:
            own = addresses[at], rows[at]
            pair_products(*own, queries, beside, products[:, at], anchors.dtype)
            anchors.used(indices[at])

    share_work(parts, multiply)
    found = np.empty_like(products)
    found[:, order] = products
    return found


def _in_turn(anchors: Blocks, indices: Int64Array, most: int) -> tuple[Int64Array, list[slice]]:
    """Order (p,) anchors so that neighbors follow one another, and cut them into parts.

    Blocks that are let go of are read one by one: reading one anchor may map many beside it.
    """
    place = anchors.owners(indices) if anchors.streamed else indices // _NEAR
    order = np.argsort(place.astype(np.uint16), kind="stable")  # 16 bits: a radix sort
    cuts = np.arange(0, len(indices), most)
    if anchors.streamed:
        cuts = np.union1d(cuts, np.flatnonzero(np.diff(place[order])) + 1)
    ends = itertools.pairwise([*cuts.tolist(), len(indices)])
    return order, [slice(begin, end) for begin, end in ends]


def _by_matrix(
    queries: Float64Array,
    beside: Float64Array | None,
    anchors: Blocks,
    rows: Int64Array,
    indices: Int64Array,
) -> Float64Array:
    """The same by multiplying every query with every distinct anchor, where no loop can."""
    seen = np.zeros(len(anchors), dtype=np.bool_)
    seen[indices] = True
    distinct = np.flatnonzero(seen)
    position = (np.cumsum(seen) - 1)[indices]  # as `np.unique` gives it, but without sorting
    columns = torch.from_numpy(queries if beside is None else np.vstack([queries, beside])).T
    found = np.empty((1 if beside is None else 2, len(rows)))
    most = max(min(_TAKEN // max(queries.shape[1], 1), len(distinct)), 1)
    widen = _Widener(anchors.blocks[0], _home(anchors), most)
    for start in range(0, len(distinct), most):
        taken = anchors.take(distinct[start : start + most])
        matrix = widen.multiply(widen(taken), columns).cpu().numpy()
        here = np.flatnonzero((position >= start) & (position < start + most))
        at = position[here] - start
        found[0, here] = matrix[at, rows[here]]
        found[1:, here] = matrix[at, len(queries) :].T
    return found


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
