"""One version's pairs searched by many processes, each of which holds some of its fragments.

Whatever maps a function over values can carry the questions: a pool of processes, Ray, Dask. A
shard answers with similarities as they were compared, in float64, and Lance's addresses of rows;
the best of all shards are the best of the version, and equal ones go to the smaller `pair_id`
here as there. What belongs to the version as a whole is merged exactly first: totals are integers,
and of whitening's sample each shard gives its smallest hashes. So the answer is the same bit by
bit, whatever the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.fragments import NamedWhitening
from asif_lance.anchors.version_rows import Side, VersionRows
from asif_lance.anchors.whitened import choose_sample, fit_sample, make_scale
from asif_lance.database import open_table
from asif_lance.errors import InputError
from asif_lance.progress import track_batches
from asif_lance.records import (
    Float16Array,
    Float32Array,
    Float64Array,
    Int64Array,
    Neighbors,
    UInt64Array,
)
from asif_lance.relative import Centre, Measure, WhitenedSide, mean_at, total_of
from asif_lance.search import Hits, exact_hits

#: Maps a function over values, in order: `map`, a pool's `map`.
Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

#: What all anchors are compared in: None for cosines, the mean, or the whitening.
Frame = Float64Array | NamedWhitening | None

_QUERIES = 2**12  # sent at once


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
        queries: (m, d) float32 unit vectors, as `Anchors.top_k` takes them.
        k: how many to find.
        frame: what they are compared in.
    """

    shard: Shard
    side: Side
    queries: Float32Array | None = None
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
    queries, offset, scale = asked.queries, None, None
    if asked.frame is not None:
        placed = _place(part, asked.side, asked.frame)
        queries, offset = placed.turn_queries(queries)
        scale = placed.scale
    found = exact_hits(
        queries,
        part.image if asked.side == "image" else part.text,
        asked.k,
        offset=offset,
        scale=scale,
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


def sample_shard(asked: ShardQuestion) -> tuple[UInt64Array, Float16Array]:
    """The hashes and vectors of those pairs of a shard that may be in the version's sample."""
    part = _open_shard(asked.shard)
    hashes = part.stored.id_hashes()
    sample = choose_sample(hashes, part.live)
    return hashes[sample], part.gather(asked.side, sample).numpy()


class SharedAnchors(Anchors):
    """The anchors of a version that shards search; what is not a search is done here."""

    def __init__(self, anchors: Anchors, mapper: Mapper, shards: int) -> None:
        """Share the rows of opened anchors.

        Args:
            anchors: of a version that is stored.
            mapper: has processes answer.
            shards: into how many the version is cut; at most one for each fragment.
        """
        super().__init__(anchors.dataset, stored=anchors.stored)
        self._map, self._frames = mapper, dict[tuple[Side, Measure], Frame]()
        self.shards = cut_shards(anchors, shards)

    def top_k(
        self, side: Side, queries: Float32Array, k: int, *, measure: Measure = "cosine"
    ) -> Neighbors:
        """The same as of `Anchors`."""
        self.check_current()
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        frame = self._frame(side, measure)
        batches = track_batches(f"compare {side}s", max(len(queries), 1), _QUERIES)
        parts = [self._ask(side, queries[at], k, frame) for at in batches]
        return Neighbors(
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.similarities for part in parts]),
        )

    def mean(self, side: Side) -> Float64Array:
        """The same as of `Anchors`."""
        mean = self._frame(side, "centred")
        assert isinstance(mean, np.ndarray)
        return mean

    def _ask(self, side: Side, queries: Float32Array, k: int, frame: Frame) -> Neighbors:
        asked = [ShardQuestion(shard, side, queries, k, frame) for shard in self.shards]
        found = list(self._map(search_shard, asked))
        addresses = np.concatenate([hits.addresses for hits in found], axis=1)
        similarities = np.concatenate([hits.similarities for hits in found], axis=1)
        positions = self.stored.find_positions(addresses)
        return merge_hits(Hits(positions, similarities), k, self.tie_order).rounded()

    def _frame(self, side: Side, measure: Measure) -> Frame:
        """The mean or the whitening of the version, merged from those of its shards."""
        if measure != "cosine" and (side, measure) not in self._frames:
            asked = [ShardQuestion(shard, side) for shard in self.shards]
            if measure == "centred":
                totals, counts = zip(*self._map(sum_shard, asked), strict=True)
                self._frames[side, measure] = mean_at(np.sum(totals, axis=0), sum(counts))
            else:
                hashes, vectors = map(
                    np.concatenate, zip(*self._map(sample_shard, asked), strict=True)
                )
                sample = choose_sample(hashes, np.ones(len(hashes), np.bool_))
                self._frames[side, measure] = fit_sample(torch.from_numpy(vectors[sample]), None)
        return self._frames.get((side, measure))


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


def merge_hits(hits: Hits, k: int, tie_order: Callable[[Int64Array], Int64Array]) -> Hits:
    """The k best of (m, w) hits of several shards, equal ones by the order of ties."""
    similarities, positions = hits.similarities, hits.indices
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranked = np.take_along_axis(similarities, order, axis=1)
    for row in np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1)):
        order[row] = np.lexsort((tie_order(positions[row]), -similarities[row]))
    best = order[:, :k]
    return Hits(
        np.take_along_axis(positions, best, axis=1), np.take_along_axis(similarities, best, axis=1)
    )


def _place(
    part: Anchors, side: Side, frame: Float64Array | NamedWhitening
) -> Centre | WhitenedSide:
    """A shard's own anchors in a frame of the whole version."""
    if not isinstance(frame, NamedWhitening):
        return part.centre_at(side, frame, part.live)
    rows = part.stored.whitened(side, frame)
    scale = make_scale(rows, [], frame, lambda at: part.gather(side, at))
    return WhitenedSide(frame.whitening, scale)


@lru_cache(maxsize=8)
def _open_shard(shard: Shard) -> Anchors:
    """The anchors of a shard; a process that is asked again has them."""
    dataset = open_table(shard.uri, "pairs", shard.version)
    rows = VersionRows(dataset, epoch=shard.epoch, fragments=shard.fragments)
    return Anchors(dataset, stored=rows)
