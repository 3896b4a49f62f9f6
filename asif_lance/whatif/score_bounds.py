"""Which predictions surely keep their label when some anchors go or come: bounds, no search.

A score is the sum of image part × text part over the anchors among an image's k nearest. When
anchors go or come, these things move it (the image's norm moves all labels alike and is left out):

- anchors whose text part changed: those that went or came, and those that entered or left the
  label's own k nearest. They are few, named, and compared with every image;
- the mean, under a centred recipe: every similarity drifts, each by no more than a known bound;
- anchors that enter the image's k nearest: at most one for each that went, and as many as the drift
  can lift over the k-th. Which ones is unknown, but each was less similar than the k-th, and no two
  have one text part;
- anchors that leave them: at most one for each that came or entered; each is less similar than the
  one that stays at the last place in any case.

Those that enter or leave are near the similarity that decides. So the bounds come closer for images
that are compared with each label's heaviest anchors, too (`Heavies`): nearly all of these are not.

So each label's new score lies between two bounds. Where the chosen label's lower bound is above all
others' upper bounds the prediction stands; the other contenders are for `label_rescoring`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asif_lance.records import BoolArray, Float64Array, Int64Array, RelativeVectors
from asif_lance.whatif.similarity_estimates import Compare, Estimates

Weights = tuple[Float64Array, Float64Array]

_AT_ONCE = 2**22  # similarities bounded at once
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
        went: (x,) bool, those that the other state lacks.
        came: (x,) bool, those that only the other state has.
        owner: (r,) int64, the label of each prompt; ascending.
        scale: (r,) not negative.
        delta: (x, r) after less scale times before, at the named anchors.
        rest: (r,) norm of what is left elsewhere.
        heaviest: (r, w) sums of the 0, 1, 2, … largest values after.
    """

    anchors: Int64Array
    went: BoolArray
    came: BoolArray
    owner: Int64Array
    scale: Float64Array
    delta: Float64Array
    rest: Float64Array
    heaviest: Float64Array


@dataclass(frozen=True, slots=True)
class Heavies:
    """The anchors that weigh most for some label in the other state, and all others' weights.

    Attributes:
        anchors: (y,) int64.
        values: (y, r) theirs in the prompts' relative vectors.
        others: (r, w) sums of the 0, 1, 2, … largest values of all other anchors.
    """

    anchors: Int64Array
    values: Float64Array
    others: Float64Array

    @staticmethod
    def of(after: RelativeVectors, count: int) -> Heavies:
        """Take about so many anchors of r relative vectors, as many of each."""
        each = max(min(count // max(len(after.values), 1), after.values.shape[1]), 1)
        largest = np.argsort(-after.values, axis=1)[:, :each]
        anchors = np.unique(np.take_along_axis(after.indices, largest, axis=1))
        values = [_sparse(after, r).at(anchors) for r in range(len(after.values))]
        others = np.where(np.isin(after.indices, anchors), 0.0, after.values)
        return Heavies(anchors, np.stack(values, axis=1), _heaviest(others))


@dataclass(frozen=True, slots=True)
class Crossing:
    """Which of the heaviest anchors may enter or leave images' k nearest.

    Attributes:
        heavies: the anchors.
        bounds: (m,) both: the others have similarities beyond these in the first state.
    """

    heavies: Heavies
    bounds: tuple[Float64Array, Float64Array]

    def weights(self, at: slice, compare: Compare) -> Weights:
        """(m, r) what those of them weigh together, for some of the images; and `others`."""
        similar, (least, most) = compare(at, self.heavies.anchors), self.bounds
        off = similar.error + SAME
        near = similar.values >= (least[at] - off)[:, None]
        near &= similar.values <= (most[at] + off)[:, None]
        return near.astype(np.float64) @ self.heavies.values, self.heavies.others


def shift_of(
    before: RelativeVectors,
    after: RelativeVectors,
    owner: Int64Array,
    went: Int64Array,
    came: Int64Array,
) -> Shift:
    """Compare prompts' relative vectors.

    Args:
        before: r relative vectors over the first state's anchors.
        after: the same prompts' over the other's; positions of anchors in both agree.
        owner: (r,) the label of each.
        went: positions of the anchors that only the first state has.
        came: positions of those that only the other has.
    """
    pairs = [(_sparse(before, r), _sparse(after, r)) for r in range(len(owner))]
    moved = [np.setxor1d(old.anchors, new.anchors, assume_unique=True) for old, new in pairs]
    anchors = np.unique(np.concatenate([went, came, *moved]).astype(np.int64))
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
    gone, new_ = np.isin(anchors, went), np.isin(anchors, came)
    return Shift(anchors, gone, new_, owner, scale, delta, rest, _heaviest(after.values))


def _heaviest(values: NDArray[np.floating]) -> Float64Array:
    """(r, 1 + k) sums of the 0, 1, 2, … largest of each row."""
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
class Images:
    """What is known of m images, see `standings.Standings`; and what becomes of them.

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

    def part(self, at: slice | Int64Array) -> Images:
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

    def up_to(self, bound: Float64Array) -> Int64Array:
        """(m,) how many of an image's neighbors may be no more similar than this."""
        known = self.similarities[:, 1:]
        counted = ((known <= bound[:, None]) & (self.ranks < self.neighbors)).sum(axis=1)
        beyond = (known[:, -1] <= bound) & (self.ranks[-1] > 0)
        return np.where(beyond, self.neighbors, counted)


def contenders(
    images: Images, shift: Shift, compare: Compare, power: float, crossing: Crossing | None = None
) -> BoolArray:
    """Which labels could take the place of the chosen one.

    Args:
        images: as recorded.
        shift: how the prompts moved.
        compare: compares these images in the first state.
        power: the recipe's p of the image side.
        crossing: of these images, for closer bounds.

    Returns:
        (m, c) bool; a row without any is settled.
    """
    open_ = np.ones(images.scores.shape, dtype=np.bool_)
    heavy = 0 if crossing is None else len(crossing.heavies.anchors)
    step = max(_AT_ONCE // max(len(shift.anchors), len(shift.owner), heavy, 1), 1)
    with np.errstate(all="ignore"):  # what overflows is no number, and nothing is sure of it
        for start in range(0, len(open_), step):
            at = slice(start, start + step)
            similar = compare(at, shift.anchors)
            closer = None if crossing is None else crossing.weights(at, compare)
            open_[at] = _contenders(images.part(at), shift, similar, power, closer)
    return open_


def _contenders(
    images: Images, shift: Shift, similar: Estimates, power: float, closer: Weights | None
) -> BoolArray:
    lower, upper = bounds(images, shift, similar, power, closer)
    mine = np.arange(len(lower)), images.best
    floor = lower[mine][:, None]
    upper[mine] = -np.inf
    # Written so that what is no number stays open.
    open_: BoolArray = ~((floor > upper) & (images.similarities[:, :1] > 0))
    return open_


def bounds(
    images: Images,
    shift: Shift,
    similar: Estimates,
    power: float,
    closer: Weights | None = None,
) -> tuple[Float64Array, Float64Array]:
    """(m, c) what each label's score is at least and at most, but for the image's norm.

    Args:
        images: as recorded.
        shift: how the prompts moved.
        similar: of the named anchors, in the first state.
        power: the recipe's p of the image side.
        closer: from `Crossing.weights`.
    """
    last, drift = images.at_rank(images.neighbors - 1), images.drift
    near = _Near(images, shift, similar, last)
    next_ = np.maximum(images.at_rank(images.neighbors), near.nearest_that_came_behind)
    blurred = images.up_to(next_ + 2 * drift)  # neighbors that the drift may put behind the next
    enter, leave = blurred + near.went, blurred + near.came + near.went - near.surely_went
    stays = images.at_rank(images.neighbors - near.came) + 2 * drift
    more = _weight(images, next_ + drift, power) * _few(shift, closer, enter)
    less = _weight(images, stays, power) * _few(shift, closer, leave)
    known, unsure = near.moved(power)
    slack = unsure + shift.rest + ROUNDING
    base = shift.scale * images.scores[:, shift.owner] + known
    shrink, grow = _drifted(last - SAME, drift, power)
    lower = shrink[:, None] * np.maximum(base - slack - less, 0.0)
    upper = grow[:, None] * (base + slack) + more
    first = np.flatnonzero(np.diff(shift.owner, prepend=-1))
    return np.minimum.reduceat(lower, first, axis=1), np.maximum.reduceat(upper, first, axis=1)


def _drifted(
    similarities: Float64Array, drift: Float64Array, power: float
) -> tuple[Float64Array, Float64Array]:
    """What becomes of weights with at least these (m,) similarities: smallest and largest share."""
    change = np.where(drift > 0, drift / similarities, 0.0)
    tiny = (drift > 0) & (similarities <= drift)
    shrink, grow = np.maximum(1 - change, 0.0) ** power, (1 + change) ** power
    return np.where(tiny, 0.0, shrink), np.where(tiny, np.inf, grow)


class _Near:
    """Which of the named anchors are among the images' neighbors.

    Attributes:
        went: (m,) how many of those that went may be.
        surely_went: how many of them surely are.
        came: how many of those that came may be as near.
        nearest_that_came_behind: the similarity of the nearest other one, at most.
    """

    def __init__(
        self, images: Images, shift: Shift, similar: Estimates, last: Float64Array
    ) -> None:
        self._images, self._shift, self._similar = images, shift, similar
        values, off = similar.values, (similar.error + SAME)[:, None]
        self._floor = last[:, None]
        self._inside, self._surely = values >= self._floor - off, values >= self._floor + off
        self.went = self._inside[:, shift.went].sum(axis=1)
        self.surely_went = self._surely[:, shift.went].sum(axis=1)
        came, drift = values[:, shift.came], images.drift[:, None]
        self.came = (came >= self._floor - 2 * drift - off).sum(axis=1)
        behind = np.where(self._inside[:, shift.came], -np.inf, came + off)
        self.nearest_that_came_behind = behind.max(axis=1, initial=-np.inf)

    def moved(self, power: float) -> tuple[Float64Array, Float64Array]:
        """(m, r) what the neighbors among them add to each prompt's score, and how unsure it is."""
        rows, columns = np.nonzero(self._inside)
        similar, error = self._similar.values[rows, columns], self._similar.error[rows]
        shape = self._inside.shape
        most, least = (
            _scattered(shape, rows, columns, self._images.weights_of(rows, similar + by, power))
            for by in (error, -error)
        )
        unsure = most - np.where(self._surely, least, 0.0)
        return most @ self._shift.delta, unsure @ np.abs(self._shift.delta)


def _scattered(
    shape: tuple[int, ...], rows: Int64Array, columns: Int64Array, values: Float64Array
) -> Float64Array:
    found = np.zeros(shape)
    found[rows, columns] = values
    return found


def _weight(images: Images, similarities: Float64Array, power: float) -> Float64Array:
    return images.weights_of(slice(None), similarities, power)[:, None]


def _few(shift: Shift, closer: Weights | None, counts: Int64Array) -> Float64Array:
    """(m, r) what so many unknown anchors weigh for each prompt at most."""
    most = _sum_of(shift.heaviest, counts)
    if closer is None:
        return most
    known, others = closer
    found: Float64Array = np.minimum(most, known + _sum_of(others, counts))
    return found


def _sum_of(heaviest: Float64Array, counts: Int64Array) -> Float64Array:
    """(m, r) the largest sum of so many values of each prompt."""
    sums: Float64Array = heaviest[:, np.minimum(counts, heaviest.shape[1] - 1)].T
    return sums
