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
from asif_lance.search.exact_products import multiply_exactly
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

    def rank(self, rows: Int64Array, indices: Int64Array) -> tuple[Float64Array, Int64Array]:
        """Give the k best candidates of each query: (m, k) each, padded with -inf and -1.

        Candidates are (p,) queries, ascending, and the (p,) anchors.
        """
        similarity = self._lay_out(rows, self.compute_similarities(rows, indices), -np.inf)
        index = self._lay_out(rows, indices, -1)
        values, order = similarity.sort(dim=1, descending=True)
        if index.shape[1]:
            self._break_ties(values, index.gather(1, order), order)
        order = order[:, : self.k]
        width = (0, self.k - order.shape[1])
        return (
            pad(similarity.gather(1, order), width, value=-np.inf).numpy(),
            pad(index.gather(1, order), width, value=-1).numpy(),
        )

    def rank_in_parts(
        self, rows: Int64Array, indices: Int64Array, threads: int
    ) -> tuple[Float64Array, Int64Array]:
        """The same; each thread ranks the candidates of some of the queries."""
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
        ranks[tied] = torch.from_numpy(self.table.ties(index[rows][tied].numpy()))
        first = ranks.argsort(dim=1)
        second = values[rows].gather(1, first).argsort(dim=1, descending=True, stable=True)
        order[rows] = order[rows].gather(1, first.gather(1, second))
