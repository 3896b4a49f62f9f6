"""The captions most similar to each prompt, found once, kept, and brought up to date exactly.

A large label set costs a pass of every prompt over all captions. What it found is kept in the
database's directory, with some neighbors to spare, as rows of fragments: fragments never change,
so another model version shares most of them. What it lacks is removed, what it has beyond them is
compared anew, and as long as enough of the old neighbors are left the answer is exact: every
caption that is not among them is known to be less similar than the last that is.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from asif_lance.anchors import Anchors
from asif_lance.kept_labels import Kept, Longs, keep, load
from asif_lance.records import Neighbors

#: Compiling less than so many similarities takes about as long as reading what was kept.
WORTH_KEEPING = 2**24

_MOST = 0.5  # of the anchors may be new; with more, comparing all is about as fast


def prompt_neighbors(
    anchors: Anchors,
    queries: NDArray[np.float32],
    k: int,
    *,
    centred: bool = False,
    worth: int = WORTH_KEEPING,
) -> Neighbors:
    """The k captions most similar to each prompt; the same as `anchors.top_k("text", …)`.

    Centred similarities all change with the mean, whatever pair comes or goes: what is kept of them
    serves equal states only.

    Args:
        anchors: a model version.
        queries: (t, d) float32 unit vectors.
        k: how many to find.
        centred: whether by centred similarities.
        worth: similarities that must be at stake before anything is kept.
    """
    if not anchors.state or len(queries) * len(anchors) < worth:
        return anchors.top_k("text", queries, k, centred=centred)
    kind = b"centred" if centred else b""
    name = hashlib.sha256(queries.astype("<f4").tobytes() + kind).hexdigest()[:24]
    database = anchors.dataset.uri.rpartition("/")[0]
    old = load(database, name)
    found = old if old is not None and _same(old, anchors, k) else None
    if found is None:
        found = _found(anchors, queries, k, None if centred else old, centred)
        keep(database, name, found)
    return Neighbors(found.indices[:, :k], found.similarities[:, :k])


def _same(old: Kept, anchors: Anchors, k: int) -> bool:
    return old.state == anchors.state and bool((old.complete >= min(k, anchors.count)).all())


def _found(
    anchors: Anchors, queries: NDArray[np.float32], k: int, old: Kept | None, centred: bool
) -> Kept:
    wanted, width = min(k, anchors.count), min(k + max(k // 4, 64), anchors.count)
    indices = np.zeros((len(queries), width), dtype=np.int64)
    similarities = np.zeros((len(queries), width), dtype=np.float32)
    complete = np.zeros(len(queries), dtype=np.int64)
    updated = None if old is None else _updated(old, anchors, queries, width)
    if updated is not None:
        indices, similarities, complete = updated
    again = complete < wanted
    if again.any():
        fresh = anchors.top_k("text", queries[again], width, centred=centred)
        indices[again], similarities[again] = fresh.indices, fresh.similarities
        complete[again] = width
    rows, dead = anchors.rows_per_fragment, np.flatnonzero(~anchors.live)
    return Kept(anchors.state, rows, dead, indices, similarities, complete)


def _updated(
    old: Kept, anchors: Anchors, queries: NDArray[np.float32], width: int
) -> tuple[Longs, NDArray[np.float32], Longs] | None:
    """Merge the kept neighbors that are still there with the best of the new rows.

    Returns:
        Indices and similarities (t, width), and (t,) how many of them are the best of all; None
        if there are so many new rows that it saves nothing.
    """
    own, new = _still_there(old, anchors)
    if len(new) > _MOST * len(anchors) or own.shape[1] + len(new) < width:
        return None
    added = anchors.top_k_among("text", new, queries, min(width, max(len(new), 1)))
    kept = np.where(own >= 0, old.similarities, -np.inf).astype(np.float32)
    similarities = np.concatenate([kept, added.similarities], axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    ranked = np.take_along_axis(similarities, order, axis=1)
    is_new = order >= own.shape[1]
    # Equal in float32 need not be equal: only full precision tells an old one from a new one.
    unclear = (ranked[:, 1:] == ranked[:, :-1]) & (is_new[:, 1:] != is_new[:, :-1])
    unclear &= ranked[:, 1:] > -np.inf
    indices = np.take_along_axis(np.concatenate([own, added.indices], axis=1), order, axis=1)
    complete = np.where(unclear.any(axis=1), 0, _complete(own, indices, width))
    return indices[:, :width], ranked[:, :width], complete


def _still_there(old: Kept, anchors: Anchors) -> tuple[Longs, Longs]:
    """Where the kept neighbors lie now, (t, w) with -1 for those that do not; and the new rows."""
    moved = _moved(old, anchors)
    known = np.zeros(len(anchors), dtype=np.bool_)
    known[moved[moved >= 0]] = True
    known[moved[old.dead][moved[old.dead] >= 0]] = False
    own = moved[old.indices]
    own[own >= 0] = np.where(anchors.live[own[own >= 0]], own[own >= 0], -1)
    own[np.arange(own.shape[1]) >= old.complete[:, None]] = -1
    return own, np.flatnonzero(anchors.live & ~known)


def _complete(own: Longs, indices: Longs, width: int) -> Longs:
    """How many of the merged neighbors are surely the best: down to the last one kept before."""
    last = own.shape[1] - 1 - np.argmax(own[:, ::-1] >= 0, axis=1)
    last = own[np.arange(len(own)), last]
    place = (indices == last[:, None]).argmax(axis=1) + 1
    return np.where(last >= 0, np.minimum(place, width), 0)


def _moved(old: Kept, anchors: Anchors) -> Longs:
    """Where the rows of the old state lie now, by their old positions; -1 if they do not."""
    starts = dict(zip(anchors.files, np.cumsum(anchors.rows_per_fragment), strict=True))
    now = np.full(int(old.rows.sum()), -1, dtype=np.int64)
    begin = 0
    for key, rows in zip(old.state, old.rows.tolist(), strict=True):
        end = starts.get(key.rpartition("|")[0])
        if end is not None:
            now[begin : begin + rows] = np.arange(end - rows, end)
        begin += rows
    return now
