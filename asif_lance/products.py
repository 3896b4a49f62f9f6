"""Products of queries with anchors: exact ones, and fast ones with an error bound.

Exact ones do not depend on the order of summation, because no sum is rounded. A float16 number is
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
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from .blocks import Blocks
from .devices import bfloat16_is_faster
from .scales import Scale

ANCHOR_NORM = 1.01
"""Upper bound on an anchor's L2 norm: anchors are stored normalised, float16 adds 0.05 %."""

GROUP = 16
"""Runs and batches are padded to multiples of this; narrower matrix products are slow."""

_QUERY_GRID = 2.0**-28
_ANCHOR_GRIDS = (2.0**-24, 2.0**-43)
_TAKEN = 2**21  # elements of anchors gathered at a time for exact products
_PER_BLOCK = 256  # anchors gathered at a time for each block, where one query has few there
_FEW = 2**14  # so many numbers
_WIDE = 3 * 2**18  # float32 elements widened at a time: 3 MB stay in the cache
_RUN = 2**20  # similarities held at a time
_BIGGER = 128  # times as much of both on an accelerator
_LONGEST = 2**17  # anchors in a run, however few the queries
_UNIT = 2.0**-24
_ROUNDING = {torch.float32: 0.0, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-9}
_NARROWING = 1.01 * 2.0**-9  # of anchors made bfloat16, and of the queries' norm with them
_COARSER = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-7}  # what torch may round inputs by
_DENSE = 8  # one exact product on its own costs about as much as this many in a matrix product


Doubles = NDArray[np.float64]


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
    rows_at_a_time = max(_TAKEN // max(queries.shape[1], 1), 1)
    widen = _Widener(anchors, max(min(rows_at_a_time, len(indices)), 1))
    wide = torch.from_numpy(queries).double()
    other = None if beside is None else torch.from_numpy(beside)
    if len(queries) == 1 and not widen.on_accelerator:  # the same, without looking at all anchors
        return _by_query(wide, other, anchors, rows, indices, widen)
    seen = np.zeros(len(anchors), dtype=np.bool_)
    seen[indices] = True
    distinct = np.flatnonzero(seen)
    if widen.on_accelerator or len(indices) * _DENSE >= len(distinct) * len(queries):
        position = (np.cumsum(seen) - 1)[indices]  # as `np.unique` gives it, but without sorting
        return _by_matrix(wide, other, anchors, distinct, rows, position, widen)
    return _by_query(wide, other, anchors, rows, indices, widen)


def _by_matrix(
    wide: torch.Tensor,
    other: torch.Tensor | None,
    anchors: Blocks,
    distinct: NDArray[np.int64],
    rows: NDArray[np.int64],
    position: NDArray[np.int64],
    widen: _Widener,
) -> tuple[Doubles, Doubles | None]:
    """Multiply every query with every distinct anchor, and pick."""
    products = np.empty(len(rows))
    beside = None if other is None else np.empty(len(rows))
    columns = wide if other is None else torch.cat([wide, other[None]])
    as_they_are = len(anchors.blocks) == 1 and len(distinct) == len(anchors)
    for start in range(0, len(distinct), widen.rows):
        stop = start + widen.rows
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
    widen: _Widener,
) -> tuple[Doubles, Doubles | None]:
    """Multiply each query with its own anchors only."""
    products = np.empty(len(rows))
    beside = None if other is None else np.empty(len(rows))
    order, together = _visits(anchors, wide, rows, indices, widen)
    gathered = anchors.blocks[0].new_empty((together, wide.shape[1]))
    for begin in range(0, len(rows), together):
        some = order[begin : begin + together]
        taken = anchors.take(indices[some], gathered)
        for at, part in zip(_cut(some, widen.rows), torch.split(taken, widen.rows), strict=True):
            mine = widen(part)
            products[at] = _products_with_own(mine, wide, rows[at], widen)
            if other is not None and beside is not None:
                beside[at] = widen.multiply(mine, other).numpy()
    return products, beside


def _visits(
    anchors: Blocks,
    wide: torch.Tensor,
    rows: NDArray[np.int64],
    indices: NDArray[np.int64],
    widen: _Widener,
) -> tuple[NDArray[np.intp], int]:
    """In which order anchors are gathered, and how many at a time."""
    blocks, most = len(anchors.blocks), max(len(rows), 1)
    if anchors.streamed:  # each block once
        return np.argsort(anchors.owner(indices), kind="stable"), min(widen.rows, most)
    if len(rows) * wide.shape[1] < _FEW * len(wide) * blocks:  # each block for many queries
        return np.arange(len(rows)), min(max(_PER_BLOCK * blocks, widen.rows), most)
    order = np.argsort(anchors.owner(indices), kind="stable")
    return order[np.argsort(rows[order].astype(np.int32), kind="stable")], min(widen.rows, most)


def _cut(order: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _products_with_own(
    mine: torch.Tensor, wide: torch.Tensor, own: NDArray[np.int64], widen: _Widener
) -> Doubles:
    """Multiply each of (r, d) anchors with the query of its own; equal ones follow one another."""
    cuts = np.flatnonzero(np.diff(own, prepend=-1)).tolist()
    runs = itertools.pairwise([*cuts, len(own)])
    found: Doubles = torch.cat(
        [widen.multiply(mine[lo:hi], wide[int(own[lo])]) for lo, hi in runs]
    ).numpy()
    return found


class _Widener:
    """Makes anchors float64 and multiplies them without rounding.

    Attributes:
        rows: most anchors at a time.
        on_accelerator: whether it works there: MPS has no float64, so its anchors come to the CPU.
    """

    def __init__(self, anchors: Blocks, rows: int) -> None:
        """Prepare for at most `rows` anchors at a time."""
        self.rows, device = rows, anchors.blocks[0].device
        self.on_accelerator = device.type not in ("cpu", "mps")
        self._exact = anchors.dtype == torch.float16
        # By way of float32 is faster than at one go, and new memory costs as much as converting.
        steps = [torch.float32, torch.float64] if self._exact else [torch.float64]
        home = device if self.on_accelerator else torch.device("cpu")
        shape = rows, anchors.blocks[0].shape[1]
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


def product_types(count: int, anchors: Blocks, device: torch.device) -> tuple[torch.dtype, ...]:
    """Types that similarities of `count` queries may be multiplied in, the fastest first.

    A single query on the CPU is multiplied with the anchors as they are, at the speed of memory.
    Some processors multiply bfloat16 twice as fast as float32. CUDA devices
    multiply float16 as it is, many times as fast, and sum up in float32 unless torch lets them cut
    sums short (`devices.pick_device` forbids it).
    """
    if device.type == "cuda" and anchors.dtype == torch.float16:
        short = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
        return (torch.float32,) if short else (torch.float16, torch.float32)
    if device.type != "cpu":
        return (torch.float32,)
    if count == 1:
        return (anchors.dtype,)
    return (torch.bfloat16, torch.float32) if bfloat16_is_faster() else (torch.float32,)


class FastProduct:
    """float32 similarities of one batch of queries with runs of anchors, in one reused buffer.

    Anchors are converted a few at a time into a buffer that stays in the cache. A single query on
    the CPU is instead multiplied with the anchors as they are.

    Queries, anchors and products of a narrower type are rounded to it; sums are float32 there too.

    Attributes:
        count: m.
        run: most anchors of one call, a multiple of `GROUP`.
    """

    def __init__(
        self,
        queries: torch.Tensor,
        anchors: Blocks,
        offset: Doubles | None = None,
        scale: Scale | None = None,
        kind: torch.dtype | None = None,
    ) -> None:
        """Allocate the buffers.

        Args:
            queries: (m, d) float32 on the grid, on the device that is to compute.
            anchors: n anchors on that device or in main memory.
            offset: (m,) added to each query's products.
            scale: multiplies each anchor's sums.
            kind: one of `product_types`; by default the most precise.
        """
        count, d = queries.shape
        kind = kind or product_types(count, anchors, queries.device)[-1]
        self._anchors, self.count = anchors, count
        bigger = 1 if queries.device.type == "cpu" else _BIGGER
        self._single = count == 1 and queries.device.type == "cpu"
        width = 1 if self._single else _rounded_up(count)
        longest = min(max(bigger * _RUN // width, GROUP), _LONGEST)
        self.run = min(longest // GROUP * GROUP, _rounded_up(len(anchors)))
        self._step = self.run if self._single else max(bigger * _WIDE // max(d, 1), 1)
        padded = torch.nn.functional.pad(queries, (0, 0, 0, width - count))
        self._weights = padded.to(kind).T.contiguous()
        rows = 0 if self._single else min(self._step, self.run)
        through = [] if self._single else _conversions(anchors.dtype, kind)
        self._buffers = [queries.new_empty((rows, d), dtype=step) for step in through]
        self._products = None
        if kind != torch.float32:
            self._products = queries.new_empty((rows, width), dtype=kind)
        self._scores = queries.new_zeros((self.run, width))
        self._load = _Loader(queries.device)
        self._offset = None if offset is None else torch.from_numpy(offset).to(queries)
        self._scale = None if scale is None else torch.from_numpy(scale.near).to(queries)
        self._rounding = _ROUNDING[kind]
        self._slack = self._bound(queries.cpu().double(), offset, scale)

    def below(self, values: Doubles) -> NDArray[np.float32]:
        """Go down from (m,) similarities by twice what they may be wrong.

        An anchor that is truly as similar as one of computed similarity v has a computed
        similarity of at least `below(v)`.
        """
        lowered = values - 2.01 * (self._rounding * np.abs(values) + self._slack)
        return lowered.astype(np.float32)

    def between(self, start: int, stop: int) -> torch.Tensor:
        """Give the similarities with anchors [start, stop); the next call overwrites them.

        Returns:
            (r, w) float32, contiguous: the (stop - start, m) similarities, padded to multiples of
            `GROUP` by rows of -inf and by columns that mean nothing.
        """
        scale = None if self._scale is None else self._scale[start:stop]
        return self._fill(self._anchors.slices(start, stop, self._step), stop - start, scale)

    def sample(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """Give the (len(indices), m) similarities with single anchors."""
        at = torch.from_numpy(indices)
        scale = None if self._scale is None else self._scale[at.to(self._scale.device)]
        parts = torch.split(self._anchors.take(indices), self._step)
        return self._fill(parts, len(indices), scale)[: len(indices), : self.count]

    def _fill(
        self, parts: Iterable[torch.Tensor], size: int, scale: torch.Tensor | None
    ) -> torch.Tensor:
        done = 0
        for part in parts:
            end = done + part.shape[0]
            self._multiply(part, self._scores[done:end])
            done = end
        scores = self._scores[: _rounded_up(size)]
        if self._offset is not None:
            scores[:, : self.count] += self._offset
        if scale is not None:
            scores[:size] *= scale[:, None]
        scores[size:] = -torch.inf
        return scores

    def _multiply(self, part: torch.Tensor, out: torch.Tensor) -> None:
        if self._single:
            out[:, 0] = torch.mv(part, self._weights[:, 0])
            return
        part = self._load(part)
        size = part.shape[0]
        for buffer in self._buffers:
            part = buffer[:size].copy_(part)
        if self._products is None:
            torch.mm(part, self._weights, out=out)
        else:
            out.copy_(torch.mm(part, self._weights, out=self._products[:size]))

    def _bound(self, queries: torch.Tensor, offset: Doubles | None, scale: Scale | None) -> Doubles:
        """Bound the errors of the inputs, the sum, the offset and the scale: (m,)."""
        norm = queries.norm(dim=1).numpy() * ANCHOR_NORM
        used = self._weights.T[: self.count].cpu().double()
        error: Doubles = (queries - used).norm(dim=1).numpy() * ANCHOR_NORM
        error += norm * float32_error(queries.shape[1])
        error += norm * (_NARROWING if self._weights.dtype == torch.bfloat16 else 0.0)
        size = norm if offset is None else norm + np.abs(offset)
        if offset is not None or scale is not None:  # the product was rounded before them
            error += norm * self._rounding
        error += 4 * _UNIT * (size + 1)
        return error if scale is None else error * scale.largest + size * scale.error


def float32_error(d: int) -> float:
    """How far a float32 sum of d products may be off, as a share of |q| |a|.

    gamma_d = d u / (1 - d u), in any order of summation (Higham, *Accuracy and Stability of
    Numerical Algorithms*, 3.1).
    """
    unit = 2 * d * _UNIT  # twice, for processors that add products in pairs
    return unit / (1 - unit) + _COARSER[torch.get_float32_matmul_precision()]


def _conversions(stored: torch.dtype, kind: torch.dtype) -> list[torch.dtype]:
    """What anchors become on the way to a product; float16 to bfloat16 at one go is slow."""
    if kind == stored:
        return []
    return [kind] if torch.float32 in (kind, stored) else [torch.float32, kind]


def _rounded_up(size: int) -> int:
    return -(-size // GROUP) * GROUP


class _Loader:
    """Brings runs of anchors to the device; to CUDA through two pinned buffers, taken in turns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._turns: list[tuple[torch.Tensor, torch.cuda.Event]] = []

    def __call__(self, part: torch.Tensor) -> torch.Tensor:
        if part.device.type == self._device.type:
            return part
        if self._device.type != "cuda":
            return part.to(self._device)
        if len(self._turns) < 2:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._turns.append((torch.empty_like(part, pin_memory=True), event))
        pinned, copied = self._turns.pop(0)
        copied.synchronize()
        if pinned.shape[0] < part.shape[0]:
            pinned = torch.empty_like(part, pin_memory=True)
        moved = pinned[: part.shape[0]].copy_(part).to(self._device, non_blocking=True)
        copied.record()
        self._turns.append((pinned, copied))
        return moved
