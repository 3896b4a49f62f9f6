"""The pairs of one model version as two matrices, and exact search over them.

Positions count the rows of all fragments in order, deleted ones too (see `version_rows`). Examples
are apart: no search and no mean knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from asif_lance.anchors.version_rows import Side, VersionRows
from asif_lance.anchors.whitened import choose_sample, fit_sample, make_scale
from asif_lance.forks import check_not_forked
from asif_lance.progress import track_batches
from asif_lance.records import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    Neighbors,
    UInt64Array,
)
from asif_lance.relative import (
    BlockDistances,
    BlockSums,
    Centre,
    Measure,
    WhitenedSide,
    make_centre,
    mean_of,
    turn_centred_without,
    turn_whitened_without,
)
from asif_lance.search import Blocks, Scale, exact_top_k, similarities_of, top_k_of

#: Turned queries, offsets (m,) and n scales: similarity = (q·a + offset) * scale.
Terms = tuple[Float32Array, Float64Array | None, Scale | None]

_QUERIES = 2**12  # compared before it is told how far that is


class Anchors:
    """The anchors of one model version, each side mapped or read at first use.

    Attributes:
        stored: the rows as the version's files hold them.
        dataset: the Lance dataset, checked out at the version.
        live: (n,) bool; True where an ordinary pair is.
        there: the same of all pairs, examples too.
        count: number of ordinary pairs.
        state: names each fragment's files and deletions; equal states have equal rows at equal
            positions. Empty where no version holds them.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        device: str = "cpu",
        memory_limit: int | None = None,
        stored: VersionRows | None = None,
        epoch: int | None = None,
    ) -> None:
        """Read which rows there are; vectors and ids wait until they are asked for.

        Args:
            dataset: the Lance dataset, checked out at the version.
            device: where vectors live, in memory that versions share; those of a side that does
                not fit stay in main memory and are streamed.
            memory_limit: bytes that one side may occupy. A larger side stays in its files, and its
                memory is given back block by block while it is searched. None for what a CUDA
                device has room for, and for no limit in main memory, where files are mapped.
            stored: the rows of the dataset where they are open already, on their own device.
            epoch: that of before the dataset was opened, see `database.read_epoch`; by default
                today's.
        """
        self.dataset = dataset
        self.stored = stored or VersionRows(
            dataset, device=device, memory_limit=memory_limit, epoch=epoch
        )
        self.live, self.state = self.stored.live & ~self.stored.examples, self.stored.state
        self.there, self.count = self.stored.live, int(self.live.sum())
        self._centres: dict[Side, Centre] = {}
        self._whitened: dict[Side, WhitenedSide] = {}

    def __len__(self) -> int:
        """Positions, those of deleted rows included."""
        return len(self.live)

    @cached_property
    def examples(self) -> Int64Array:
        """(e,) positions of the pairs that are examples, by `pair_id`."""
        positions = np.flatnonzero(self.there & ~self.live)
        if not len(positions):
            return positions  # no ids have to be read for it
        return positions[np.argsort(self.tie_order(positions))]

    def check_current(self) -> int:
        """Passes while none of these pairs was forgotten; returns the epoch up to which.

        `top_k`, `ids` and `rows` check it themselves.

        Raises:
            StaleModelError: some were.
        """
        return self.stored.check_current()

    @property
    def pair_ids(self) -> pa.ChunkedArray:
        """The n ids."""
        return self.stored.pair_ids

    @property
    def image(self) -> list[torch.Tensor]:
        """Image vectors: one (rows, d) float16 tensor per fragment, on the device if they fit."""
        return self.stored.image

    @property
    def text(self) -> list[torch.Tensor]:
        """Caption vectors: one (rows, d) float16 tensor per fragment, on the device if they fit."""
        return self.stored.text

    def tie_order(self, positions: Int64Array) -> Int64Array:
        """Ranks of the ids at (m,) positions: equal cosines go to the smaller `pair_id`."""
        distinct, place = np.unique(positions, return_inverse=True)
        rank = pc.rank(self.pair_ids.take(pa.array(distinct)), tiebreaker="first")
        ranks: Int64Array = rank.to_numpy().astype(np.int64)[place]
        return ranks

    def centre(self, side: Side) -> Centre:
        """The mean of one side's live vectors and all distances from it, found at first use."""
        if side not in self._centres:
            mean = mean_of(self._blocks_of(side), self._sums(side), self.live)
            self._centres[side] = self.centre_at(side, mean, self.live)
        return self._centres[side]

    def mean(self, side: Side) -> Float64Array:
        """The (d,) mean of one side's live vectors."""
        return self.centre(side).mean

    def centre_at(self, side: Side, mean: Float64Array, live: BoolArray) -> Centre:
        """The centre of some rows, (n,) bool, at a (d,) mean that need not be theirs."""
        blocks, sums = self._blocks_of(side), self._sums(side)
        distances = self.stored.distances(side, mean)
        added = range(len(distances), len(blocks))
        distances += [BlockDistances.of(blocks[i], sums[i], mean) for i in added]
        return make_centre(mean, sums, distances, live)

    def whitened(self, side: Side) -> WhitenedSide:
        """The whitening of one side's live vectors and all distances under it, at first use."""
        if side not in self._whitened:
            blocks = self._blocks_of(side)
            known = self.stored.known_whitening(side, blocks[0].shape[1])
            used = fit_sample(self.gather(side, self._sample()), known)
            rows = self.stored.whitened(side, used)
            added = [used.whitening.inverse_distances(block) for block in blocks[len(rows) :]]
            scale = make_scale(rows, added, used, lambda at: self.gather(side, at))
            self._whitened[side] = WhitenedSide(used.whitening, scale)
        return self._whitened[side]

    def _sample(self) -> Int64Array:
        """The positions that a whitening is fitted on, in an order that is that of their ids."""
        return choose_sample(self._id_hashes(), self.live)

    def _id_hashes(self) -> UInt64Array:
        return self.stored.id_hashes()

    def _sums(self, side: Side) -> list[BlockSums]:
        sums = self.stored.sums(side)
        return sums + [BlockSums.of(block) for block in self._blocks_of(side)[len(sums) :]]

    def top_k(
        self, side: Side, queries: Float32Array, k: int, *, measure: Measure = "cosine"
    ) -> Neighbors:
        """The k anchors most similar to each of the (m, d) queries on one side."""
        return self._search(side, self.terms(side, queries, measure=measure), k)

    def top_k_without(
        self,
        side: Side,
        own: Sequence[Int64Array],
        queries: Float32Array,
        k: int,
        *,
        measure: Measure = "cosine",
    ) -> Neighbors:
        """The same as if each query's own anchors had never been there.

        No search finds them, and they are left out of mean and metric. Rows that have fewer end
        with similarities of -1, which carry no weight.

        Args:
            side: where to compare.
            own: of each query, the positions of the live anchors that are to be left out.
            queries: (m, d).
            k: how many to find.
            measure: as in `top_k`.
        """
        spare = max(map(len, own), default=0)
        found = self._search(side, self._terms_without(side, own, queries, measure), k + spare)
        width = min(k, found.indices.shape[1])
        indices = np.zeros((len(own), width), dtype=np.int64)
        similarities = np.full(indices.shape, -1.0, dtype=np.float32)
        for row, left_out in enumerate(own):
            others = np.flatnonzero(~np.isin(found.indices[row], left_out))[:width]
            indices[row, : len(others)] = found.indices[row, others]
            similarities[row, : len(others)] = found.similarities[row, others]
        return Neighbors(indices, similarities)

    def _search(self, side: Side, terms: Terms, k: int) -> Neighbors:
        self.check_current()
        turned, offset, scale = terms
        parts = [
            exact_top_k(
                torch.from_numpy(turned[at]).to(self.stored.device),
                self._blocks_of(side),
                k,
                offset=None if offset is None else offset[at],
                scale=scale,
                live=self.live,
                tie_order=self.tie_order,
                release=self.stored.release_of(side),
            )
            # No queries have neighbors, too: (0, k) of them.
            for at in track_batches(f"compare {side}s", max(len(turned), 1), _QUERIES)
        ]
        return Neighbors(
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )

    def terms(self, side: Side, queries: Float32Array, *, measure: Measure = "cosine") -> Terms:
        """Turned queries, offsets (m,) and n scales: similarity = (q·a + offset) * scale."""
        check_not_forked()  # before torch computes a mean or a metric
        if measure == "cosine":
            return queries, None, None
        frame = self.centre(side) if measure == "centred" else self.whitened(side)
        return *frame.turn_queries(queries), frame.scale

    def _terms_without(
        self, side: Side, own: Sequence[Int64Array], queries: Float32Array, measure: Measure
    ) -> Terms:
        """The same for queries whose own anchors are left out; the scales are those of all."""
        if measure == "cosine":
            return queries, None, None
        if measure == "centred":
            centre, vectors = self.centre(side), [self.vectors(side, at) for at in own]
            turned = turn_centred_without(centre.mean, self.count, queries, vectors)
            return *turned, centre.scale
        sample = self._sample()
        places = [np.flatnonzero(np.isin(sample, at)) for at in own]
        turned = turn_whitened_without(self.gather(side, sample), queries, places)
        return *turned, self.whitened(side).scale

    def similarities(
        self,
        side: Side,
        positions: Sequence[Int64Array],
        queries: Float32Array,
        *,
        measure: Measure = "cosine",
    ) -> list[Float32Array]:
        """The similarities of each of (m, d) queries and its own anchors, as in `top_k`.

        Args:
            side: where to compare.
            positions: of each query's anchors.
            queries: (m, d).
            measure: as in `top_k`.
        """
        sizes = [len(own) for own in positions]
        rows, indices = np.repeat(np.arange(len(sizes)), sizes), np.concatenate(positions)
        turned, offset, scale = self.terms(side, queries, measure=measure)
        blocks = self._blocks_of(side)
        found = similarities_of(turned, blocks, rows, indices, offset=offset, scale=scale)
        return np.split(found, np.cumsum(sizes)[:-1])

    def top_k_among(
        self,
        side: Side,
        positions: Int64Array,
        queries: Float32Array,
        k: int,
        *,
        measure: Measure = "cosine",
        vectors: torch.Tensor | Sequence[torch.Tensor] | None = None,
    ) -> Neighbors:
        """The same, of the live ones among the anchors at (r,) distinct positions only.

        `vectors` spares gathering them: what is stored at these positions, in one block or several.
        """
        turned, offset, scale = self.terms(side, queries, measure=measure)
        found = exact_top_k(
            turned,
            self.gather(side, positions) if vectors is None else vectors,
            k,
            offset=offset,
            scale=None if scale is None else scale.part(positions),
            live=self.live[positions],
            tie_order=lambda indices: self.tie_order(positions[indices]),
        )
        return Neighbors(positions[found.indices], found.similarities)

    def top_k_of(
        self,
        side: Side,
        candidates: Int64Array,
        queries: Float32Array,
        k: int,
        *,
        measure: Measure = "cosine",
    ) -> Neighbors:
        """The same, of each query's own (m, w) live candidates; -1 where it has fewer."""
        turned, offset, scale = self.terms(side, queries, measure=measure)
        blocks, ties = self._blocks_of(side), self.tie_order
        return top_k_of(turned, blocks, candidates, k, offset=offset, scale=scale, tie_order=ties)

    def gather(self, side: Side, positions: Int64Array) -> torch.Tensor:
        """The stored vectors at (r,) positions as they are: (r, d) float16 in main memory."""
        return Blocks(self._blocks_of(side)).take(positions).cpu()

    def vectors(self, side: Side, positions: Int64Array) -> Float32Array:
        """The stored vectors at (m,) positions as (m, d) float32."""
        found: Float32Array = self.gather(side, positions).float().numpy()
        return found

    def ids(self, positions: Int64Array) -> list[str]:
        """The pair ids at (m,) positions."""
        self.check_current()
        return [str(i) for i in self.pair_ids.take(pa.array(positions)).to_pylist()]

    def rows(self, positions: Int64Array, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the live pairs at (m,) positions, in that order; None for those not there."""
        if not len(positions):
            return []
        self.check_current()
        logical = (np.cumsum(self.stored.live)[positions] - 1).tolist()
        with self.stored.reading():
            there = [name for name in columns if name in self.dataset.schema.names]
            rows: list[dict[str, Any]] = self.dataset.take(logical, there).to_pylist()
        return [dict.fromkeys(columns) | row for row in rows]

    def _blocks_of(self, side: Side) -> list[torch.Tensor]:
        return self.image if side == "image" else self.text
