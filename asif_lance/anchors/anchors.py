"""The pairs of one model version as two matrices, read fragment by fragment.

A Lance fragment never changes: deleting rows adds a mask beside it. So its vectors are there once,
dead rows included, shared by every version in memory that has the fragment, and each version
brings its own masks: going from one version to the next costs what the next one added or deleted.
Positions count the rows of all fragments in order, dead ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from asif_lance.anchors import distance_cache
from asif_lance.anchors.fragments import Fragment, open_fragment, open_mask
from asif_lance.devices import room_on
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array, Neighbors
from asif_lance.relative import BlockDistances, BlockSums, Centre, make_centre, mean_of
from asif_lance.search import Blocks, Scale, exact_top_k, top_k_of

Side = Literal["image", "text"]


class Anchors:
    """The anchors of one model version, each side mapped or read at first use.

    Attributes:
        dataset: the Lance dataset, checked out at the version.
        live: (n,) bool; False where a row is deleted in this version.
        count: number of live anchors.
        state: names each fragment's files and deletions; equal states have equal rows at equal
            positions. Empty where no version holds them.
        files: names each fragment's files alone.
        fragment_ids: (fragments,) uint64, ascending; Lance's own.
        rows_per_fragment: (fragments,) int64, dead rows included.
    """

    def __init__(
        self, dataset: Any, *, device: str = "cpu", memory_limit: int | None = None
    ) -> None:
        """Read which rows there are; vectors and ids wait until they are asked for.

        Args:
            dataset: the Lance dataset, checked out at the version.
            device: where image vectors live; caption vectors stay in main memory and are streamed.
            memory_limit: bytes that one side may occupy. A larger side stays in its files, and its
                memory is given back block by block while it is searched. None for what a CUDA
                device has room for, and for no limit in main memory, where files are mapped.
        """
        self.dataset = dataset
        self._device = torch.device(device)
        self._limit = room_on(self._device) if memory_limit is None else memory_limit
        self._sources = sorted(dataset.get_fragments(), key=lambda f: f.fragment_id)
        self._fragments = [open_fragment(dataset, source) for source in self._sources]
        held = zip(self._fragments, self._sources, strict=True)
        self._masks = [open_mask(fragment, source) for fragment, source in held]
        self.state = tuple(mask.key for mask in self._masks)
        self.fragment_ids = np.array([s.fragment_id for s in self._sources], dtype=np.uint64)
        self.files = tuple(fragment.key for fragment in self._fragments)
        self.rows_per_fragment = np.array([f.rows for f in self._fragments], dtype=np.int64)
        self.live: BoolArray = np.concatenate(
            [mask.live for mask in self._masks] or [np.zeros(0, dtype=bool)]
        )
        self.count = int(self.live.sum())
        self._centres: dict[Side, Centre] = {}

    def __len__(self) -> int:
        """Positions, those of deleted rows included."""
        return len(self.live)

    @cached_property
    def pair_ids(self) -> pa.ChunkedArray:
        """The n ids."""
        held = zip(self._fragments, self._sources, strict=True)
        ids = [fragment.pair_ids(source) for fragment, source in held]
        return pa.chunked_array(ids or [[]], pa.string())

    def tie_order(self, positions: Int64Array) -> Int64Array:
        """Ranks of the ids at (m,) positions: equal cosines go to the smaller `pair_id`."""
        distinct, place = np.unique(positions, return_inverse=True)
        rank = pc.rank(self.pair_ids.take(pa.array(distinct)), tiebreaker="first")
        ranks: Int64Array = rank.to_numpy().astype(np.int64)[place]
        return ranks

    @cached_property
    def image(self) -> list[torch.Tensor]:
        """Image vectors: one (rows, d) float16 tensor per fragment, on the device if they fit."""
        vectors = self._side("image")
        return vectors if self._too_large(vectors) else [v.to(self._device) for v in vectors]

    @cached_property
    def text(self) -> list[torch.Tensor]:
        """Caption vectors: one (rows, d) float16 tensor per fragment, in main memory."""
        return self._side("text")

    def centre(self, side: Side) -> Centre:
        """The mean of one side's live vectors and all distances from it, found at first use."""
        if side not in self._centres:
            sums = self._sums(side)
            mean = mean_of(self._blocks_of(side), sums, self.live)
            self._centres[side] = self._centre_at(side, mean, self.live, sums)
        return self._centres[side]

    def centre_at(self, side: Side, mean: Float64Array, live: BoolArray) -> Centre:
        """The centre of some rows, (n,) bool, at a (d,) mean that need not be theirs."""
        return self._centre_at(side, mean, live, self._sums(side))

    def _centre_at(
        self, side: Side, mean: Float64Array, live: BoolArray, sums: list[BlockSums]
    ) -> Centre:
        blocks, column = self._blocks_of(side), f"{side}_vector"
        distances = [
            fragment.distances(self.dataset, source, column, mean)
            for fragment, source in self._one_by_one(blocks)
        ]
        distance_cache.save_distances(self.dataset.uri, column, self._fragments)
        imagined = range(len(distances), len(blocks))
        distances += [BlockDistances.of(blocks[i], sums[i], mean) for i in imagined]
        return make_centre(mean, sums, distances, live)

    def _sums(self, side: Side) -> list[BlockSums]:
        blocks, column = self._blocks_of(side), f"{side}_vector"
        distance_cache.load_distances(self.dataset.uri, column, self._fragments)
        sums = [
            fragment.sums(self.dataset, source, column)
            for fragment, source in self._one_by_one(blocks)
        ]
        return sums + [BlockSums.of(block) for block in blocks[len(sums) :]]

    def top_k(
        self, side: Side, queries: Float32Array, k: int, *, centred: bool = False
    ) -> Neighbors:
        """The k anchors most similar to each of the (m, d) queries on one side.

        Similar by cosine: that of the vectors, or `centred`, of their differences from the mean.
        """
        blocks = self._blocks_of(side)
        turned, offset, scale = self.terms(side, queries, centred=centred)
        return exact_top_k(
            torch.from_numpy(turned).to(self._device),
            blocks,
            k,
            offset=offset,
            scale=scale,
            live=self.live,
            tie_order=self.tie_order,
            release=self._release_of(blocks),
        )

    def terms(
        self, side: Side, queries: Float32Array, *, centred: bool = False
    ) -> tuple[Float32Array, Float64Array | None, Scale | None]:
        """Turned queries, offsets (m,) and n scales: similarity = (q·a + offset) * scale."""
        if not centred:
            return queries, None, None
        centre = self.centre(side)
        return *centre.centre_queries(queries), centre.scale

    def similarities(
        self,
        side: Side,
        positions: Int64Array,
        query: NDArray[np.floating],
        *,
        centred: bool = False,
    ) -> NDArray[np.floating]:
        """The similarities of one (d,) query and the anchors at (m,) positions, as in `top_k`."""
        vectors = self.vectors(side, positions)
        if not centred:
            return vectors @ query
        centre = self.centre(side)
        turned, offset = centre.centre_queries(query[None])
        products = vectors.astype(np.float64) @ turned[0].astype(np.float64)
        factors = centre.scale.exact_factors(vectors, positions)
        similar: Float64Array = (products + offset[0]) * factors
        return similar.astype(query.dtype)

    def top_k_among(
        self,
        side: Side,
        positions: Int64Array,
        queries: Float32Array,
        k: int,
        *,
        centred: bool = False,
        gathered: torch.Tensor | None = None,
    ) -> Neighbors:
        """The same, of the anchors at (r,) distinct live positions only.

        `gathered` spares reading their vectors again: what `gather` gave for these positions.
        """
        turned, offset, scale = self.terms(side, queries, centred=centred)
        found = exact_top_k(
            turned,
            self.gather(side, positions) if gathered is None else gathered,
            k,
            offset=offset,
            scale=None if scale is None else scale.part(positions),
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
        centred: bool = False,
    ) -> Neighbors:
        """The same, of each query's own (m, w) live candidates; -1 where it has fewer."""
        turned, offset, scale = self.terms(side, queries, centred=centred)
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
        return [str(i) for i in self.pair_ids.take(pa.array(positions)).to_pylist()]

    def rows(self, positions: Int64Array, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the live pairs at (m,) positions, in that order."""
        if not len(positions):
            return []
        logical = np.cumsum(self.live)[positions] - 1
        rows: list[dict[str, Any]] = self.dataset.take(
            logical.tolist(), columns=list(columns)
        ).to_pylist()
        return rows

    def _blocks_of(self, side: Side) -> list[torch.Tensor]:
        return self.image if side == "image" else self.text

    def _side(self, side: Side) -> list[torch.Tensor]:
        held = zip(self._fragments, self._sources, strict=True)
        return [f.vectors(self.dataset, source, f"{side}_vector") for f, source in held]

    def _too_large(self, vectors: list[torch.Tensor]) -> bool:
        return self._limit is not None and sum(v.nbytes for v in vectors) > self._limit

    def _release_of(self, blocks: list[torch.Tensor]) -> Callable[[int], None] | None:
        return self._release if self._too_large(blocks) else None

    def _one_by_one(self, blocks: list[torch.Tensor]) -> Iterator[tuple[Fragment, Any]]:
        """The fragments with their sources; the memory of a side too large to stay is let go of."""
        release = self._release_of(blocks)
        for i, both in enumerate(zip(self._fragments, self._sources, strict=True)):
            yield both
            if release:
                release(i)

    def _release(self, block: int) -> None:
        if block < len(self._fragments):  # imagined rows lie behind them, in memory of their own
            self._fragments[block].release()
