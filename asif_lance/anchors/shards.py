"""One version's pairs searched by many processes, each of which holds some of its fragments.

Whatever maps a function over values can carry the questions: a pool of processes, Ray, Dask. A
shard answers with similarities as they were compared, in float64, and Lance's addresses of rows;
the best of all shards are the best of the version, and equal ones go to the smaller `pair_id`
here as there. What belongs to the version as a whole is merged exactly first: totals are integers,
and of whitening's sample each shard gives its smallest hashes. So the answer is the same bit by
bit, whatever the shards.

The process that asks holds a few numbers for each fragment, and of rows only those that it is
asked about: it reads them at their addresses. Hits are merged shard by shard as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from asif_lance.anchors.anchors import Anchors, Turned
from asif_lance.anchors.fragments import NamedWhitening
from asif_lance.anchors.version_rows import Side, VersionRows, stale_where_gone
from asif_lance.anchors.whitened import choose_sample, fit_sample, make_scale
from asif_lance.database import check_epoch, open_table, pair_rows
from asif_lance.errors import InputError
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
    Measure,
    Whitening,
    make_centre,
    mean_at,
    total_of,
)
from asif_lance.search import Hits, Scale, exact_hits, similarities_of

#: Maps a function over values, in order: `map`, a pool's `map`.
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

#: What all anchors are compared in: None for cosines, the mean, or the whitening.
Frame = Float64Array | NamedWhitening | None

_QUERIES = 2**12  # sent at once, but
_HITS = 2**20  # no more than so many are asked for


@dataclass(frozen=True, slots=True)
class Shard:
    """Some fragments of one version.

    Attributes:
        uri: the database.
        version: Lance's number of the version.
        fragments: their ids.
        epoch: of the database when the version was opened.
    """

    uri: str
    version: int
    fragments: frozenset[int]
    epoch: int


@dataclass(frozen=True, slots=True)
class ShardQuestion:
    """What a shard is asked; see `search_shard`, `sum_shard` and `sample_shard`.

    Attributes:
        shard: which.
        side: image or text.
        queries: (m, d) float32, turned in the frame, see `Anchors.turn`.
        offset: (m,) of these; None for zeros.
        k: how many to find.
        frame: what they are compared in.
    """

    shard: Shard
    side: Side
    queries: Float32Array | None = None
    offset: Float64Array | None = None
    k: int = 0
    frame: Frame = None


@dataclass(frozen=True, slots=True)
class ShardHits:
    """The best of one shard.

    Attributes:
        addresses: (m, k) uint64, Lance's; fewer columns where the shard has fewer pairs.
        similarities: (m, k) float64.
    """

    addresses: UInt64Array
    similarities: Float64Array


def search_shard(asked: ShardQuestion) -> ShardHits:
    """The k pairs of a shard that are most similar to each query.

    Raises:
        StaleModelError: some of them were forgotten.
    """
    part = _open_shard(asked.shard)
    part.check_current()
    assert asked.queries is not None
    found = exact_hits(
        asked.queries,
        part.image if asked.side == "image" else part.text,
        asked.k,
        offset=asked.offset,
        scale=_scale_shard(part, asked.side, asked.frame),
        live=part.live,
        tie_order=part.tie_order,
        release=part.stored.release_of(asked.side),
    )
    return ShardHits(part.stored.find_addresses(found.indices), found.similarities)


def sum_shard(asked: ShardQuestion) -> tuple[Int64Array, int]:
    """The exact total of a shard's live vectors of one side, and how many there are."""
    part = _open_shard(asked.shard)
    blocks = part.image if asked.side == "image" else part.text
    return total_of(blocks, part.stored.sums(asked.side), part.live), part.count


def sample_shard(asked: ShardQuestion) -> tuple[UInt64Array, UInt64Array]:
    """The pairs of a shard that may be in the version's sample: hashes of ids, and addresses."""
    part = _open_shard(asked.shard)
    hashes = part.stored.id_hashes()
    sample = choose_sample(hashes, part.live)
    return hashes[sample], part.stored.find_addresses(sample)


class SharedAnchors(Anchors):
    """The anchors of a version that shards search; what is not a search is done here."""

    whole = False

    def __init__(self, anchors: Anchors, mapper: Mapper, shards: int) -> None:
        """Share the rows of opened anchors.

        Args:
            anchors: of a version that is stored.
            mapper: has processes answer.
            shards: into how many the version is cut; at most one for each fragment.
        """
        super().__init__(anchors.dataset, stored=anchors.stored)
        self._map = mapper
        self._means: dict[Side, Float64Array] = {}
        self._fits: dict[Side, NamedWhitening] = {}
        self._sampled: Int64Array | None = None
        self.shards = cut_shards(anchors, shards)

    def mean(self, side: Side) -> Float64Array:
        """The mean of one side's live vectors, merged from the totals of the shards: (d,)."""
        if side not in self._means:
            totals, counts = zip(*self._ask(sum_shard, side), strict=True)
            self._means[side] = mean_at(np.sum(totals, axis=0), sum(counts))
        return self._means[side]

    def _whitening(self, side: Side) -> Whitening:
        return self._fit(side).whitening

    def _fit(self, side: Side) -> NamedWhitening:
        if side not in self._fits:
            self._fits[side] = fit_sample(self.gather(side, self._sample()), None)
        return self._fits[side]

    def _sample(self) -> Int64Array:
        """The positions of the version's sample, merged from those of its shards."""
        if self._sampled is None:
            hashes, addresses = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
            for found in self._ask(sample_shard, "image"):
                hashes, addresses = map(np.append, (hashes, addresses), found)
                best = choose_sample(hashes, np.ones(len(hashes), np.bool_))
                hashes, addresses = hashes[best], addresses[best]
            self._sampled = self.stored.find_positions(addresses)
        return self._sampled

    def _ask(self, what: Callable[[ShardQuestion], Any], side: Side) -> Iterable[Any]:
        return self._map(what, [ShardQuestion(shard, side) for shard in self.shards])

    def _frame(self, side: Side, measure: Measure) -> Frame:
        if measure == "cosine":
            return None
        return self.mean(side) if measure == "centred" else self._fit(side)

    def _search(self, side: Side, by: Turned, k: int, measure: Measure) -> Neighbors:
        self.check_current()
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        k, (turned, offset) = min(k, self.count), by
        frame, together = self._frame(side, measure), max(min(_QUERIES, _HITS // max(k, 1)), 1)
        parts = []
        for at in track_batches(f"compare {side}s", max(len(turned), 1), together):
            own = None if offset is None else offset[at]
            asked = [ShardQuestion(s, side, turned[at], own, k, frame) for s in self.shards]
            parts.append(self._merge(self._map(search_shard, asked), k).rounded())
        return Neighbors(
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )

    def _merge(self, found: Iterable[ShardHits], k: int) -> Hits:
        best: Hits | None = None
        for hits in found:
            other = Hits(self.stored.find_positions(hits.addresses), hits.similarities)
            best = other if best is None else merge_hits(best, other, k, self.tie_order)
        assert best is not None
        return best

    def _compare(
        self,
        side: Side,
        turned: Float32Array,
        rows: Int64Array,
        positions: Int64Array,
        offset: Float64Array | None,
        measure: Measure,
    ) -> Float32Array:
        distinct, place = np.unique(positions, return_inverse=True)
        vectors = self.gather(side, distinct)
        scale = _scale_rows(vectors, self._frame(side, measure))
        return similarities_of(turned, vectors, rows, place, offset=offset, scale=scale)

    def gather(self, side: Side, positions: Int64Array) -> torch.Tensor:
        """The same as of `Anchors`; no more is read than these."""
        column = f"{side}_vector"
        vectors = self.stored.take(positions, [column])[column].combine_chunks()
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(flat.reshape(len(positions), vectors.type.list_size).copy())

    def find(self, pair_ids: Sequence[str]) -> Int64Array:
        """The same as of `Anchors`; a pass over all ids, of which only these are held."""
        named = pa.array(pair_ids, pa.string())
        found = dict[str, int]()
        with self.stored.reading():
            for rows in pair_rows.find_rows(self.dataset, named):
                positions = self.stored.find_positions(rows["_rowaddr"].to_numpy()).tolist()
                found.update(zip(rows["pair_id"].to_pylist(), positions, strict=True))
        positions = np.array([found.get(one, -1) for one in pair_ids], dtype=np.int64)
        return np.where(np.isin(positions, self.stored.example_positions), -1, positions)

    def _ids_at(self, positions: Int64Array) -> pa.ChunkedArray:
        return self.stored.take(positions, ["pair_id"])["pair_id"]


def cut_shards(anchors: Anchors, count: int) -> list[Shard]:
    """Neighbouring fragments of a version in so many shards of about equal size, at most.

    Raises:
        InputError: less than one.
    """
    if count < 1:
        raise InputError(f"the number of shards must be at least 1, got {count}")
    stored = anchors.stored
    uri, version = stored.dataset.uri.rpartition("/")[0], int(stored.dataset.version)
    ends = np.cumsum(stored.rows_per_fragment)
    owners = (ends - 1) * count // max(int(ends[-1]), 1) if len(ends) else ends
    parts = [stored.fragment_ids[owners == owner].tolist() for owner in np.unique(owners)]
    return [Shard(uri, version, frozenset(part), stored.epoch) for part in parts]


def merge_hits(
    first: Hits, second: Hits, k: int, tie_order: Callable[[Int64Array], Int64Array]
) -> Hits:
    """The k best of two shards' (m, w) hits, best first; equal ones by the order of ties.

    In each of the two equal ones are in this order, so it is asked about those alone of which both
    shards have some.
    """
    positions = np.concatenate([first.indices, second.indices], axis=1)
    similarities = np.concatenate([first.similarities, second.similarities], axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    positions = np.take_along_axis(positions, order, axis=1)
    similarities = np.take_along_axis(similarities, order, axis=1)
    equal = similarities[:, 1:] == similarities[:, :-1]
    from_second = order >= first.indices.shape[1]
    meet = equal & (from_second[:, 1:] > from_second[:, :-1])
    meet &= similarities[:, :-1] >= similarities[:, :k][:, -1:]  # others are cut off below
    rows = np.flatnonzero(meet.any(axis=1))
    if len(rows):
        places = _order_ties(positions[rows], equal[rows], meet[rows], tie_order)
        positions[rows] = np.take_along_axis(positions[rows], places, axis=1)
    return Hits(positions[:, :k], similarities[:, :k])


def _order_ties(
    positions: Int64Array,
    equal: BoolArray,
    meet: BoolArray,
    tie_order: Callable[[Int64Array], Int64Array],
) -> Int64Array:
    """(m, w) the places that positions take, best first, from.

    Args:
        positions: (m, w) in an order that is right but for runs of equal similarities that both
            shards have.
        equal: (m, w - 1) whether each is as similar as the next.
        meet: (m, w - 1) whether the second shard's part of such a run follows it.
        tie_order: orders positions.
    """
    run: Int64Array = np.cumsum(np.pad(~equal, ((0, 0), (1, 0))), axis=1, dtype=np.int64)
    mixed = np.zeros(run.shape, dtype=np.bool_)
    rows, ends = np.nonzero(meet)
    mixed[rows, run[rows, ends]] = True
    tied = np.take_along_axis(mixed, run, axis=1)
    key = np.broadcast_to(np.arange(run.shape[1]), run.shape).copy()
    key[tied] = tie_order(positions[tied])
    places: Int64Array = np.lexsort((key, run), axis=1)
    return places


def _scale_shard(part: Anchors, side: Side, frame: Frame) -> Scale | None:
    """The scale of a shard's own anchors in a frame of the whole version."""
    if frame is None:
        return None
    if not isinstance(frame, NamedWhitening):
        return part.centre_at(side, frame, part.live).scale
    rows = part.stored.whitened(side, frame)
    return make_scale(rows, [], frame, lambda at: part.gather(side, at))


def _scale_rows(vectors: torch.Tensor, frame: Frame) -> Scale | None:
    """The same of (r, d) stored vectors, measured one by one: the numbers are the same."""
    if frame is None:
        return None
    if isinstance(frame, NamedWhitening):
        return Scale(frame.whitening.inverse_distances(vectors))
    sums = BlockSums.of(vectors)
    distances = BlockDistances.of(vectors, sums, frame)
    return make_centre(frame, [sums], [distances], np.ones(len(vectors), np.bool_)).scale


@lru_cache(maxsize=8)
def _open_shard(shard: Shard) -> Anchors:
    """The anchors of a shard; a process that is asked again has them.

    Raises:
        StaleModelError: the version is not there any more: pairs of it were forgotten, say.
    """
    with stale_where_gone(shard.uri, lambda: check_epoch(shard.uri, shard.epoch)):
        dataset = open_table(shard.uri, "pairs", shard.version)
    rows = VersionRows(dataset, epoch=shard.epoch, fragments=shard.fragments)
    return Anchors(dataset, stored=rows)
