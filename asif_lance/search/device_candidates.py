"""The fast pass where an accelerator holds the anchors: candidates stay there till they are ranked.

The same floors as in `candidates`. One kernel finds what reaches them, where there is one and not
too many do; else it takes a few operations for each run of anchors and one count that comes back.
What is trimmed is told by numbers of as many queries, not of candidates.
"""

from __future__ import annotations

import numpy as np
import torch

from asif_lance.records import BoolArray, Float32Array
from asif_lance.search.candidates import FEWER_THAN_K, lowest_floors, scatter_runs
from asif_lance.search.fast_products import FastProduct
from asif_lance.search.ranking import QueryBatch


class DevicePool:
    """The candidates of a batch on the accelerator; only one thread uses it.

    Attributes:
        rows: (p,) int64, the query of each, ascending once they are trimmed.
        indices: (p,) int64, its anchor.
        safe_floors: (m,) the highest floors known to keep all of the k best.
    """

    def __init__(self, batch: QueryBatch, product: FastProduct, floors: Float32Array) -> None:
        """Start empty, with (m,) floors; values below are of no interest."""
        self._batch, self._product, self._k = batch, product, batch.k
        self.safe_floors = lowest_floors(len(floors))
        self._home = batch.table.anchors.blocks[0].device
        self._floors = torch.from_numpy(floors).to(self._home)
        self._most = len(floors) * (4 * batch.k + 4096)  # candidates before they are trimmed
        self.rows = torch.empty(0, dtype=torch.int64, device=self._home)
        self.indices, self._values = self.rows, self.rows.float()
        self._parts = [(self.rows, self.indices, self._values)]
        self._size = 0

    def collect(self) -> None:
        """Add a superset of each query's k best anchors, and drop what turns out to be too low."""
        table, step = self._batch.table, self._product.run
        live = None if table.live is None else torch.from_numpy(table.live).to(self._home)
        found = self._product.find_reaching(self._floors, live, self._most)
        if found is not None:
            self._parts.append(found)
        else:
            for begin, end in scatter_runs(len(table.anchors), step):
                reaching = self._product.compute_run(begin, end)[:, : self._product.count]
                self._add(reaching, begin, None if live is None else live[begin:end])
        self._trim()

    def _add(self, scores: torch.Tensor, begin: int, live: torch.Tensor | None) -> None:
        """Add those of (r, m) similarities that reach their query's floor."""
        mask = scores >= self._floors
        if live is not None:
            mask &= live[:, None]
        anchors, rows = mask.nonzero().unbind(dim=1)
        self._parts.append((rows, anchors + begin, scores[anchors, rows]))
        self._size += len(rows)
        if self._size > self._most:
            self._trim()

    def _trim(self) -> None:
        """Raise the floors to what is safe below the k-th best, and drop what is lower."""
        joined = [torch.cat(column) for column in zip(*self._parts, strict=True)]
        by_value = joined[2].argsort(descending=True)
        order = by_value[joined[0][by_value].argsort(stable=True)]
        self.rows, self.indices, self._values = (column[order] for column in joined)
        sizes, first = self._measure_rows()
        kth = self._values.new_full((len(sizes),), FEWER_THAN_K)
        enough = sizes >= self._k
        last = (first + self._k - 1).clamp(max=max(len(self._values) - 1, 0))
        if len(self._values):
            kth = torch.where(enough, self._values[last], kth)
        self._raise_floors(kth.cpu().double().numpy())
        self._select(self._values >= self._floors[self.rows])
        crowded = self._measure_rows()[0] > self._most // (2 * len(sizes))
        if crowded.any():
            self._cut_crowded(crowded)
        self._parts, self._size = [(self.rows, self.indices, self._values)], len(self.rows)

    def _cut_crowded(self, crowded: torch.Tensor) -> None:
        """Cut the candidates of crowded queries to the exact k best; see `CandidatePool`."""
        busy = crowded[self.rows]
        values, indices = self._batch.rank_there(self.rows[busy], self.indices[busy])
        chosen: BoolArray = crowded.cpu().numpy()
        self._raise_floors(np.where(chosen, values[:, -1], FEWER_THAN_K))
        self._select(~busy)
        rows = np.repeat(np.flatnonzero(chosen), self._k)
        best = values[chosen].astype(np.float32).ravel(), indices[chosen].ravel()
        added = [torch.from_numpy(one).to(self._home) for one in (rows, best[1], best[0])]
        both = zip((self.rows, self.indices, self._values), added, strict=True)
        self.rows, self.indices, self._values = (torch.cat(pair) for pair in both)
        self._select(self.rows.argsort(stable=True))

    def _raise_floors(self, kth: np.ndarray) -> None:
        self.safe_floors = np.maximum(self.safe_floors, self._product.lower_floors(kth))
        safe = torch.from_numpy(self.safe_floors).to(self._home)
        self._floors = torch.maximum(self._floors, safe)

    def _select(self, chosen: torch.Tensor) -> None:
        columns = self.rows, self.indices, self._values
        self.rows, self.indices, self._values = (column[chosen] for column in columns)

    def _measure_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """How many candidates each query has, and where its first one is."""
        sizes = torch.bincount(self.rows, minlength=self._product.count)
        return sizes, sizes.cumsum(0) - sizes
