"""Finds the captions most similar to each prompt, keeps them in a cache, and updates them exactly.

A large label set costs a pass of every prompt over all captions. So the neighbors found are cached
in the database's directory, some more than were asked for, as rows of fragments: fragments never
change, and another model version shares most of them. For that version the rows it has lost are
removed, the rows it has gained are compared, and the best of both are ranked by their vectors.
Captions that are not cached are known to be no more similar than the last one that is; where the
mean moved with the pairs, by no more than `Centre.bound_drift` says. While enough neighbors are
above that bound, the answer is exact; otherwise the prompt is searched again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asif_lance.anchors import Anchors
from asif_lance.database import BYTES_KEPT, LABEL_SETS, load_cache, save_cache
from asif_lance.model.labels import LabelSet, Prompts
from asif_lance.model.text_blocks import TextBlocks
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array, Neighbors
from asif_lance.relative import (
    CompiledTexts,
    Measure,
    Recipe,
    compile_block,
    cut_runs,
    mean_vectors,
    relative_vectors,
)
from asif_lance.search import unit_queries


def compile_prompts(prompts: Prompts, anchors: Anchors, recipe: Recipe, version: str) -> LabelSet:
    """Search the caption side for every prompt and build the label set's relative vectors.

    So many prompts are searched at a time that memory is bounded, whatever the label set.
    """
    epoch = anchors.check_current()
    prompts = average_prompts(prompts)
    width = min(_cached_width(recipe.k[1]), anchors.count)
    fits = len(prompts.vectors) * width * _NEIGHBOR_BYTES <= BYTES_KEPT
    least = MIN_CACHED_SIMILARITIES if fits else None

    def find(at: slice) -> Neighbors:
        return find_prompt_neighbors(
            anchors, prompts.vectors[at], recipe.k[1], measure=recipe.measures[1], cached_from=least
        )

    labels = _build(prompts, find, recipe, len(anchors), version)
    return replace(labels, state=anchors.state, epoch=epoch)


def build_label_set(
    prompts: Prompts, neighbors: Neighbors, recipe: Recipe, n: int, version: str
) -> LabelSet:
    """Build a label set from the nearest captions of its prompts among n anchor positions."""

    def find(at: slice) -> Neighbors:
        return Neighbors(neighbors.indices[at], neighbors.similarities[at])

    return _build(prompts, find, recipe, n, version)


def _build(
    prompts: Prompts, find: Callable[[slice], Neighbors], recipe: Recipe, n: int, version: str
) -> LabelSet:
    """Build a label set a block of prompts at a time; their relative vectors are made one class's.

    Args:
        prompts: as they are searched.
        find: gives the nearest captions of some of them.
        recipe: how they are compared.
        n: number of anchor positions.
        version: the model version's name.
    """
    whole_classes = prompts.ensemble == "mean-relative"
    ends = np.append(np.flatnonzero(np.diff(prompts.owner)) + 1, len(prompts.owner))
    sizes = np.diff(ends, prepend=0) if whole_classes else np.ones(len(prompts.owner), np.int64)
    places = np.concatenate([[0], np.cumsum(sizes)])
    blocks = TextBlocks()
    for first, last in cut_runs(sizes, PROMPTS_AT_ONCE):
        at = slice(int(places[first]), int(places[last]))
        relative = relative_vectors(find(at), recipe.p[1], n)
        if whole_classes:
            relative = mean_vectors(relative, prompts.owner[at] - prompts.owner[at.start])
        blocks.append(compile_block(relative))
    owner = np.arange(len(prompts.names)) if whole_classes else prompts.owner
    return LabelSet(prompts, CompiledTexts(blocks, n), owner, version, recipe)


def average_prompts(prompts: Prompts) -> Prompts:
    """The prompts as they are searched: for `mean-embedding` one mean vector per class."""
    if prompts.ensemble != "mean-embedding":
        return prompts
    sums = np.zeros((len(prompts.names), prompts.vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, prompts.owner, prompts.vectors)
    owner = np.arange(len(prompts.names))
    return replace(prompts, owner=owner, vectors=unit_queries(sums))


#: Fewer similarities than this are computed about as fast as their cache is read.
MIN_CACHED_SIMILARITIES = 2**22

#: Prompts that are searched and compiled at a time: each takes about 75 kB meanwhile.
PROMPTS_AT_ONCE = 2048

_NEIGHBOR_BYTES = 12  # a position and a similarity

_LARGEST_NEW_SHARE = 0.5  # of all rows; with more new ones, comparing all is about as fast

_COLUMNS = ("state", "rows", "dead", "mean", "indices", "similarities", "complete")


@dataclass(frozen=True, slots=True)
class CachedNeighbors:
    """The neighbors of t prompts in one state of the table.

    Attributes:
        state: as `Anchors.state`.
        rows: rows of each fragment; none where they serve no other state.
        dead: positions of deleted rows; likewise.
        mean: (d,) float64, that of centred similarities; empty for others.
        indices: (t, w) int64 positions, best first.
        similarities: (t, w) float32.
        complete: (t,) int64: this many of the first neighbors are the best of all.
    """

    state: tuple[str, ...]
    rows: Int64Array
    dead: Int64Array
    mean: Float64Array
    indices: Int64Array
    similarities: Float32Array
    complete: Int64Array

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The content of the cache file."""
        return {name: np.asarray(getattr(self, name)) for name in _COLUMNS}

    def first(self, k: int) -> Neighbors:
        """The k nearest."""
        return Neighbors(self.indices[:, :k], self.similarities[:, :k])

    @staticmethod
    def of(arrays: dict[str, NDArray[Any]]) -> CachedNeighbors:
        """Read back from the content of a cache file."""
        state, *others = (arrays[name] for name in _COLUMNS)
        return CachedNeighbors(tuple(state.tolist()), *others)


def find_prompt_neighbors(
    anchors: Anchors,
    queries: Float32Array,
    k: int,
    *,
    measure: Measure = "cosine",
    cached_from: int | None = MIN_CACHED_SIMILARITIES,
) -> Neighbors:
    """The k captions most similar to each prompt; the same as `anchors.top_k("text", …)`.

    Args:
        anchors: a model version.
        queries: (t, d) float32 unit vectors.
        k: how many to find.
        measure: how they are compared.
        cached_from: with fewer similarities to compute than this, nothing is cached; None for
            nothing at all.
    """
    if cached_from is None or not _is_worth_caching(anchors, queries, cached_from):
        return anchors.top_k("text", queries, k, measure=measure)  # more than k takes longer
    return find_cached_neighbors(
        anchors, queries, k, measure=measure, cached_from=cached_from
    ).first(k)


def find_cached_neighbors(
    anchors: Anchors,
    queries: Float32Array,
    k: int,
    *,
    measure: Measure = "cosine",
    cached_from: int = MIN_CACHED_SIMILARITIES,
) -> CachedNeighbors:
    """The same, and some more, from which `update_neighbors` finds those of other states."""
    if not _is_worth_caching(anchors, queries, cached_from):
        return update_neighbors(anchors, queries, k, None, measure=measure)
    kind = b"" if measure == "cosine" else measure.encode()
    name = hashlib.sha256(queries.astype("<f4").tobytes() + kind).hexdigest()[:24]
    database = anchors.dataset.uri.rpartition("/")[0]
    arrays = load_cache(database, LABEL_SETS, name, _COLUMNS)
    cached = None if arrays is None else CachedNeighbors.of(arrays)
    if cached is not None and _is_current(cached, anchors, k):
        return cached
    epoch = anchors.check_current()
    found = update_neighbors(anchors, queries, k, cached, measure=measure)
    files = [file for key in found.state for file in key.split("|")[1:-1]]
    save_cache(database, LABEL_SETS, name, found.arrays, files, since=epoch)
    return found


def _cached_width(k: int) -> int:
    """How many neighbors are cached where k are asked for."""
    return k + max(k // 4, 64)


def _is_worth_caching(anchors: Anchors, queries: Float32Array, cached_from: int) -> bool:
    return bool(anchors.state) and len(queries) * len(anchors) >= cached_from


def _is_current(cached: CachedNeighbors, anchors: Anchors, k: int) -> bool:
    enough = bool((cached.complete >= min(k, anchors.count)).all())
    return cached.state == anchors.state and enough


def update_neighbors(
    anchors: Anchors,
    queries: Float32Array,
    k: int,
    old: CachedNeighbors | None,
    *,
    measure: Measure = "cosine",
) -> CachedNeighbors:
    """Find at least k neighbors of each prompt, and some more.

    Args:
        anchors: a model version, or a hypothetical one.
        queries: (t, d) float32 unit vectors.
        k: how many are needed.
        old: the neighbors of the same prompts in another state, which spare most of the work.
        measure: how they are compared, as for `old`.
    """
    wanted, width = min(k, anchors.count), min(_cached_width(k), anchors.count)
    indices = np.zeros((len(queries), width), dtype=np.int64)
    similarities = np.zeros((len(queries), width), dtype=np.float32)
    complete = np.zeros(len(queries), dtype=np.int64)
    merged = (
        None
        if old is None or not len(old.rows) or not anchors.whole or measure == "white"
        else _merge_new_rows(old, anchors, queries, width, measure)
    )
    if merged is not None:
        indices, similarities, complete = merged
    again = complete < wanted
    if again.any():
        found = anchors.top_k("text", queries[again], width, measure=measure)
        indices[again], similarities[again] = found.indices, found.similarities
        complete[again] = width
    rows = anchors.stored.rows_per_fragment if anchors.whole else np.zeros(0, np.int64)
    dead = np.flatnonzero(~anchors.live) if anchors.whole else rows
    mean = anchors.mean("text") if measure == "centred" else np.zeros(0)
    return CachedNeighbors(anchors.state, rows, dead, mean, indices, similarities, complete)


def _merge_new_rows(
    old: CachedNeighbors, anchors: Anchors, queries: Float32Array, width: int, measure: Measure
) -> tuple[Int64Array, Float32Array, Int64Array] | None:
    """Rank the old neighbors that still exist with the best of the new rows.

    Returns:
        Indices and similarities (t, width), and (t,) how many of them are the best of all; None
        if there are so many new rows that it saves nothing.
    """
    remaining, new = _locate(old, anchors)
    if len(new) > _LARGEST_NEW_SHARE * len(anchors) or remaining.shape[1] + len(new) < width:
        return None
    moved = (
        anchors.centre("text").bound_drift(queries, old.mean)
        if measure == "centred"
        else np.zeros(len(queries))
    )
    count = min(width, max(len(new), 1))
    added = anchors.top_k_among("text", new, queries, count, measure=measure)
    near = added.similarities >= (_lower_bounds(old, remaining, width) - moved)[:, None]
    candidates = np.concatenate([remaining, np.where(near, added.indices, -1)], axis=1)
    found = anchors.top_k_of("text", candidates, queries, width, measure=measure)
    # A caption as similar as the last one may be tied with one that was not cached.
    certain = found.similarities > (_upper_bounds(old) + moved)[:, None]
    return found.indices, found.similarities, certain.sum(axis=1)


def _lower_bounds(old: CachedNeighbors, remaining: Int64Array, width: int) -> Float64Array:
    """(t,) what the first `width` remaining neighbors are at least as similar as; -inf if fewer."""
    bounds = np.full(len(remaining), -np.inf)
    exists = remaining >= 0
    enough = exists.sum(axis=1) >= width
    place = (np.cumsum(exists[enough], axis=1) >= width).argmax(axis=1)
    bounds[enough] = old.similarities[enough, place]
    return bounds


def _upper_bounds(old: CachedNeighbors) -> Float64Array:
    """(t,) the similarity that no caption outside the old neighbors exceeds."""
    last = np.take_along_axis(old.similarities, np.maximum(old.complete - 1, 0)[:, None], axis=1)
    bounds: Float64Array = np.where(old.complete > 0, last[:, 0].astype(np.float64), np.inf)
    return bounds


def _locate(old: CachedNeighbors, anchors: Anchors) -> tuple[Int64Array, Int64Array]:
    """Positions of the old neighbors now, (t, w) with -1 for those that are gone; and new rows."""
    positions, known = _map_positions(old, anchors)
    remaining = positions[old.indices]
    remaining[(remaining < 0) | ~anchors.live[remaining]] = -1
    remaining[np.arange(remaining.shape[1]) >= old.complete[:, None]] = -1
    return remaining, np.flatnonzero(anchors.live & ~known)


def _map_positions(old: CachedNeighbors, anchors: Anchors) -> tuple[Int64Array, BoolArray]:
    """Positions of the old state's rows now, -1 if gone; and which rows of now were live then."""
    ends = np.cumsum(anchors.stored.rows_per_fragment).tolist()
    end_of = dict(zip(anchors.stored.files, ends, strict=True))
    positions = np.full(int(old.rows.sum()), -1, dtype=np.int64)
    known = np.zeros(len(anchors), dtype=np.bool_)
    begin = 0
    for key, rows in zip(old.state, old.rows.tolist(), strict=True):
        end = end_of.get(key.rpartition("|")[0])
        if end is not None:
            positions[begin : begin + rows] = np.arange(end - rows, end)
            known[end - rows : end] = True
        begin += rows
    dead = positions[old.dead]
    known[dead[dead >= 0]] = False
    return positions, known
