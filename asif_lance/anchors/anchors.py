"""The pairs of one model version as two matrices, and exact search over them.

Positions count the rows of all fragments in order, deleted ones too (see `version_rows`). Examples
are apart: no search and no mean knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

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
    Whitening,
    make_centre,
    mean_of,
    turn_centred,
    turn_centred_without,
    turn_whitened_without,
)
from asif_lance.search import Blocks, Scale, exact_top_k, similarities_of, top_k_of

#: Turned queries and offsets (m,): similarity = (q·a + offset) * the anchor's scale.
Turned = tuple[Float32Array, Float64Array | None]

_QUERIES = 2**12  # compared before it is told how far that is


class Anchors:
    """The anchors of one model version, each side mapped or read at first use.

    Attributes:
        stored: the rows as the version's files hold them.
        dataset: the Lance dataset, checked out at the version.
        count: number of ordinary pairs.
        pairs: number of all pairs, examples too.
        state: names each fragment's files and deletions; equal states have equal rows at equal
            positions. Empty where no version holds them.
        whole: whether this process may hold what is as long as the table.
    """

    whole: ClassVar[bool] = True

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
            device: where vectors live that fit; a side that does not is streamed from main memory.
            memory_limit: bytes that one side may occupy. A larger side stays in its files, and
                memory is given back block by block in searches. None for what a CUDA device has
                room for, and for no limit in main memory, where files are mapped.
            stored: the rows of the dataset where they are open already, on their own device.
            epoch: of before the dataset was opened, see `database.read_epoch`; None for today's.
        """
        self.dataset = dataset
        self.stored = stored or VersionRows(
            dataset, device=device, memory_limit=memory_limit, epoch=epoch
        )
        self.state, self.pairs = self.stored.state, self.stored.count
        self.count = self.pairs - len(self.stored.example_positions)
        self._centres: dict[Side, Centre] = {}
        self._whitened: dict[Side, WhitenedSide] = {}

    def __len__(self) -> int:
        """Positions, those of deleted rows included."""
        return int(self.stored.rows_per_fragment.sum())

    @cached_property
    def live(self) -> BoolArray:
        """(n,) True where an ordinary pair is."""
        return self.stored.live & ~self.stored.examples

    @cached_property
    def there(self) -> BoolArray:
        """(n,) True where a pair is, examples too."""
        return self.stored.live

    @cached_property
    def examples(self) -> Int64Array:
        """(e,) positions of the pairs that are examples, by `pair_id`."""
        found = self._example_positions()
        return found[np.argsort(self.tie_order(found))] if len(found) else found

    def _example_positions(self) -> Int64Array:
        return self.stored.example_positions

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
        ranks: Int64Array = pc.rank(self._ids_at(distinct), tiebreaker="first").to_numpy()[place]
        return ranks.astype(np.int64)

    def _ids_at(self, positions: Int64Array) -> pa.ChunkedArray:
        return self.pair_ids.take(pa.array(positions))

    def mean(self, side: Side) -> Float64Array:
        """The mean of one side's live vectors: (d,)."""
        return self.centre(side).mean

    def centre(self, side: Side) -> Centre:
        """The mean of one side's live vectors and all distances from it, found at first use."""
        if side not in self._centres:
            mean = mean_of(self._blocks_of(side), self._sums(side), self.live)
            self._centres[side] = self.centre_at(side, mean, self.live)
        return self._centres[side]

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
        turned = self.turn(side, queries, measure=measure)
        return self._search(side, turned, k, measure)

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
        turned = self._turn_without(side, own, queries, measure)
        found = self._search(side, turned, k + spare, measure)
        width = min(k, found.indices.shape[1])
        indices = np.zeros((len(own), width), dtype=np.int64)
        similarities = np.full(indices.shape, -1.0, dtype=np.float32)
        for row, left_out in enumerate(own):
            others = np.flatnonzero(~np.isin(found.indices[row], left_out))[:width]
            indices[row, : len(others)] = found.indices[row, others]
            similarities[row, : len(others)] = found.similarities[row, others]
        return Neighbors(indices, similarities)

    def _search(self, side: Side, by: Turned, k: int, measure: Measure) -> Neighbors:
        self.check_current()
        (turned, offset), scale = by, self._scale(side, measure)
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

    def turn(self, side: Side, queries: Float32Array, *, measure: Measure = "cosine") -> Turned:
        """Turned queries and offsets (m,): similarity = (q·a + offset) * the anchor's scale."""
        check_not_forked()  # before torch computes a mean or a metric
        if measure == "cosine":
            return queries, None
        if measure == "centred":
            return turn_centred(queries, self.mean(side))
        return self._whitening(side).turn_queries(queries)

    def terms(
        self, side: Side, queries: Float32Array, *, measure: Measure = "cosine"
    ) -> tuple[Float32Array, Float64Array | None, Scale | None]:
        """The same and the scales of all n anchors."""
        return *self.turn(side, queries, measure=measure), self._scale(side, measure)

    def _whitening(self, side: Side) -> Whitening:
        return self.whitened(side).whitening

    def _scale(self, side: Side, measure: Measure) -> Scale | None:
        """Of all n anchors; None for ones."""
        if measure == "cosine":
            return None
        return self.centre(side).scale if measure == "centred" else self.whitened(side).scale

    def _turn_without(
        self, side: Side, own: Sequence[Int64Array], queries: Float32Array, measure: Measure
    ) -> Turned:
        """The same for queries whose own anchors are left out; the scales are those of all."""
        if measure == "cosine":
            return queries, None
        if measure == "centred":
            vectors = [self.vectors(side, at) for at in own]
            return turn_centred_without(self.mean(side), self.count, queries, vectors)
        sample = self._sample()
        places = [np.flatnonzero(np.isin(sample, at)) for at in own]
        return turn_whitened_without(self.gather(side, sample), queries, places)

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
        turned, offset = self.turn(side, queries, measure=measure)
        found = self._compare(side, turned, rows, indices, offset, measure)
        return np.split(found, np.cumsum(sizes)[:-1])

    def _compare(
        self,
        side: Side,
        turned: Float32Array,
        rows: Int64Array,
        positions: Int64Array,
        offset: Float64Array | None,
        measure: Measure,
    ) -> Float32Array:
        """The similarities of the queries in (p,) rows and the anchors at (p,) positions."""
        blocks, scale = self._blocks_of(side), self._scale(side, measure)
        return similarities_of(turned, blocks, rows, positions, offset=offset, scale=scale)

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
        return [str(i) for i in self._ids_at(positions).to_pylist()]

    def find(self, pair_ids: Sequence[str]) -> Int64Array:
        """Where the ordinary pairs with these (m,) ids are; -1 for ids that none has."""
        live = np.flatnonzero(self.live)
        ids = self._ids_at(live).combine_chunks()
        found = pc.index_in(pa.array(pair_ids, pa.string()), ids)
        places: Int64Array = pc.fill_null(found, -1).to_numpy()
        return np.append(live, -1)[places]

    def rows(self, positions: Int64Array, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the live pairs at (m,) positions, in that order; None for those not there."""
        if not len(positions):
            return []
        self.check_current()
        there = [name for name in columns if name in self.dataset.schema.names]
        rows: list[dict[str, Any]] = self.stored.take(positions, there).to_pylist()
        return [dict.fromkeys(columns) | row for row in rows]

    def _blocks_of(self, side: Side) -> list[torch.Tensor]:
        return self.image if side == "image" else self.text
