"""Ranks candidates by exact similarity, equal ones by the given order of ties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from asif_lance.errors import InvalidVectorError
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array
from asif_lance.search.anchor_scale import Scale
from asif_lance.search.blocks import Blocks
from asif_lance.search.exact_products import multiply_exactly, multiply_on_device
from asif_lance.search.parallel import share_work

TieOrder = Callable[[Int64Array], Int64Array]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class SearchTable:
    """What a search runs over; arrays are trusted here.

    Attributes:
        anchors: n anchors.
        scale: multiplies each anchor's products; None for ones.
        live: (n,) bool or None; the anchors that may be found.
        count: number of live anchors.
        ties: ranks of tied anchors.
    """

    anchors: Blocks
    scale: Scale | None
    live: BoolArray | None
    count: int
    ties: TieOrder


@dataclass(frozen=True)
class QueryBatch:
    """Queries that are searched together, and how their candidates are ranked.

    Attributes:
        queries: (m, d) on the grid.
        size: (m,) powers of two; similarities are to be multiplied with them.
        offset: (m,) or None.
        table: the anchors.
        k: how many to find.
    """

    queries: Float32Array
    size: Float64Array
    offset: Float64Array | None
    table: SearchTable
    k: int

    def select(self, chosen: BoolArray | slice) -> QueryBatch:
        """Keep the chosen queries."""
        offset = None if self.offset is None else self.offset[chosen]
        return replace(self, queries=self.queries[chosen], size=self.size[chosen], offset=offset)

    def compute_similarities(self, rows: Int64Array, indices: Int64Array) -> Float64Array:
        """Exact products of (p,) queries and anchors, then offset and scale, one rounding each."""
        if self.table.anchors.on_accelerator:
            return self._compute_there(*self._bring(rows, indices)).cpu().numpy()
        scale, anchors = self.table.scale, self.table.anchors
        mean = None if scale is None else scale.mean
        if mean is None:
            values, mean_products = multiply_exactly(self.queries, anchors, rows, indices), None
        else:
            vectors = np.concatenate([self.queries, mean[None]])
            both = np.append(rows, np.full(len(rows), len(self.queries))), np.tile(indices, 2)
            values, mean_products = np.split(multiply_exactly(vectors, anchors, *both), 2)
        if self.offset is not None:
            values += self.offset[rows]
        if scale is not None:
            values *= scale.exact_factors_at(indices, mean_products)
        return values

    def _compute_there(self, rows: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The same on the accelerator that holds the anchors, by the same steps."""
        scale, anchors = self.table.scale, self.table.anchors
        values = multiply_on_device(self.queries, anchors, rows, indices)
        there = values.device
        if self.offset is not None:
            values += torch.from_numpy(self.offset).to(there)[rows.to(there)]
        if scale is not None:
            mean_products = None
            if scale.mean is not None:
                mean = scale.mean[None]
                mean_products = multiply_on_device(mean, anchors, torch.zeros_like(rows), indices)
            values *= scale.exact_factors_there(indices.to(there), mean_products)
        return values

    def _bring(self, rows: Int64Array, indices: Int64Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Candidates to the accelerator."""
        self.table.anchors.owners(indices)
        places = torch.from_numpy(np.stack([rows, indices]))
        both = places.to(self.table.anchors.blocks[0].device)
        return both[0], both[1]

    def rank(self, rows: Int64Array, indices: Int64Array) -> tuple[Float64Array, Int64Array]:
        """Give the k best candidates of each query: (m, k) each, padded with -inf and -1.

        Candidates are (p,) queries, ascending, and the (p,) anchors.
        """
        if self.table.anchors.on_accelerator:
            return self.rank_there(*self._bring(rows, indices))
        similarity = self._lay_out(rows, self.compute_similarities(rows, indices), -np.inf)
        return self._cut(similarity, self._lay_out(rows, indices, -1))

    def rank_there(
        self, rows: torch.Tensor, indices: torch.Tensor
    ) -> tuple[Float64Array, Int64Array]:
        """The same on the accelerator that holds the anchors and names of the candidates.

        Similarities and numbers of the k best are all that comes back.
        """
        similarity = self._compute_there(rows, indices)
        rows, indices = rows.to(similarity.device), indices.to(similarity.device)
        sizes = torch.bincount(rows, minlength=len(self.queries))
        shape = len(self.queries), int(sizes.max()) if len(self.queries) else 0
        first = sizes.cumsum(0) - sizes
        within = torch.arange(len(rows), device=rows.device) - first[rows]
        values, numbers = similarity.new_full(shape, -np.inf), indices.new_full(shape, -1)
        values[rows, within], numbers[rows, within] = similarity, indices
        return self._cut(values, numbers)

    def _cut(
        self, similarity: torch.Tensor, index: torch.Tensor
    ) -> tuple[Float64Array, Int64Array]:
        """The k best of each row of candidates, in order."""
        values, order = similarity.sort(dim=1, descending=True)
        if index.shape[1]:
            self._break_ties(values, index.gather(1, order), order)
        order = order[:, : self.k]
        width = (0, self.k - order.shape[1])
        return (
            pad(similarity.gather(1, order), width, value=-np.inf).cpu().numpy(),
            pad(index.gather(1, order), width, value=-1).cpu().numpy(),
        )

    def rank_in_parts(
        self, rows: Int64Array, indices: Int64Array, threads: int
    ) -> tuple[Float64Array, Int64Array]:
        """The same; each thread ranks the candidates of some of the queries."""
        if self.table.anchors.on_accelerator:
            return self.rank(rows, indices)
        shape = len(self.queries), self.k
        found = np.empty(shape), np.empty(shape, dtype=np.int64)
        size = -(-shape[0] // threads)

        def rank(firsts: Iterator[int]) -> None:
            for first in firsts:
                at = slice(first, first + size)
                own = slice(*np.searchsorted(rows, [first, first + size]))
                ranked = self.select(at).rank(rows[own] - first, indices[own])
                found[0][at], found[1][at] = ranked

        firsts = range(0, shape[0], size)
        share_work(firsts, rank, len(firsts))
        return found

    def check(self, values: Float64Array, indices: Int64Array) -> tuple[Float64Array, Int64Array]:
        """Pass what `rank` found, unless anchors that are no numbers had a part in it."""
        if (indices < 0).any() or np.isnan(values).any():
            raise InvalidVectorError("some anchors hold NaN: their similarities cannot be compared")
        return values, indices

    def _lay_out(self, rows: Int64Array, column: NDArray[_T], padding: float) -> torch.Tensor:
        """One column of candidates as a matrix with a row for each query, padded on the right."""
        sizes = np.bincount(rows, minlength=len(self.queries))
        matrix = np.full((len(sizes), sizes.max(initial=0)), padding, dtype=column.dtype)
        matrix[np.arange(matrix.shape[1]) < sizes[:, None]] = column
        return torch.from_numpy(matrix)

    def _break_ties(self, values: torch.Tensor, index: torch.Tensor, order: torch.Tensor) -> None:
        """Reorder equal ones among the k best; (m, w) each, sorted by value, `order` changes."""
        worst = values[:, min(self.k, values.shape[1]) - 1, None]
        same = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] >= worst) & (index[:, 1:] >= 0)
        rows = same.any(dim=1).nonzero().view(-1)
        if not len(rows):
            return
        tied = pad(same[rows], (1, 0)) | pad(same[rows], (0, 1))
        ranks = index.new_zeros(tied.shape)
        found = self.table.ties(index[rows][tied].cpu().numpy())
        ranks[tied] = torch.from_numpy(found).to(ranks.device)
        first = ranks.argsort(dim=1)
        second = values[rows].gather(1, first).argsort(dim=1, descending=True, stable=True)
        order[rows] = order[rows].gather(1, first.gather(1, second))
