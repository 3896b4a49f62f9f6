"""The captions most similar to each prompt, found once, kept, and brought up to date exactly.

A large label set costs a pass of every prompt over all captions. What it found is kept in the
database's directory, with some neighbors to spare, as rows of fragments: fragments never change,
so another model version shares most of them. What it lacks is removed, what it has beyond them is
compared anew, and the best of both are ranked by what their vectors say. Captions that are not
among them are known to be no more similar than the last that was kept; where the mean moved with
the pairs, by no more than `centring.Centre.bound_drift` says. As long as enough are above that,
the answer is exact.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asif_lance.anchors import Anchors
from asif_lance.database import LABEL_SETS, load_cache, save_cache
from asif_lance.model.labels import LabelSet, Prompts
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array, Neighbors
from asif_lance.relative import Recipe, compile_texts, mean_vectors, relative_vectors
from asif_lance.search import unit_queries


def compile_prompts(prompts: Prompts, anchors: Anchors, recipe: Recipe, version: str) -> LabelSet:
    """Search the caption side for every prompt and build the label set's relative vectors."""
    prompts = average_prompts(prompts)
    neighbors = find_prompt_neighbors(anchors, prompts.vectors, recipe.k[1], centred=recipe.centred)
    return build_label_set(prompts, neighbors, recipe, len(anchors), version)


def build_label_set(
    prompts: Prompts, neighbors: Neighbors, recipe: Recipe, n: int, version: str
) -> LabelSet:
    """Build a label set from the nearest captions of its prompts among n anchor positions."""
    relative = relative_vectors(neighbors, recipe.p[1], n)
    owner = prompts.owner
    if prompts.ensemble == "mean-relative":
        relative = mean_vectors(relative, owner)
        owner = np.arange(len(prompts.names))
    return LabelSet(prompts, relative, owner, compile_texts(relative), version, recipe)


def average_prompts(prompts: Prompts) -> Prompts:
    """The prompts as they are searched: for `mean-embedding` one mean vector per class."""
    if prompts.ensemble != "mean-embedding":
        return prompts
    sums = np.zeros((len(prompts.names), prompts.vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, prompts.owner, prompts.vectors)
    owner = np.arange(len(prompts.names))
    return replace(prompts, owner=owner, vectors=unit_queries(sums))


#: Compiling less than so many similarities takes about as long as reading what was kept.
WORTH_KEEPING = 2**22


_MOST = 0.5  # of the anchors may be new; with more, comparing all is about as fast


_COLUMNS = ("state", "rows", "dead", "mean", "indices", "similarities", "complete")


@dataclass(frozen=True, slots=True)
class KeptNeighbors:
    """The neighbors of t prompts in one state of the table.

    Attributes:
        state: as `Anchors.state`.
        rows: rows of each fragment.
        dead: positions of deleted rows.
        mean: (d,) float64, that of centred similarities; empty for others.
        indices: (t, w) int64 positions, best first.
        similarities: (t, w) float32.
        complete: (t,) int64: so many of the first neighbors are the best of all.
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
        """What is written down."""
        return {name: np.asarray(getattr(self, name)) for name in _COLUMNS}

    def first(self, k: int) -> Neighbors:
        """The k nearest."""
        return Neighbors(self.indices[:, :k], self.similarities[:, :k])

    @staticmethod
    def of(arrays: dict[str, NDArray[Any]]) -> KeptNeighbors:
        """What was written down."""
        state, *others = (arrays[name] for name in _COLUMNS)
        return KeptNeighbors(tuple(state.tolist()), *others)


def find_prompt_neighbors(
    anchors: Anchors,
    queries: Float32Array,
    k: int,
    *,
    centred: bool = False,
    worth: int = WORTH_KEEPING,
) -> Neighbors:
    """The k captions most similar to each prompt; the same as `anchors.top_k("text", …)`.

    Args:
        anchors: a model version.
        queries: (t, d) float32 unit vectors.
        k: how many to find.
        centred: whether by centred similarities.
        worth: similarities that must be at stake before anything is kept.
    """
    if not _worth_keeping(anchors, queries, worth):  # none to spare, they take longer
        return anchors.top_k("text", queries, k, centred=centred)
    return kept_neighbors(anchors, queries, k, centred=centred, worth=worth).first(k)


def kept_neighbors(
    anchors: Anchors,
    queries: Float32Array,
    k: int,
    *,
    centred: bool = False,
    worth: int = WORTH_KEEPING,
) -> KeptNeighbors:
    """The same, with some to spare, from which those of other states follow."""
    if not _worth_keeping(anchors, queries, worth):
        return neighbors_to_keep(anchors, queries, k, None, centred=centred)
    kind = b"centred" if centred else b""
    name = hashlib.sha256(queries.astype("<f4").tobytes() + kind).hexdigest()[:24]
    database = anchors.dataset.uri.rpartition("/")[0]
    kept = load_cache(database, LABEL_SETS, name, _COLUMNS)
    old = None if kept is None else KeptNeighbors.of(kept)
    found = old if old is not None and _same(old, anchors, k) else None
    if found is None:
        found = neighbors_to_keep(anchors, queries, k, old, centred=centred)
        files = [file for key in found.state for file in key.split("|")[1:-1]]
        save_cache(database, LABEL_SETS, name, found.arrays, files)
    return found


def _worth_keeping(anchors: Anchors, queries: Float32Array, worth: int) -> bool:
    return bool(anchors.state) and len(queries) * len(anchors) >= worth


def _same(old: KeptNeighbors, anchors: Anchors, k: int) -> bool:
    return old.state == anchors.state and bool((old.complete >= min(k, anchors.count)).all())


def neighbors_to_keep(
    anchors: Anchors,
    queries: Float32Array,
    k: int,
    old: KeptNeighbors | None,
    *,
    centred: bool = False,
) -> KeptNeighbors:
    """Find at least k neighbors of each prompt, and some to spare.

    Args:
        anchors: a model version, or an imagined one.
        queries: (t, d) float32 unit vectors.
        k: how many are needed.
        old: what this gave for the same prompts and another state, to spare most of the work.
        centred: whether by centred similarities, as `old`.
    """
    wanted, width = min(k, anchors.count), min(k + max(k // 4, 64), anchors.count)
    indices = np.zeros((len(queries), width), dtype=np.int64)
    similarities = np.zeros((len(queries), width), dtype=np.float32)
    complete = np.zeros(len(queries), dtype=np.int64)
    updated = None if old is None else _updated(old, anchors, queries, width, centred)
    if updated is not None:
        indices, similarities, complete = updated
    again = complete < wanted
    if again.any():
        fresh = anchors.top_k("text", queries[again], width, centred=centred)
        indices[again], similarities[again] = fresh.indices, fresh.similarities
        complete[again] = width
    rows, dead = anchors.rows_per_fragment, np.flatnonzero(~anchors.live)
    mean = anchors.centre("text").mean if centred else np.zeros(0)
    return KeptNeighbors(anchors.state, rows, dead, mean, indices, similarities, complete)


def _updated(
    old: KeptNeighbors, anchors: Anchors, queries: Float32Array, width: int, centred: bool
) -> tuple[Int64Array, Float32Array, Int64Array] | None:
    """Rank the kept neighbors that are still there with the best of the new rows.

    Returns:
        Indices and similarities (t, width), and (t,) how many of them are the best of all; None
        if there are so many new rows that it saves nothing.
    """
    own, new = _still_there(old, anchors)
    if len(new) > _MOST * len(anchors) or own.shape[1] + len(new) < width:
        return None
    moved = np.zeros(len(queries))
    if centred:
        moved = anchors.centre("text").bound_drift(queries, old.mean)
    most = min(width, max(len(new), 1))
    added = anchors.top_k_among("text", new, queries, most, centred=centred)
    near = added.similarities >= (_at_least(old, own, width) - moved)[:, None]
    candidates = np.concatenate([own, np.where(near, added.indices, -1)], axis=1)
    found = anchors.top_k_of("text", candidates, queries, width, centred=centred)
    # What is as similar as the last one may be tied with one that was not kept.
    sure = found.similarities > (_last(old) + moved)[:, None]
    return found.indices, found.similarities, sure.sum(axis=1)


def _at_least(old: KeptNeighbors, own: Int64Array, width: int) -> Float64Array:
    """(t,) what so many of the kept neighbors that are still there were at least as similar as."""
    found = np.full(len(own), -np.inf)
    there = own >= 0
    enough = there.sum(axis=1) >= width
    place = (np.cumsum(there[enough], axis=1) >= width).argmax(axis=1)
    found[enough] = old.similarities[enough, place]
    return found


def _last(old: KeptNeighbors) -> Float64Array:
    """(t,) what all captions that were not kept are at most as similar as."""
    last = np.take_along_axis(old.similarities, np.maximum(old.complete - 1, 0)[:, None], axis=1)
    found: Float64Array = np.where(old.complete > 0, last[:, 0].astype(np.float64), np.inf)
    return found


def _still_there(old: KeptNeighbors, anchors: Anchors) -> tuple[Int64Array, Int64Array]:
    """Where the kept neighbors lie now, (t, w) with -1 for those that do not; and the new rows."""
    moved, known = _moved(old, anchors)
    own = moved[old.indices]
    own[(own < 0) | ~anchors.live[own]] = -1
    own[np.arange(own.shape[1]) >= old.complete[:, None]] = -1
    return own, np.flatnonzero(anchors.live & ~known)


def _moved(old: KeptNeighbors, anchors: Anchors) -> tuple[Int64Array, BoolArray]:
    """Where the rows of the old state lie now, -1 if they do not; and which rows now were live."""
    ends = dict(zip(anchors.files, np.cumsum(anchors.rows_per_fragment).tolist(), strict=True))
    now = np.full(int(old.rows.sum()), -1, dtype=np.int64)
    known = np.zeros(len(anchors), dtype=np.bool_)
    begin = 0
    for key, rows in zip(old.state, old.rows.tolist(), strict=True):
        end = ends.get(key.rpartition("|")[0])
        if end is not None:
            now[begin : begin + rows] = np.arange(end - rows, end)
            known[end - rows : end] = True
        begin += rows
    dead = now[old.dead]
    known[dead[dead >= 0]] = False
    return now, known
