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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.devices import is_accelerator, limit_torch
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array
from asif_lance.search.fast_products import FastProduct
from asif_lance.search.kernel_loading import going_without
from asif_lance.search.parallel import share_work, torch_threads
from asif_lance.search.ranking import QueryBatch, SearchTable

_SAMPLE_STRIDES = 61, 509  # one anchor in so many is sampled for a batch, for a single query, to
# which candidates cost less; primes, so that repeated captions do not resonate
_LOWEST_FLOOR = float(np.finfo(np.float32).min)
FEWER_THAN_K = -1e38  # stands for a k-th best that is not there; stays finite in float32


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


def _join(parts: Sequence[Candidates]) -> Candidates:
    """Put candidates together, sorted by query; those of one query stay in their order."""
    rows = np.concatenate([part.rows for part in parts])
    indices = np.concatenate([part.indices for part in parts])
    values = np.concatenate([part.values for part in parts])
    order = np.argsort(rows.astype(np.int16), kind="stable")  # 16 bits: a radix sort
    return Candidates(rows, indices, values).select(order)


class CandidatePool:
    """The candidates of a batch, trimmed whenever one query has too many.

    Attributes:
        floors: (m,) what the next candidates must reach; they only rise, in place.
        safe_floors: (m,) the highest floors known to keep all of the k best.
    """

    def __init__(self, batch: QueryBatch, product: FastProduct, floors: Float32Array) -> None:
        """Start empty.

        Args:
            batch: the m queries.
            product: their similarities.
            floors: (m,) values below are of no interest.
        """
        self._batch, self._product, self._k = batch, product, batch.k
        self.floors, self.safe_floors = floors, lowest_floors(len(floors))
        self._most = 4 * batch.k + 4096  # candidates of one query before they are trimmed
        self._sizes = np.zeros(len(floors), dtype=np.int64)
        self._parts = [Candidates(*(np.zeros(0, kind) for kind in ("i8", "i8", "f4")))]
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
        kept = self._drop_low(_join(self._parts))
        self._sizes = np.bincount(kept.rows, minlength=len(self._sizes))
        crowded = self._sizes > self._most // 2
        if crowded.any():
            kept = self._cut_crowded(kept, crowded)
        self._parts = [kept]
        return kept

    def _drop_low(self, found: Candidates) -> Candidates:
        kth = np.full(len(self.floors), FEWER_THAN_K)
        ends = np.cumsum(np.bincount(found.rows, minlength=len(kth)))
        for row, own in enumerate(np.split(found.values, ends[:-1])):
            if len(own) >= self._k:
                kth[row] = np.partition(own, -self._k)[-self._k]
        self._raise_floors(kth)
        return found.select(found.values >= self.floors[found.rows])

    def _cut_crowded(self, found: Candidates, crowded: BoolArray) -> Candidates:
        """Cut the candidates of crowded queries to the exact k best.

        So many are within the error bound (equal anchors, for instance) that dropping low ones
        does not do.
        """
        busy = crowded[found.rows]
        values, indices = self._batch.rank(found.rows[busy], found.indices[busy])
        self._raise_floors(np.where(crowded, values[:, -1], FEWER_THAN_K))
        self._sizes = np.where(crowded, self._k, self._sizes)
        rows = np.repeat(np.flatnonzero(crowded), self._k)
        best = values[crowded].ravel().astype(np.float32)
        return _join([found.select(~busy), Candidates(rows, indices[crowded].ravel(), best)])

    def _raise_floors(self, kth: Float64Array) -> None:
        self.safe_floors = np.maximum(self.safe_floors, self._product.lower_floors(kth))
        np.maximum(self.floors, self.safe_floors, out=self.floors)


def lowest_floors(count: int) -> Float32Array:
    """Floors that every similarity of so many queries reaches."""
    return np.full(count, _LOWEST_FLOOR, dtype=np.float32)


def collect_candidates(product: FastProduct, table: SearchTable, pool: CandidatePool) -> None:
    """Put a superset of each query's k best anchors into the pool."""

    def scan(runs: Iterator[tuple[int, int]]) -> None:
        own = product.copy_for_thread() if product.threads > 1 else product
        with going_without():
            for begin, end in runs:
                found = _find_reaching(own.compute_run(begin, end), pool.floors, begin)
                pool.add(found if table.live is None else found.select(table.live[found.indices]))

    share_work(list(scatter_runs(len(table.anchors), product.run)), scan, product.threads)


def _find_reaching(scores: torch.Tensor, floors: Float32Array, begin: int) -> Candidates:
    """Find the similarities that reach their query's floor, as `FastProduct.compute_run` has them.

    `begin` is the first anchor.
    """
    width = scores.shape[1]
    least = np.full(width, np.inf, dtype=np.float32)  # so that columns without meaning reach none
    least[: len(floors)] = floors
    if not is_accelerator(scores.device):
        host = scores.numpy()
        positions = np.flatnonzero(host >= least)
        values = host.ravel()[positions]
    else:
        hits = (scores >= torch.from_numpy(least).to(scores.device)).view(-1).nonzero().view(-1)
        positions, values = hits.cpu().numpy(), scores.view(-1)[hits].cpu().numpy()
    anchors = positions // width
    return Candidates(positions - anchors * width, anchors + begin, values)


def scatter_runs(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut [0, n) into runs, visited in steps of about a golden section of their number."""
    count = -(-n // size)
    step = max(round(count * 0.618), 1)
    while math.gcd(step, count) != 1:
        step += 1
    for i in range(count):
        begin = i * step % count * size
        yield begin, min(begin + size, n)


def guess_floors(product: FastProduct, table: SearchTable, k: int) -> tuple[Float32Array, float]:
    """Guess floors that about twice k anchors reach, from a sample.

    The k best of all are about `expected` of the sample; four standard deviations more make a
    guess that is too high rare. Errors are far below their bound: half as much of it again makes
    the guess low enough even if all are equal.

    Returns:
        (m,) floors, and the share of anchors that the products' error bound lets in beyond these:
        the lowest, and infinity, where the sample would be too small.
    """
    stride = max(_SAMPLE_STRIDES[product.count == 1], -(-len(table.anchors) // product.run))
    with limit_torch(torch_threads(product.work // stride)):
        sample = product.compute_sample(stride)
        if table.live is not None:
            sample = sample[torch.from_numpy(table.live[stride // 2 :: stride]).to(sample.device)]
        expected = k * len(sample) / table.count
        rank = math.ceil(expected + 4 * math.sqrt(expected)) + 3
        if rank > len(sample):
            return lowest_floors(product.count), math.inf
        seen = sample.topk(rank, dim=0).values[-1].cpu().double().numpy()
        floors = product.lower_floors(seen - (seen - product.lower_floors(seen)) / 2)
        reaching = int((sample >= torch.from_numpy(floors).to(sample.device)).sum())
    return floors, (reaching / product.count - rank) / len(sample)
