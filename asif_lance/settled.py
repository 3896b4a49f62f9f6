"""Which predictions surely keep their label when some anchors go or come: bounds, no search.

A score is the sum of image part × text part over the anchors among an image's k nearest. When
anchors go or come, three things move it (the image's norm moves all labels alike and is left out):

- anchors whose text part changed: those that went or came, and those that entered or left the
  label's own k nearest. They are few, named, and compared with every image;
- anchors that enter the image's k nearest, at most one for each that went. Which ones is unknown,
  but each is less similar than the k-th was, and no two have one text part;
- anchors that leave them, at most one for each that came; each is less similar than the one that
  stays at the last place in any case.

So each label's new score lies between two bounds. Where the chosen label's lower bound is above all
others' upper bounds the prediction stands; the other contenders are for `rescored`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asif_lance.records import RelativeVectors

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BATCH = 2048  # images bounded at once
#: Cosines of unit vectors, rounded to float32, agree better than this.
SAME = 1e-7
#: Of scores, sums of float32 values.
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Shift:
    """How the relative vectors of r prompts differ between two states.

    After = scale · before, but for the named anchors, up to a remainder.

    Attributes:
        anchors: (x,) int64, the named ones.
        owner: (r,) int64, the label of each prompt; ascending.
        scale: (r,) not negative.
        delta: (x, r) after less scale times before, at the named anchors.
        rest: (r,) norm of what is left elsewhere.
        heaviest: (r, w) sums of the 0, 1, 2, … largest values after.
    """

    anchors: Longs
    owner: Longs
    scale: Floats
    delta: Floats
    rest: Floats
    heaviest: Floats


def shift_of(
    before: RelativeVectors, after: RelativeVectors, owner: Longs, changed: Longs, most: int
) -> Shift:
    """Compare prompts' relative vectors.

    Args:
        before: r relative vectors over the first state's anchors.
        after: the same prompts' over the other's; positions of anchors in both agree.
        owner: (r,) the label of each.
        changed: positions of the anchors that went or came.
        most: how many of them an image may have among its nearest.
    """
    pairs = [(_sparse(before, r), _sparse(after, r)) for r in range(len(owner))]
    moved = [np.setxor1d(old.anchors, new.anchors, assume_unique=True) for old, new in pairs]
    anchors = np.unique(np.concatenate([changed.astype(np.int64), *moved]))
    delta, rest = np.empty((len(anchors), len(owner))), np.empty(len(owner))
    scale = np.zeros(len(owner))
    for r, (old, new) in enumerate(pairs):
        both, i, j = np.intersect1d(
            old.anchors, new.anchors, assume_unique=True, return_indices=True
        )
        scale[r] = np.median(new.values[j] / old.values[i]) if len(both) else 0.0
        elsewhere = (new.values[j] - scale[r] * old.values[i])[~np.isin(both, anchors)]
        rest[r] = np.linalg.norm(elsewhere)
        delta[:, r] = new.at(anchors) - scale[r] * old.at(anchors)
    largest = -np.sort(-after.values.astype(np.float64), axis=1)[:, :most]
    heaviest = np.pad(np.cumsum(largest, axis=1), ((0, 0), (1, 0)))
    return Shift(anchors, owner, scale, delta, rest, heaviest)


@dataclass(frozen=True, slots=True)
class _Sparse:
    """The positive values of one relative vector, by ascending anchor."""

    anchors: Longs
    values: Floats

    def at(self, anchors: Longs) -> Floats:
        """The values at some anchors, 0 where there is none."""
        found = np.zeros(len(anchors))
        _, i, j = np.intersect1d(self.anchors, anchors, assume_unique=True, return_indices=True)
        found[j] = self.values[i]
        return found


def _sparse(vectors: RelativeVectors, row: int) -> _Sparse:
    kept = vectors.values[row] > 0
    anchors, values = vectors.indices[row][kept], vectors.values[row][kept].astype(np.float64)
    order = np.argsort(anchors)
    return _Sparse(anchors[order], values[order])


@dataclass(frozen=True, slots=True)
class Images:
    """What is known of m images, see `standings.Standings`."""

    queries: NDArray[np.float32]
    similarities: Floats
    ranks: Longs
    weights: Floats
    best: Longs
    scores: Floats
    neighbors: int
    pairs: int

    def part(self, at: slice | Longs) -> Images:
        """Some of them."""
        return replace(
            self,
            queries=self.queries[at],
            similarities=self.similarities[at],
            weights=self.weights[at],
            best=self.best[at],
            scores=self.scores[at],
        )

    def weight_of(self, similarities: Floats, power: float) -> Floats:
        """The relative weights before of anchors with these similarities, (m, any)."""
        nearest = self.similarities[:, :1]
        return self.weights[:, None] * (np.maximum(similarities, 0.0) / nearest) ** power


def contenders(images: Images, shift: Shift, vectors: Floats, changed: Mask, power: float) -> Mask:
    """Which labels could take the place of the chosen one.

    Args:
        images: as recorded.
        shift: how the prompts moved.
        vectors: (x, d) image vectors of `shift.anchors`.
        changed: (2, x) bool, which of the anchors went and which came.
        power: the recipe's p of the image side.

    Returns:
        (m, c) bool; a row without any is settled.
    """
    open_ = np.ones(images.scores.shape, dtype=np.bool_)
    with np.errstate(all="ignore"):  # what overflows is no number, and nothing is sure of it
        for start in range(0, len(open_), _BATCH):
            at = slice(start, start + _BATCH)
            open_[at] = _contenders(images.part(at), shift, vectors, changed, power)
    return open_


def _contenders(images: Images, shift: Shift, vectors: Floats, changed: Mask, power: float) -> Mask:
    similar = images.queries.astype(np.float64) @ vectors.T
    last = _at_rank(images, np.zeros(len(similar), dtype=np.int64))
    weight = images.weight_of(similar, power)
    inside, surely = similar >= last - SAME, similar >= last + SAME
    counted = np.where(inside, weight, 0.0)
    unsure = np.where(inside & ~surely, weight, 0.0)
    enter, leave = (inside[:, which].sum(axis=1) for which in changed)
    known = counted @ shift.delta
    slack = unsure @ np.abs(shift.delta) + shift.rest + ROUNDING
    enter = np.minimum(enter, images.pairs - images.neighbors)
    more = images.weight_of(last, power) * _sum_of(shift, enter)
    less = images.weight_of(_at_rank(images, leave), power) * _sum_of(shift, leave)
    base = shift.scale * images.scores[:, shift.owner] + known
    first = np.flatnonzero(np.diff(shift.owner, prepend=-1))
    lower = np.minimum.reduceat(base - slack - less, first, axis=1)
    upper = np.maximum.reduceat(base + slack + more, first, axis=1)
    mine = np.arange(len(lower)), images.best
    floor = lower[mine][:, None]
    upper[mine] = -np.inf
    # Written so that what is no number stays open.
    open_: Mask = ~((floor > upper) & (images.similarities[:, :1] > 0))
    return open_


def _at_rank(images: Images, leaving: Longs) -> Floats:
    """(m, 1) the similarity of the last anchor that stays if so many leave, inf if not recorded."""
    column = 1 + images.ranks[0] - (images.neighbors - 1 - leaving)
    width = images.similarities.shape[1]
    similar = images.similarities[np.arange(len(leaving)), np.minimum(column, width - 1)]
    found: Floats = np.where(column < width, similar, np.inf)[:, None]
    return found


def _sum_of(shift: Shift, counts: Longs) -> Floats:
    """(m, r) the largest sum of so many values of each prompt."""
    width = shift.heaviest.shape[1] - 1
    sums: Floats = shift.heaviest[:, np.minimum(counts, width)].T
    return sums
