"""Which of two labels wins in another state, from their own anchors alone.

A label's score needs only the anchors that carry its text weight, a few hundred, and which of them
are among an image's k nearest. The similarity that decides is nearly known: it is the k-th of the
recorded ones without those that went and with those that came, give or take how far the mean's move
lets similarities drift. What the bounds of `score_bounds` leave open is scored so; anchors too
close to that similarity count for one bound and not for the other.
"""

from __future__ import annotations

import numpy as np

from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array, RelativeVectors
from asif_lance.whatif.score_bounds import ROUNDING, SAME, Images
from asif_lance.whatif.similarity_estimates import Compare, Estimates

_COLUMN = 64  # images per prompt that cost what reading its anchors' vectors costs


def cost(open_: BoolArray, after: RelativeVectors, owner: Int64Array) -> int:
    """How many similarities `stands` compares, or as many as take the same time."""
    images = open_.sum(axis=0)[owner]
    return int(((images + _COLUMN * (images > 0)) * after.values.shape[1]).sum())


def stands(
    images: Images,
    open_: BoolArray,
    bounds: tuple[Float64Array, Float64Array],
    after: RelativeVectors,
    owner: Int64Array,
    compare: Compare,
    power: float,
) -> BoolArray:
    """Which of m images surely keep their label.

    Args:
        images: as recorded.
        open_: (m, c) bool, the labels that may win, the chosen one included.
        bounds: from `nearness`.
        after: relative vectors of r prompts in the other state.
        owner: (r,) the label of each.
        compare: compares these images in that state.
        power: the recipe's p of the image side.

    Returns:
        (m,) bool.
    """
    lower, upper = (np.full(open_.shape, -np.inf) for _ in range(2))
    for row, label in enumerate(owner.tolist()):
        mine, kept = np.flatnonzero(open_[:, label]), after.values[row] > 0
        if not len(mine):
            continue
        similar = compare(mine, after.indices[row][kept])
        text, near = after.values[row][kept], tuple(bound[mine] for bound in bounds)
        least, most = _scores(images.part(mine), similar, text.astype(np.float64), near, power)
        lower[mine, label] = np.maximum(lower[mine, label], least)
        upper[mine, label] = np.maximum(upper[mine, label], most)
    best = np.arange(len(lower)), images.best
    floor = lower[best].copy()
    upper[best] = -np.inf
    # Written so that what is no number fails.
    sure: BoolArray = floor - ROUNDING > upper.max(axis=1) + ROUNDING
    return sure & (images.similarities[:, 0] > 0)


def _scores(
    images: Images,
    similar: Estimates,
    text: Float64Array,
    bounds: tuple[Float64Array, ...],
    power: float,
) -> tuple[Float64Array, Float64Array]:
    """(m,) the score of a label with (x,) text values at least and at most, but for the norm."""
    surely, never = bounds
    off = (similar.error + SAME)[:, None]
    rows, columns = np.nonzero(similar.values + off >= never[:, None])
    values, off = similar.values[rows, columns], off[rows, 0]
    most = images.weights_of(rows, values + off, power) * text[columns]
    least = images.weights_of(rows, values - off, power) * text[columns]
    least[values - off < surely[rows]] = 0.0
    return _sums(rows, least, len(never)), _sums(rows, most, len(never))


def _sums(rows: Int64Array, parts: Float64Array, count: int) -> Float64Array:
    return np.bincount(rows, parts, count).astype(np.float64)


def nearness(
    images: Images, went: Estimates, came: Estimates, k: int
) -> tuple[Float64Array, Float64Array]:
    """From which similarity on an anchor is surely among the k nearest, and below which it is not.

    Args:
        images: m images, as recorded.
        went: of the anchors that went, in the first state.
        came: of those that came, in the same.
        k: how many anchors count.

    Returns:
        (m,) both, similarities in the other state; infinite where the recorded similarities do not
        reach that far.
    """
    known = images.similarities[:, 1:]
    # Among those before, ranks + 1 are at least as similar as this one and more than the next.
    end = np.inf if images.ranks[0] + 1 < images.pairs else -np.inf
    following = np.concatenate([np.full((len(known), 1), end), known[:, :-1]], axis=1) + 2 * SAME
    off, slack = (went.error + SAME)[:, None], (came.error + SAME)[:, None]
    least, most = _at_least(went.values, known - off), _at_least(went.values, following + off)
    new_least, new_most = (
        _at_least(came.values, bound) for bound in (known + slack, following - slack)
    )
    count = images.ranks + 1
    surely = np.where(count - most + new_most <= k, following, np.inf).min(axis=1)
    never = np.where(count - least + new_least >= k, known - SAME, -np.inf).max(axis=1)
    return surely + images.drift, never - images.drift


def crossed(
    images: Images, near: tuple[Float64Array, Float64Array]
) -> tuple[Float64Array, Float64Array]:
    """Where anchors are that enter or leave the k nearest, in similarities before: (m,) both.

    Args:
        images: m images, as recorded.
        near: from `nearness`.
    """
    last = images.at_rank(images.neighbors - 1)
    surely, never = near
    return np.minimum(last, never - images.drift), np.maximum(last, surely + images.drift)


def _at_least(similarities: Float32Array, bounds: Float64Array) -> Int64Array:
    """(m, w) how many of (m, x) similarities reach each of (m, w) bounds."""
    counts = np.zeros(bounds.shape, dtype=np.int64)
    for column in similarities.T:
        counts += column[:, None] >= bounds
    return counts
