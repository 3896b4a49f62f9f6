"""Bounds on labels' scores after pairs are removed or added: which predictions surely stay.

A score is the sum of image part × text part over the anchors among an image's k nearest. When
anchors are removed or added, these things change it (the image's norm changes all labels alike and
is left out):

- anchors whose text part changed: those removed or added, and those that entered or left the
  label's own k nearest. They are few, and each is compared with every image;
- the mean, under a centred recipe: every similarity drifts, each by no more than a known bound;
- anchors that enter the image's k nearest: at most one for each removed one, and as many as the
  drift can lift over the k-th. Which ones is unknown, but each was less similar than the k-th, and
  no two have one text part;
- anchors that leave them: at most one for each that was added or entered; each is less similar than
  the one that stays at the last place in any case.

So each label's new score lies between two bounds. Where the chosen label's lower bound is above all
others' upper bounds the label stays; elsewhere `label_rescoring` looks closer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asif_lance.records import BoolArray, Float64Array, Int64Array, RelativeVectors
from asif_lance.whatif.similarity_estimates import Estimates, SimilarityEstimator

#: Cosines of unit vectors, rounded to float32, are off by less than this.
COSINE_ROUNDING = 1e-7
#: Scores, sums of float32 values, are off by less than this.
SCORE_ROUNDING = 1e-6

_AT_ONCE = 2**22  # similarities compared at once


@dataclass(frozen=True, slots=True)
class TextChange:
    """How the relative vectors of r prompts differ between two states.

    After = scale · before, but for the named anchors, up to a remainder.

    Attributes:
        anchors: (x,) int64, the named ones.
        removed: (x,) bool, those that only the first state has.
        added: (x,) bool, those that only the other state has.
        owner: (r,) int64, the label of each prompt; ascending.
        scale: (r,) not negative.
        delta: (x, r) after less scale times before, at the named anchors.
        rest: (r,) norm of what is left elsewhere.
        heaviest: (r, 1 + w) sums of the 0, 1, 2, … largest values after.
    """

    anchors: Int64Array
    removed: BoolArray
    added: BoolArray
    owner: Int64Array
    scale: Float64Array
    delta: Float64Array
    rest: Float64Array
    heaviest: Float64Array

    def sum_of_heaviest(self, counts: Int64Array) -> Float64Array:
        """(m, r) the largest sum of (m,) so many values of each prompt."""
        sums: Float64Array = self.heaviest[:, np.minimum(counts, self.heaviest.shape[1] - 1)].T
        return sums


def compare_prompts(
    before: RelativeVectors,
    after: RelativeVectors,
    owner: Int64Array,
    removed: Int64Array,
    added: Int64Array,
) -> TextChange:
    """Compare prompts' relative vectors.

    Args:
        before: r relative vectors over the first state's anchors.
        after: the same prompts' over the other's; positions of anchors in both agree.
        owner: (r,) the label of each.
        removed: positions of the anchors that only the first state has.
        added: positions of those that only the other has.
    """
    pairs = [(_sparse(before, r), _sparse(after, r)) for r in range(len(owner))]
    changed = [np.setxor1d(old.anchors, new.anchors, assume_unique=True) for old, new in pairs]
    anchors = np.unique(np.concatenate([removed, added, *changed]).astype(np.int64))
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
    which = np.isin(anchors, removed), np.isin(anchors, added)
    return TextChange(anchors, *which, owner, scale, delta, rest, _heaviest(after.values))


def _heaviest(values: NDArray[np.floating]) -> Float64Array:
    largest = -np.sort(-values.astype(np.float64), axis=1)
    return np.pad(np.cumsum(largest, axis=1), ((0, 0), (1, 0)))


@dataclass(frozen=True, slots=True)
class _Sparse:
    """The positive values of one relative vector, by ascending anchor."""

    anchors: Int64Array
    values: Float64Array

    def at(self, anchors: Int64Array) -> Float64Array:
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
class RecordedImages:
    """What is recorded of m images, see `replay.ReplayRecords`, and how similarities drift.

    Attributes:
        drift: (m,) each similarity differs between the states by at most so much.
    """

    similarities: Float64Array
    ranks: Int64Array
    weights: Float64Array
    best: Int64Array
    scores: Float64Array
    neighbors: int
    pairs: int
    drift: Float64Array

    def part(self, at: slice | Int64Array) -> RecordedImages:
        """Some of them."""
        return replace(
            self,
            similarities=self.similarities[at],
            weights=self.weights[at],
            best=self.best[at],
            scores=self.scores[at],
            drift=self.drift[at],
        )

    def weights_of(
        self, rows: slice | Int64Array, similarities: Float64Array, power: float
    ) -> Float64Array:
        """The relative weights before of anchors with (r,) similarities to r images of these."""
        near = np.maximum(similarities, 0.0) / self.similarities[rows, 0]
        weights: Float64Array = self.weights[rows] * near**power
        return weights

    def at_rank(self, rank: int | Int64Array) -> Float64Array:
        """(m,) the similarity at a rank from 0; inf above the recorded ones, -inf below them."""
        column = np.broadcast_to(1 + self.ranks[0] - rank, len(self.similarities))
        width = self.similarities.shape[1]
        found = self.similarities[np.arange(len(column)), np.clip(column, 1, width - 1)]
        return np.where(column < 1, -np.inf, np.where(column < width, found, np.inf))

    def count_up_to(self, bound: Float64Array) -> Int64Array:
        """(m,) how many of an image's neighbors may be no more similar than this."""
        known = self.similarities[:, 1:]
        counted = ((known <= bound[:, None]) & (self.ranks < self.neighbors)).sum(axis=1)
        beyond = (known[:, -1] <= bound) & (self.ranks[-1] > 0)
        return np.where(beyond, self.neighbors, counted)


def bound_contenders(
    images: RecordedImages, change: TextChange, estimate: SimilarityEstimator, power: float
) -> Float64Array:
    """What the labels that could take the place of the chosen one score at most.

    Args:
        images: as recorded.
        change: of the prompts.
        estimate: the similarities of these images in the first state.
        power: the recipe's p of the image side.

    Returns:
        (m, c), but for the images' norms; -inf for labels that could not, so that an image with
        nothing else keeps its label.
    """
    most = np.empty(images.scores.shape)
    step = max(_AT_ONCE // max(len(change.anchors), len(change.owner), 1), 1)
    with np.errstate(all="ignore"):  # what overflows is no number, and nothing is sure of it
        for start in range(0, len(most), step):
            at = slice(start, start + step)
            similar = estimate(at, change.anchors)
            lower, upper = bound_scores(images.part(at), change, similar, power)
            chosen = np.arange(len(lower)), images.best[at]
            floor = lower[chosen][:, None]
            upper[chosen] = -np.inf
            # Written so that what is no number counts as infinite.
            could = ~((floor > upper) & (images.similarities[at, :1] > 0))
            most[at] = np.where(could, np.where(upper > -np.inf, upper, np.inf), -np.inf)
    return most


def bound_scores(
    images: RecordedImages, change: TextChange, similar: Estimates, power: float
) -> tuple[Float64Array, Float64Array]:
    """(m, c) what each label's score is at least and at most, but for the image's norm.

    Args:
        images: as recorded.
        change: of the prompts.
        similar: similarities of the named anchors, in the first state.
        power: the recipe's p of the image side.
    """
    last, drift = images.at_rank(images.neighbors - 1), images.drift
    near = _NamedNeighbors(images, change, similar, last)
    next_ = np.maximum(images.at_rank(images.neighbors), near.next_added)
    blurred = images.count_up_to(next_ + 2 * drift)  # the drift may put them behind the next
    enter = blurred + near.maybe_removed
    leave = enter + near.maybe_added - near.surely_removed
    stays = images.at_rank(images.neighbors - near.maybe_added) + 2 * drift
    everywhere = slice(None)
    more = images.weights_of(everywhere, next_ + drift, power)[:, None]
    less = images.weights_of(everywhere, stays, power)[:, None]
    known, unsure = near.score_change(power)
    slack = unsure + change.rest + SCORE_ROUNDING
    base = change.scale * images.scores[:, change.owner] + known
    shrink, grow = _drifted(last - COSINE_ROUNDING, drift, power)
    floor = np.maximum(base - slack - less * change.sum_of_heaviest(leave), 0.0)
    lower = shrink[:, None] * floor
    upper = grow[:, None] * (base + slack) + more * change.sum_of_heaviest(enter)
    first = np.flatnonzero(np.diff(change.owner, prepend=-1))
    return np.minimum.reduceat(lower, first, axis=1), np.maximum.reduceat(upper, first, axis=1)


def _drifted(
    similarities: Float64Array, drift: Float64Array, power: float
) -> tuple[Float64Array, Float64Array]:
    """What becomes of weights with at least these (m,) similarities: smallest and largest share."""
    change = np.where(drift > 0, drift / similarities, 0.0)
    tiny = (drift > 0) & (similarities <= drift)
    shrink, grow = np.maximum(1 - change, 0.0) ** power, (1 + change) ** power
    return np.where(tiny, 0.0, shrink), np.where(tiny, np.inf, grow)


class _NamedNeighbors:
    """Which of the named anchors are among the images' k nearest.

    Attributes:
        maybe_removed: (m,) how many of the removed ones may be.
        surely_removed: (m,) how many of them surely are.
        maybe_added: (m,) how many of the added ones may be as near.
        next_added: (m,) the similarity of the nearest other added one, at most.
    """

    def __init__(
        self, images: RecordedImages, change: TextChange, similar: Estimates, last: Float64Array
    ) -> None:
        self._images, self._change, self._similar = images, change, similar
        values, off = similar.values, (similar.error + COSINE_ROUNDING)[:, None]
        floor = last[:, None]
        self._maybe, self._surely = values >= floor - off, values >= floor + off
        self.maybe_removed = self._maybe[:, change.removed].sum(axis=1)
        self.surely_removed = self._surely[:, change.removed].sum(axis=1)
        added = values[:, change.added]
        self.maybe_added = (added >= floor - 2 * images.drift[:, None] - off).sum(axis=1)
        others = np.where(self._maybe[:, change.added], -np.inf, added + off)
        self.next_added = others.max(axis=1, initial=-np.inf)

    def score_change(self, power: float) -> tuple[Float64Array, Float64Array]:
        """(m, r) what the neighbors among them add to each prompt's score, and how unsure it is."""
        rows, columns = np.nonzero(self._maybe)
        similar, error = self._similar.values[rows, columns], self._similar.error[rows]
        most, least = np.zeros(self._maybe.shape), np.zeros(self._maybe.shape)
        most[rows, columns] = self._images.weights_of(rows, similar + error, power)
        least[rows, columns] = self._images.weights_of(rows, similar - error, power)
        unsure = most - np.where(self._surely, least, 0.0)
        return most @ self._change.delta, unsure @ np.abs(self._change.delta)
