"""Ranks candidates by exact similarity, equal ones by the given order of ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from asif_lance.errors import InvalidVectorError
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array
from asif_lance.search.candidates import Candidates, PaddedRows, SearchTable
from asif_lance.search.exact_products import multiply_exactly

TieOrder = Callable[[Int64Array], Int64Array]


@dataclass(frozen=True)
class QueryBatch:
    """Queries that are searched together, and how their candidates are ranked.

    Attributes:
        queries: (m, d) on the grid.
        offset: (m,) or None.
        table: the anchors.
        ties: ranks of tied anchors.
        k: at most the number of live anchors.
    """

    queries: Float32Array
    offset: Float64Array | None
    table: SearchTable
    ties: TieOrder
    k: int

    def split(self, count: int) -> list[tuple[slice, QueryBatch]]:
        """Cut the queries into `count` parts, or fewer."""
        size = -(-len(self.queries) // count)
        parts = [slice(i, i + size) for i in range(0, len(self.queries), size)]
        return [(at, self.select(at)) for at in parts]

    def select(self, chosen: BoolArray | slice) -> QueryBatch:
        """Keep the chosen queries."""
        offset = None if self.offset is None else self.offset[chosen]
        return QueryBatch(self.queries[chosen], offset, self.table, self.ties, self.k)

    def compute_similarities(self, found: Candidates) -> Float64Array:
        """Compute exact products, then offset and scale with one rounding each."""
        scale = self.table.scale
        values, mean_products = multiply_exactly(
            self.queries,
            self.table.anchors,
            found.rows,
            found.indices,
            None if scale is None else scale.mean,
        )
        if self.offset is not None:
            values += self.offset[found.rows]
        if scale is not None:
            values *= scale.exact_factors_at(found.indices, mean_products)
        return values

    def rank(self, found: Candidates) -> tuple[Float64Array, Int64Array]:
        """Give the k best candidates of each query: (m, k) each, padded with -inf and -1."""
        padded = PaddedRows(found.rows, len(self.queries))
        similarity = torch.from_numpy(padded.fill(self.compute_similarities(found), -np.inf))
        index = torch.from_numpy(padded.fill(found.indices, -1))
        values, order = similarity.sort(dim=1, descending=True)
        if index.shape[1]:
            self._break_ties(values, index.gather(1, order), order)
        order = order[:, : self.k]
        width = (0, self.k - order.shape[1])
        return (
            torch.nn.functional.pad(similarity.gather(1, order), width, value=-np.inf).numpy(),
            torch.nn.functional.pad(index.gather(1, order), width, value=-1).numpy(),
        )

    def check(self, values: Float64Array, indices: Int64Array) -> tuple[Float64Array, Int64Array]:
        """Pass what `rank` found, unless anchors that are no numbers had a part in it."""
        if (indices < 0).any() or np.isnan(values).any():
            raise InvalidVectorError("some anchors hold NaN: their similarities cannot be compared")
        return values, indices

    def _break_ties(self, values: torch.Tensor, index: torch.Tensor, order: torch.Tensor) -> None:
        """Reorder equal ones among the k best; (m, w) each, sorted by value, `order` changes."""
        worst = values[:, min(self.k, values.shape[1]) - 1, None]
        same = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] >= worst) & (index[:, 1:] >= 0)
        rows = same.any(dim=1).nonzero().view(-1)
        if not len(rows):
            return
        tied = torch.nn.functional.pad(same[rows], (1, 0)) | torch.nn.functional.pad(
            same[rows], (0, 1)
        )
        ranks = index.new_zeros(tied.shape)
        ranks[tied] = torch.from_numpy(self.ties(index[rows][tied].numpy()))
        first = ranks.argsort(dim=1)
        second = values[rows].gather(1, first).argsort(dim=1, descending=True, stable=True)
        order[rows] = order[rows].gather(1, first.gather(1, second))

    def keep_best(self, found: Candidates) -> Candidates:
        """Cut candidates to the exact k best of each query that has any."""
        values, indices = self.rank(found)
        rows, columns = np.nonzero(indices >= 0)
        kept = values[rows, columns].astype(np.float32)
        return Candidates(rows, indices[rows, columns], kept)
