"""Anchors in blocks, and products with them that no order of summation can change.

A float16 number is a multiple of 2^-24. Queries are scaled by a power of two to a norm
in [0.75, 1.5) and each component is rounded to a multiple of 2^-28, which float32 can hold and
which moves a component by at most 2^-29. Every product is then a multiple of 2^-52, and by
Cauchy-Schwarz every partial sum, in whatever order, stays below 1.5 * `ANCHOR_NORM` < 2 in size:
53 bits hold it. So float64 makes no rounding error at all, and the result cannot depend on the
order of summation, on the BLAS, on fused multiply-adds, threads, blocks or the device.

A float32 anchor is cut into a part on the grid 2^-24 and a rest on the grid 2^-43 (at most
2^-44 of a component is lost). The rest is below 2^-25 * sqrt(d) in norm, so its products, multiples
of 2^-71, sum up without error too (for d < 7,000); one rounding adds the two sums.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import DimensionError, InputError

ANCHOR_NORM = 1.25
"""Upper bound on an anchor's L2 norm: anchors are stored normalised, float16 adds 0.05 %."""

_QUERY_GRID = 2.0**-28
_ANCHOR_GRIDS = (2.0**-24, 2.0**-43)
_TAKEN = 2**23  # elements of anchors gathered at a time for exact products
_DENSE = 8  # one exact product on its own costs about as much as this many in a matrix product


Doubles = NDArray[np.float64]
Matrix = NDArray[np.float16] | NDArray[np.float32] | torch.Tensor


class Blocks:
    """Anchors that lie in several immutable blocks, seen as one (n, d) matrix.

    Attributes:
        blocks: (n_i, d) tensors of one dtype (float16 or float32) and device.
        starts: (len(blocks) + 1,) int64, where each block begins; the last is n.
        dimension: d; None if there are no blocks.
    """

    def __init__(self, anchors: Matrix | Sequence[Matrix]) -> None:
        """Wrap one array or tensor, or a sequence of them, without copying."""
        several = [anchors] if isinstance(anchors, np.ndarray | torch.Tensor) else list(anchors)
        self.blocks = [_tensor(block) for block in several]
        for block in self.blocks:
            _check_block(block, self.blocks[0])
        sizes = [len(block) for block in self.blocks]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self.dimension = self.blocks[0].shape[1] if self.blocks else None

    @property
    def dtype(self) -> torch.dtype:
        """The blocks' dtype."""
        return self.blocks[0].dtype

    def __len__(self) -> int:
        """Count the anchors."""
        return int(self.starts[-1])

    def slices(self, start: int, stop: int, rows: int) -> Iterator[torch.Tensor]:
        """Yield the anchors of [start, stop) in order, at most `rows` at a time."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        for block, begin in zip(self.blocks[first:], self.starts[first:], strict=False):
            if begin >= stop:
                return
            part = block[max(start - int(begin), 0) : stop - int(begin)]
            yield from torch.split(part, rows)

    def take(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """Gather anchors by ascending indices: (len(indices), d)."""
        taken = self.blocks[0].new_empty((len(indices), self.blocks[0].shape[1]))
        cuts = np.searchsorted(indices, self.starts)
        for i in np.flatnonzero(np.diff(cuts)):
            lo, hi = int(cuts[i]), int(cuts[i + 1])
            local = torch.from_numpy(indices[lo:hi] - self.starts[i]).to(taken.device)
            torch.index_select(self.blocks[i], 0, local, out=taken[lo:hi])
        return taken


def _tensor(block: Matrix) -> torch.Tensor:
    """View an array as a tensor; memory-mapped ones are read-only, of which torch would warn."""
    if isinstance(block, torch.Tensor) or block.flags.writeable:
        return torch.as_tensor(block)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(block)


def _check_block(block: torch.Tensor, first: torch.Tensor) -> None:
    if block.ndim != 2 or block.dtype not in (torch.float16, torch.float32):
        given = f"{block.ndim}-d {str(block.dtype).removeprefix('torch.')}"
        raise InputError(f"anchors: expected 2-d float16 or float32 arrays, got {given}")
    if block.dtype != first.dtype or block.device != first.device:
        raise InputError("anchors: all blocks must share one dtype and one device")
    if block.shape[1] != first.shape[1]:
        raise DimensionError("anchors", first.shape[1], block.shape[1])


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
) -> Doubles:
    """Give the exact q·a of single (query, anchor) pairs.

    Args:
        queries: (m, d) on the grid.
        anchors: n anchors.
        rows: (p,) the query of each pair, ascending.
        indices: (p,) the anchor of each pair.

    Returns:
        (p,) float64.
    """
    taken, position = np.unique(indices, return_inverse=True)
    products = np.empty(len(indices), dtype=np.float64)
    step = max(_TAKEN // max(queries.shape[1], 1), 1)
    for start in range(0, len(taken), step):
        here = np.flatnonzero((position >= start) & (position < start + step))
        part = _with_float64(anchors.take(taken[start : start + step]))
        products[here] = _products_with(queries, part, rows[here], position[here] - start)
    return products


def _with_float64(rows: torch.Tensor) -> torch.Tensor:
    return rows.cpu() if rows.device.type == "mps" else rows  # MPS has no float64


def _products_with(
    queries: NDArray[np.float32],
    taken: torch.Tensor,
    rows: NDArray[np.int64],
    position: NDArray[np.int64],
) -> Doubles:
    """Choose between one matrix product and a product per query: exact, hence equal, both."""
    wide = torch.from_numpy(queries).to(taken.device, torch.float64)
    place, row = (torch.from_numpy(array).to(taken.device) for array in (position, rows))
    if taken.device.type != "cpu" or len(rows) * _DENSE >= len(taken) * len(queries):
        every: Doubles = _exactly(taken, wide.T)[place, row].cpu().numpy()
        return every
    products = np.empty(len(rows), dtype=np.float64)
    cuts = np.searchsorted(rows, np.arange(len(queries) + 1))
    for query, lo, hi in zip(wide, cuts, cuts[1:], strict=False):
        products[lo:hi] = _exactly(taken[place[lo:hi]], query).numpy()
    return products


def _exactly(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Multiply anchors, written as a sum of matrices with exact products, and round once."""
    wide = rows.double()
    if rows.dtype == torch.float16:
        return wide @ queries
    coarse, fine = _ANCHOR_GRIDS
    high = torch.round(wide / coarse) * coarse
    return high @ queries + torch.round((wide - high) / fine) * fine @ queries
