"""The fast pass of exact search: propose every anchor that could be among the k best.

float32 products of anchors, run by run, are compared with a floor per query; what reaches the
floor is kept. The floor is guessed from a sample and rises as good anchors are found; it is safe
as long as it lies two error bounds below the k-th best similarity found, which is checked at the
end. A query whose guess was too high is scanned again from no floor at all. Runs are visited in
scattered order, so that sorted anchors (each better than the last) cost no more than others.

A float32 product of d terms is off by at most gamma_d |q| |a| with gamma_d = d u / (1 - d u), in
any order of summation (Higham, *Accuracy and Stability of Numerical Algorithms*, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from .products import ANCHOR_NORM, Blocks

_WIDE = 3 * 2**18  # float32 elements widened at a time: 3 MB stay in the cache
_RUN = 2**20  # similarities held at a time
_BIGGER = 32  # times as much of both on an accelerator
_LONGEST = 2**17  # anchors in a run, however few the queries (a multiple of the group)
_GROUP = 16  # similarities whose maximum is compared first
_FEW = 3  # so many queries are faster one by one, each at the speed of memory
_STRIDE = 61  # one anchor in so many is sampled; prime, so that repeated captions do not resonate
_UNIT = 2.0**-24
_COARSER = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-7}  # what torch may round inputs by
_NO_FLOOR = float(np.finfo(np.float32).min)

_T = TypeVar("_T", bound=np.generic)
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """What a search runs over; arrays are trusted here.

    Attributes:
        anchors: n anchors.
        scale: (n,) float64 or None; multiplies each anchor's products.
        live: (n,) bool or None; the anchors that may be found.
        count: number of live anchors.
    """

    anchors: Blocks
    scale: Doubles | None
    live: NDArray[np.bool_] | None
    count: int


@dataclass(frozen=True)
class Proposals:
    """Flat (query, anchor, value) triples.

    Attributes:
        rows: (p,) the query.
        indices: (p,) the anchor.
        values: (p,) float32, their similarity to within the error bound.
    """

    rows: Longs
    indices: Longs
    values: Floats

    def where(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Proposals:
        """Keep the chosen ones, in the order of `chosen` if it holds positions."""
        return Proposals(self.rows[chosen], self.indices[chosen], self.values[chosen])


Settle = Callable[[Proposals], Proposals]


def joined(parts: list[Proposals]) -> Proposals:
    """Put proposals after one another."""
    return Proposals(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


class Sheet:
    """Lays flat entries out as matrices with one row per query, padded on the right."""

    def __init__(self, rows: Longs, count: int) -> None:
        """Place (p,) entries by the query of each, in any order, of `count` queries."""
        self._order = np.argsort(rows.astype(np.int16), kind="stable")  # 16 bits: a radix sort
        self._rows = rows[self._order]
        sizes = np.bincount(rows, minlength=count)
        self._place = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._shape = (count, int(sizes.max(initial=0)))

    def lay(self, column: NDArray[_T], pad: float) -> NDArray[_T]:
        """Give the (count, widest) matrix of one column of entries."""
        matrix = np.full(self._shape, pad, dtype=column.dtype)
        matrix[self._rows, self._place] = column[self._order]
        return matrix


class FastProduct:
    """float32 similarities of one batch of queries with runs of anchors, in one reused buffer.

    float16 anchors are widened a few at a time into a buffer that stays in the cache; up to three
    queries are instead multiplied one by one with the anchors as they are, at the speed of memory.

    Attributes:
        run: most anchors of one call, a multiple of the group.
        slack: (m,) float64, how far a similarity may be from the exact one.
    """

    def __init__(self, queries: torch.Tensor, table: Table, offset: Doubles | None) -> None:
        """Allocate the buffers.

        Args:
            queries: (m, d) float32 on the grid, on the device that is to compute.
            table: anchors on that device or in main memory, and their scale.
            offset: (m,) added to each query's products.
        """
        self._anchors, self._count = table.anchors, len(queries)
        self._each = len(queries) <= _FEW and queries.device.type == "cpu"
        width = len(queries) if self._each else -(-len(queries) // 16) * 16
        bigger = 1 if queries.device.type == "cpu" else _BIGGER
        self.run = min(
            _rounded_up(bigger * _RUN // width), _LONGEST, _rounded_up(len(table.anchors))
        )
        step = max(bigger * _WIDE // max(queries.shape[1], 1), 1)
        self._step = self.run if self._each else min(step, self.run)
        padded = torch.nn.functional.pad(queries, (0, 0, 0, width - len(queries)))
        self._weights = padded.to(table.anchors.dtype) if self._each else padded.T.contiguous()
        self._wide = queries.new_empty((0 if self._each else self._step, queries.shape[1]))
        shape = (width, self.run) if self._each else (self.run, width)
        self._scores = queries.new_empty(shape).T if self._each else queries.new_empty(shape)
        self._load = _Loader(queries.device)
        self._offset = None if offset is None else torch.from_numpy(offset).to(queries)
        self._scale = None if table.scale is None else torch.from_numpy(table.scale).to(queries)
        self.slack = self._bound(queries.cpu().double(), offset, table.scale)

    def between(self, start: int, stop: int) -> torch.Tensor:
        """Give the similarities with anchors [start, stop); the next call overwrites them.

        Returns:
            (stop - start, m) float32, plus rows of -inf up to a multiple of the group.
        """
        scale = None if self._scale is None else self._scale[start:stop]
        return self._fill(self._anchors.slices(start, stop, self._step), stop - start, scale)

    def sample(self, indices: Longs) -> torch.Tensor:
        """Give the similarities with single anchors (ascending), in the form of `between`."""
        at = torch.from_numpy(indices)
        scale = None if self._scale is None else self._scale[at.to(self._scale.device)]
        return self._fill(torch.split(self._anchors.take(indices), self._step), len(indices), scale)

    def _fill(
        self, parts: Iterable[torch.Tensor], size: int, scale: torch.Tensor | None
    ) -> torch.Tensor:
        done = 0
        for part in parts:
            self._multiply(part, self._scores[done : done + len(part)])
            done += len(part)
        scores = self._scores[: _rounded_up(size), : self._count]
        if self._offset is not None:
            scores += self._offset
        if scale is not None:
            scores[:size] *= scale[:, None]
        scores[size:] = -torch.inf
        return scores

    def _multiply(self, part: torch.Tensor, out: torch.Tensor) -> None:
        if self._each:
            for query, column in zip(self._weights, out.T, strict=True):
                column.copy_(torch.mv(part, query))
            return
        part = self._load(part)
        if part.dtype != torch.float32:
            part = self._wide[: len(part)].copy_(part)
        torch.mm(part, self._weights, out=out)

    def _bound(
        self, queries: torch.Tensor, offset: Doubles | None, scale: Doubles | None
    ) -> Doubles:
        """Bound the errors of the inputs, the sum, the output, the offset and the scale."""
        d = queries.shape[1]
        norm = queries.norm(dim=1).numpy() * ANCHOR_NORM
        share = d * _UNIT / (1 - d * _UNIT) + _COARSER[torch.get_float32_matmul_precision()]
        error = norm * share + 4 * _UNIT
        if self._weights.dtype == torch.float16:  # both the query and the product are rounded
            lost = (queries - self._weights.double()).norm(dim=1).numpy()
            error += ANCHOR_NORM * lost + norm * 2.0**-10
        size = norm if offset is None else norm + np.abs(offset)
        widest = 1.0 if scale is None else np.abs(scale).max(initial=0.0)
        bound: Doubles = (error + 4 * _UNIT * size) * widest
        return bound


def _rounded_up(size: int) -> int:
    return -(-size // _GROUP) * _GROUP


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
            self._turns.append((torch.empty_like(part, pin_memory=True), torch.cuda.Event()))  # type: ignore[no-untyped-call]  # torch
        pinned, copied = self._turns.pop(0)
        copied.synchronize()
        if pinned.shape[0] < part.shape[0]:
            pinned = torch.empty_like(part, pin_memory=True)
        moved = pinned[: len(part)].copy_(part).to(self._device, non_blocking=True)
        copied.record()
        self._turns.append((pinned, copied))
        return moved


class Pool:
    """The proposals of one batch, trimmed whenever a query has too many."""

    def __init__(
        self,
        k: int,
        slack: Doubles,
        floors: Floats,
        settle: Settle,
    ) -> None:
        """Start empty.

        Args:
            k: proposals that each query needs.
            slack: (m,) the error bound of values.
            floors: (m,) values below are of no interest; they only rise.
            settle: cuts proposals to the exact k best of each query, for when so many are within
                the error bound (equal anchors, for instance) that trimming cannot.
        """
        self._k, self._slack, self._settle = k, slack, settle
        self.floors = floors
        self.kth = np.full(len(slack), -np.inf)
        self._room = 4 * k + 4096
        self._sizes = np.zeros(len(slack), dtype=np.int64)
        self._parts: list[Proposals] = []

    def add(self, found: Proposals) -> None:
        """Keep more proposals."""
        self._parts.append(found)
        self._sizes += np.bincount(found.rows, minlength=len(self._sizes))
        if self._sizes.max() > self._room:
            self.trim()

    def trim(self) -> Proposals:
        """Raise the floors to two error bounds below the k-th best, and drop what is below."""
        kept = self._above(joined(self._parts))
        self._sizes = np.bincount(kept.rows, minlength=len(self._sizes))
        crowded = self._sizes > self._room // 2
        if crowded.any():
            kept = self._settled(kept, crowded)
        self._parts = [kept]
        return kept

    def _above(self, found: Proposals) -> Proposals:
        sheet = Sheet(found.rows, len(self._slack))
        values, indices = sheet.lay(found.values, -np.inf), sheet.lay(found.indices, -1)
        if values.shape[1] >= self._k:
            best = torch.from_numpy(values).topk(self._k, dim=1, sorted=False).values
            self.kth = best.amin(dim=1).double().numpy()
            self.floors = np.maximum(self.floors, (self.kth - 2 * self._slack).astype(np.float32))
        rows, columns = np.nonzero((values >= self.floors[:, None]) & (indices >= 0))
        return Proposals(rows, indices[rows, columns], values[rows, columns])

    def _settled(self, found: Proposals, crowded: NDArray[np.bool_]) -> Proposals:
        busy = crowded[found.rows]
        settled = self._settle(found.where(busy))
        worst = np.full(len(crowded), np.inf)
        np.minimum.at(worst, settled.rows, settled.values)
        rise = (worst - self._slack).astype(np.float32)
        self.floors = np.where(crowded, np.maximum(self.floors, rise), self.floors)
        self._sizes = np.where(crowded, self._k, self._sizes)
        kept = joined([found.where(~busy), settled])
        return kept.where(np.argsort(kept.rows, kind="stable"))


def propose(
    product: FastProduct, table: Table, k: int, settle: Settle, *, guess: bool
) -> tuple[Proposals, NDArray[np.bool_]]:
    """Propose a superset of each query's k best anchors.

    Args:
        product: the batch's similarities.
        table: the anchors.
        k: at most the number of live anchors.
        settle: see `Pool`.
        guess: whether to guess the floors from a sample.

    Returns:
        The proposals, and which queries they may not be enough for (their guess was too high).
    """
    start = np.full(len(product.slack), _NO_FLOOR, dtype=np.float32)
    floors = _guess(product, table, k) if guess else None
    start = start if floors is None else floors
    pool = Pool(k, product.slack, start, settle)
    for begin, end in _runs(len(table.anchors), product.run):
        found = _hits(product.between(begin, end), pool.floors, begin)
        pool.add(found if table.live is None else found.where(table.live[found.indices]))
    kept = pool.trim()
    return kept, pool.kth - 2 * product.slack < start


def _runs(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut [0, n) into runs, visited in steps of about a golden section of their number."""
    count = -(-n // size)
    step = max(round(count * 0.618), 1)
    while math.gcd(step, count) != 1:
        step += 1
    for i in range(count):
        begin = i * step % count * size
        yield begin, min(begin + size, n)


def _guess(product: FastProduct, table: Table, k: int) -> Floats | None:
    """Guess floors that about twice k anchors reach, from a sample; None if it would be too small.

    The k best of all are about `expected` of the sample; four standard deviations more make a
    guess that is too high rare. Four error bounds below, it is low enough even if all are equal.
    """
    n = len(table.anchors)
    stride = max(_STRIDE, -(-n // product.run))
    picked = np.arange(stride // 2, n, stride, dtype=np.int64)
    picked = picked if table.live is None else picked[table.live[picked]]
    expected = k * len(picked) / table.count
    rank = math.ceil(expected + 4 * math.sqrt(expected)) + 3
    if rank > len(picked):
        return None
    floors = product.sample(picked).topk(rank, dim=0).values[-1].cpu().numpy()
    lowered: Floats = (floors - 4 * product.slack).astype(np.float32)
    return lowered


def _hits(scores: torch.Tensor, floors: Floats, begin: int) -> Proposals:
    """Find the similarities that reach their query's floor.

    Comparing the maxima of groups first costs a sixteenth of comparing all.

    Args:
        scores: (r, m), r a multiple of the group.
        floors: (m,).
        begin: index of the first anchor.
    """
    bar = torch.from_numpy(floors).to(scores.device)
    grouped = scores.view(_GROUP, -1, scores.shape[1])
    group, query = (grouped.amax(dim=0) >= bar).nonzero(as_tuple=True)
    members = grouped[:, group, query]
    place, hit = (members >= bar[query]).nonzero(as_tuple=True)
    anchor = place * grouped.shape[1] + group[hit] + begin
    return Proposals(
        query[hit].cpu().numpy(), anchor.cpu().numpy(), members[place, hit].cpu().numpy()
    )
