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
from contextlib import nullcontext
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.devices import float64_device
from asif_lance.records import Float64Array, Int64Array
from asif_lance.search.blocks import Blocks
from asif_lance.search.kernel_loading import going_without, loaded_kernels
from asif_lance.search.parallel import share_work

#: Upper bound on an anchor's L2 norm: anchors are stored normalised, float16 adds 0.05 %.
ANCHOR_NORM = 1.01

_ANCHOR_GRIDS = (2.0**-24, 2.0**-43)
_PAIR_NUMBERS = 2**19  # of anchors that a thread multiplies with their own queries at a time
_NEARBY_ANCHORS = 2**8  # so near one another they are read in any order
_MATRIX_NUMBERS = 2**18  # that are multiplied with all queries at a time
_DEVICE_NUMBERS = 2**25  # that a device multiplies with their own queries at a time


def multiply_exactly(
    vectors: NDArray[np.floating], anchors: Blocks, rows: Int64Array, indices: Int64Array
) -> Float64Array:
    """Give the exact v·a of single (vector, anchor) pairs: (p,).

    Args:
        vectors: (m, d) on the grid.
        anchors: n anchors.
        rows: (p,) the vector of each pair.
        indices: (p,) the anchor of each pair.

    Raises:
        IndexError: there is no such anchor.
    """
    if anchors.on_accelerator:
        anchors.owners(indices)
        places = torch.from_numpy(np.stack([rows, indices])).to(anchors.blocks[0].device)
        return multiply_on_device(vectors, anchors, *places.unbind()).cpu().numpy()
    wide = vectors.astype(np.float64, order="C")
    # The compiled loop takes float16 numbers that lie side by side in main memory.
    readable = all(
        b.device.type == "cpu" and b.dtype == torch.float16 and b.stride(1) == 1
        for b in anchors.blocks
        if len(b)
    )
    kernels = loaded_kernels() if readable else None
    if kernels is not None:
        return _multiply_pairs(kernels, wide, anchors, rows, indices)
    with going_without() if readable else nullcontext():
        return _multiply_matrices(wide, anchors, rows, indices)


def _multiply_pairs(
    kernels: ModuleType,
    vectors: Float64Array,
    anchors: Blocks,
    rows: Int64Array,
    indices: Int64Array,
) -> Float64Array:
    """Multiply each anchor where it lies."""
    most = max(_PAIR_NUMBERS // max(vectors.shape[1], 1), 1)
    order, parts = _order_by_place(anchors, indices, most)
    rows, indices = rows[order], indices[order]
    addresses, products = anchors.addresses(indices), np.empty(len(rows))

    def multiply(parts: Iterator[slice]) -> None:
        for at in parts:
            kernels.pair_products(addresses[at], rows[at], vectors, products[at])
            anchors.release_read(indices[at])

    share_work(parts, multiply)
    found = np.empty_like(products)
    found[order] = products
    return found


def _order_by_place(
    anchors: Blocks, indices: Int64Array, most: int
) -> tuple[Int64Array, list[slice]]:
    """Order (p,) anchors so that neighbors follow one another, and cut them into parts.

    Blocks that are released after use are read one by one: reading one anchor may map many beside
    it.
    """
    place = anchors.owners(indices) if anchors.streamed else indices // _NEARBY_ANCHORS
    order = np.argsort(place.astype(np.uint16), kind="stable")  # 16 bits: a radix sort
    cuts = np.arange(0, len(indices), most)
    if anchors.streamed:
        cuts = np.union1d(cuts, np.flatnonzero(np.diff(place[order])) + 1)
    ends = itertools.pairwise([*cuts.tolist(), len(indices)])
    return order, [slice(begin, end) for begin, end in ends]


def _multiply_matrices(
    vectors: Float64Array, anchors: Blocks, rows: Int64Array, indices: Int64Array
) -> Float64Array:
    """The same by multiplying every vector with every distinct anchor, without the loop."""
    distinct, place = np.unique(indices, return_inverse=True)
    order = np.argsort(place, kind="stable")
    most = max(_MATRIX_NUMBERS // max(vectors.shape[1], 1), 1)
    starts = range(0, len(distinct), most)
    ends = np.searchsorted(place[order], [*starts, len(distinct)])
    columns, found = torch.from_numpy(vectors).T, np.empty(len(rows))

    def multiply(numbers: Iterator[int]) -> None:
        for i in numbers:
            taken = anchors.take(distinct[starts[i] : starts[i] + most])
            matrix = _multiply_widened(taken, columns).numpy()
            here = order[ends[i] : ends[i + 1]]
            found[here] = matrix[place[here] - starts[i], rows[here]]

    share_work(range(len(starts)), multiply)
    return found


def _multiply_widened(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Exact products; float32 rows are written as a sum of matrices with exact products."""
    return _add_parts([part @ columns for part in _split_on_grids(rows)])


def multiply_on_device(
    vectors: NDArray[np.floating], anchors: Blocks, rows: torch.Tensor, indices: torch.Tensor
) -> torch.Tensor:
    """The same with anchors on an accelerator: each is multiplied with its own vector there.

    Rows and valid indices are there, too.

    Returns:
        (p,) float64, where the device's products of float64 numbers are (`float64_device`).
    """
    home = float64_device(indices.device)
    wide = torch.from_numpy(vectors.astype(np.float64, order="C")).to(home)
    owners, most = rows.to(home), max(_DEVICE_NUMBERS // max(wide.shape[1], 1), 1)
    parts = [wide.new_empty(0)]
    for start in range(0, len(rows), most):
        at = slice(start, start + most)
        own = wide.index_select(0, owners[at])
        taken = _split_on_grids(anchors.gather(indices[at]).to(home))
        parts.append(_add_parts([(part * own).sum(dim=1) for part in taken]))
    return torch.cat(parts)


def _split_on_grids(rows: torch.Tensor) -> list[torch.Tensor]:
    """Parts of float64 whose products are exact; float16 is one of them as it is."""
    wide = rows.float().double()  # faster than at one go
    if rows.dtype == torch.float16:
        return [wide]
    coarse, fine = _ANCHOR_GRIDS
    high = torch.round(wide / coarse) * coarse
    return [high, torch.round((wide - high) / fine) * fine]


def _add_parts(products: list[torch.Tensor]) -> torch.Tensor:
    """One or two matrices of exact products added, with one rounding."""
    return products[0] if len(products) == 1 else products[0] + products[1]
