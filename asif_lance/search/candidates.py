"""The fast pass of exact search: find every anchor that could be among the k best.

float32 similarities with anchors, run by run, are compared with a floor per query; anchors that
reach the floor become candidates. The floor is guessed from a sample and rises as good anchors are
found; it is safe if it lies twice the error bound below the k-th best similarity found, which is
checked at the end. A query whose guess was too high is searched again without one. Runs are visited
in scattered order, so that sorted anchors (each better than the last) cost no more than others.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array
from asif_lance.search.anchor_scale import Scale
from asif_lance.search.blocks import Blocks
from asif_lance.search.fast_products import FastProduct
from asif_lance.search.kernel_loading import going_without
from asif_lance.search.parallel import limit_torch, share_work, torch_threads

_SAMPLE_STRIDES = 61, 509  # one anchor in so many is sampled for a batch, for a single query, to
# which candidates cost less; primes, so that repeated captions do not resonate
_LOWEST_FLOOR = float(np.finfo(np.float32).min)
_FEWER_THAN_K = -1e38  # stands for a k-th best that is not there; stays finite in float32

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class SearchTable:
    """What a search runs over; arrays are trusted here.

    Attributes:
        anchors: n anchors.
        scale: multiplies each anchor's products; None for ones.
        live: (n,) bool or None; the anchors that may be found.
        count: number of live anchors.
    """

    anchors: Blocks
    scale: Scale | None
    live: BoolArray | None
    count: int


@dataclass(frozen=True)
class Candidates:
    """Flat (query, anchor, value) triples.

    Attributes:
        rows: (p,) the query.
        indices: (p,) the anchor.
        values: (p,) float32, their similarity to within the error bound.
    """

    rows: Int64Array
    indices: Int64Array
    values: Float32Array

    def select(self, chosen: BoolArray | NDArray[np.intp]) -> Candidates:
        """Keep the chosen ones, in the order of `chosen` if it holds positions."""
        return Candidates(self.rows[chosen], self.indices[chosen], self.values[chosen])

    def select_queries(self, first: int, last: int) -> Candidates:
        """Keep those of queries [first, last), which are counted from `first` then."""
        own = self.select((first <= self.rows) & (self.rows < last))
        return Candidates(own.rows - first, own.indices, own.values)

    def sort_by_query(self) -> Candidates:
        """Sort them by query; those of one query stay in their order."""
        return self.select(np.argsort(self.rows.astype(np.int16), kind="stable"))  # a radix sort


_NONE = Candidates(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
KeepBest = Callable[[Candidates], Candidates]


def join(parts: list[Candidates]) -> Candidates:
    """Put lists of candidates after one another."""
    return Candidates(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


class PaddedRows:
    """Lays flat entries out as matrices with one row per query, padded on the right."""

    def __init__(self, rows: Int64Array, count: int) -> None:
        """Place (p,) entries by the query of each, ascending, of `count` queries."""
        sizes = np.bincount(rows, minlength=count)
        self._filled = np.arange(sizes.max(initial=0)) < sizes[:, None]

    def fill(self, column: NDArray[_T], pad: float) -> NDArray[_T]:
        """Give the (count, widest) matrix of one column of entries."""
        matrix = np.full(self._filled.shape, pad, dtype=column.dtype)
        matrix[self._filled] = column
        return matrix


class CandidatePool:
    """The candidates of some queries, trimmed whenever one has too many.

    Attributes:
        floors: (m,) what the next candidates must reach.
        safe_floors: (m,) the highest floors known to keep all of the k best.
    """

    def __init__(
        self,
        k: int,
        lower_floors: Callable[[Float64Array], Float32Array],
        floors: Float32Array,
        keep_best: KeepBest,
    ) -> None:
        """Start empty.

        Args:
            k: candidates that each query needs.
            lower_floors: see `FastProduct.lower_floors`.
            floors: (m,) values below are of no interest; they only rise, in place.
            keep_best: cuts candidates to the exact k best of each query, for when so many are
                within the error bound (equal anchors, for instance) that trimming cannot.
        """
        self._k, self._lower_floors, self._keep_best = k, lower_floors, keep_best
        self.floors = floors
        self.safe_floors = lowest_floors(len(floors))
        self._most = 4 * k + 4096  # candidates of one query before they are trimmed
        self._sizes = np.zeros(len(floors), dtype=np.int64)
        self._parts = [_NONE]
        self._lock = threading.Lock()

    def add(self, found: Candidates) -> None:
        """Add candidates; several threads may."""
        with self._lock:
            self._parts.append(found)
            self._sizes += np.bincount(found.rows, minlength=len(self._sizes))
            if self._sizes.max() > self._most:
                self.trim()

    def trim(self) -> Candidates:
        """Raise the floors to what is safe below the k-th best, and drop what is lower."""
        kept = self._drop_low(join(self._parts))
        self._sizes = np.bincount(kept.rows, minlength=len(self._sizes))
        crowded = self._sizes > self._most // 2
        if crowded.any():
            kept = self._cut_crowded(kept, crowded)
        self._parts = [kept]
        return kept

    def _drop_low(self, found: Candidates) -> Candidates:
        found = found.sort_by_query()
        kth = np.full(len(self.floors), _FEWER_THAN_K)
        ends = np.cumsum(np.bincount(found.rows, minlength=len(kth)))
        for row, own in enumerate(np.split(found.values, ends[:-1])):
            if len(own) >= self._k:
                kth[row] = np.partition(own, -self._k)[-self._k]
        self._raise_floors(kth)
        return found.select(found.values >= self.floors[found.rows])

    def _cut_crowded(self, found: Candidates, crowded: BoolArray) -> Candidates:
        """Cut the candidates of queries that still have too many to the exact k best."""
        busy = crowded[found.rows]
        best = self._keep_best(found.select(busy))
        worst = np.full(len(crowded), -_FEWER_THAN_K)
        np.minimum.at(worst, best.rows, best.values)
        self._raise_floors(np.where(crowded, worst, _FEWER_THAN_K))
        self._sizes = np.where(crowded, self._k, self._sizes)
        return join([found.select(~busy), best]).sort_by_query()

    def _raise_floors(self, kth: Float64Array) -> None:
        self.safe_floors = np.maximum(self.safe_floors, self._lower_floors(kth))
        np.maximum(self.floors, self.safe_floors, out=self.floors)


def lowest_floors(count: int) -> Float32Array:
    """Floors that every similarity of so many queries reaches."""
    return np.full(count, _LOWEST_FLOOR, dtype=np.float32)


def collect_candidates(
    product: FastProduct, table: SearchTable, floors: Float32Array, pools: Sequence[CandidatePool]
) -> None:
    """Put a superset of each query's k best anchors into the pools.

    Args:
        product: the batch's similarities.
        table: the anchors.
        floors: (m,) of all queries, which rise as those of the pools do.
        pools: each for as many queries after one another as it has floors.
    """

    def scan(runs: Iterator[tuple[int, int]]) -> None:
        own = product.copy_for_thread() if product.threads > 1 else product
        with going_without():
            for begin, end in runs:
                scores = own.compute_run(begin, end)
                found = _keep_live(_find_reaching(scores, floors, begin), table)
                first = 0
                for pool in pools:
                    pool.add(found.select_queries(first, first + len(pool.floors)))
                    first += len(pool.floors)

    share_work(list(_scatter_runs(len(table.anchors), product.run)), scan, product.threads)


def _find_reaching(scores: torch.Tensor, floors: Float32Array, begin: int) -> Candidates:
    """Find the similarities that reach their query's floor, as `FastProduct.compute_run` has them.

    `begin` is the first anchor.
    """
    width = scores.shape[1]
    least = np.full(width, np.inf, dtype=np.float32)  # so that columns without meaning reach none
    least[: len(floors)] = floors
    if scores.device.type == "cpu":
        host = scores.numpy()
        positions = np.flatnonzero(host >= least)
        values = host.ravel()[positions]
    else:
        hits = (scores >= torch.from_numpy(least).to(scores.device)).view(-1).nonzero().view(-1)
        positions, values = hits.cpu().numpy(), scores.view(-1)[hits].cpu().numpy()
    anchors = positions // width
    return Candidates(positions - anchors * width, anchors + begin, values)


def _keep_live(found: Candidates, table: SearchTable) -> Candidates:
    return found if table.live is None else found.select(table.live[found.indices])


def _scatter_runs(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut [0, n) into runs, visited in steps of about a golden section of their number."""
    count = -(-n // size)
    step = max(round(count * 0.618), 1)
    while math.gcd(step, count) != 1:
        step += 1
    for i in range(count):
        begin = i * step % count * size
        yield begin, min(begin + size, n)


@dataclass(frozen=True)
class FloorGuess:
    """Floors that about twice k anchors reach, guessed from a sample.

    Attributes:
        floors: (m,).
        crowding: the share of anchors that the products' error bound lets in beyond these.
    """

    floors: Float32Array
    crowding: float


def guess_floors(product: FastProduct, table: SearchTable, k: int) -> FloorGuess | None:
    """Guess floors from a sample; None if it would be too small.

    The k best of all are about `expected` of the sample; four standard deviations more make a
    guess that is too high rare. Errors are far below their bound: half as much of it again makes
    the guess low enough even if all are equal.
    """
    stride = max(_SAMPLE_STRIDES[product.count == 1], -(-len(table.anchors) // product.run))
    with limit_torch(torch_threads(product.work // stride)):
        sample = product.compute_sample(stride)
        if table.live is not None:
            sample = sample[torch.from_numpy(table.live[stride // 2 :: stride]).to(sample.device)]
        expected = k * len(sample) / table.count
        rank = math.ceil(expected + 4 * math.sqrt(expected)) + 3
        if rank > len(sample):
            return None
        seen = sample.topk(rank, dim=0).values[-1].cpu().double().numpy()
        floors = product.lower_floors(seen - (seen - product.lower_floors(seen)) / 2)
        reaching = int((sample >= torch.from_numpy(floors).to(sample.device)).sum())
    return FloorGuess(floors, (reaching / product.count - rank) / len(sample))
