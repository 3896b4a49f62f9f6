"""Which images surely keep their label, by the contending labels' scores from their own anchors.

A label's score needs only the anchors that carry its text weight, a few hundred, and which of them
are among an image's k nearest. The similarity that decides is nearly known: it is the k-th of the
recorded ones without those removed and with those added, give or take how far the mean's move lets
similarities drift. Anchors too close to that similarity count for one bound and not for the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array, RelativeVectors
from asif_lance.whatif.score_bounds import COSINE_ROUNDING, SCORE_ROUNDING, RecordedImages
from asif_lance.whatif.similarity_estimates import Estimates, SimilarityEstimator

_COLUMN = 64  # images per prompt that cost what reading its anchors' vectors costs


@dataclass(frozen=True, slots=True)
class Rescoring:
    """Scores m images in the other state, from the anchors of single labels.

    Attributes:
        images: as recorded.
        kth: from `bound_kth_similarity`.
        texts: relative vectors of r prompts in that state.
        owner: (r,) the label of each.
        estimate: similarities of these images in that state.
        power: the recipe's p of the image side.
    """

    images: RecordedImages
    kth: tuple[Float64Array, Float64Array]
    texts: RelativeVectors
    owner: Int64Array
    estimate: SimilarityEstimator
    power: float

    def confirm(self, most: Float64Array) -> BoolArray:
        """Which images surely keep their label, (m,) bool.

        The chosen label is scored first: that rules most others out.

        Args:
            most: (m, c) what other labels score at most, from `bound_contenders`.
        """
        chosen = np.zeros(most.shape, dtype=np.bool_)
        best = np.arange(len(most)), self.images.best
        chosen[best] = True
        if self._takes_longer_than_search(chosen):
            return np.zeros(len(most), dtype=np.bool_)
        floor = self._bound(chosen)[0][best] - SCORE_ROUNDING
        # Written so that what is no number fails.
        open_ = ~(floor[:, None] > most + SCORE_ROUNDING)
        sure: BoolArray = np.logical_not(open_.any(axis=1))
        if not self._takes_longer_than_search(open_):
            upper = self._bound(open_)[1].max(axis=1)
            sure = floor > upper + SCORE_ROUNDING
        return sure & (self.images.similarities[:, 0] > 0)

    def _takes_longer_than_search(self, open_: BoolArray) -> bool:
        """Whether scoring some labels compares more than comparing all anchors does."""
        images = open_.sum(axis=0)[self.owner]
        prompts = images + _COLUMN * (images > 0)
        return bool(prompts.sum() * self.texts.values.shape[1] > len(open_) * self.texts.n)

    def _bound(self, open_: BoolArray) -> tuple[Float64Array, Float64Array]:
        """(m, c) the scores of some labels at least and at most, but for the norm; -inf else."""
        lower, upper = (np.full(open_.shape, -np.inf) for _ in range(2))
        for row, label in enumerate(self.owner.tolist()):
            mine, kept = np.flatnonzero(open_[:, label]), self.texts.values[row] > 0
            if not len(mine):
                continue
            similar = self.estimate(mine, self.texts.indices[row][kept])
            text, near = self.texts.values[row][kept], (self.kth[0][mine], self.kth[1][mine])
            images, weights = self.images.part(mine), text.astype(np.float64)
            least, most = _score(images, similar, weights, near, self.power)
            lower[mine, label] = np.maximum(lower[mine, label], least)
            upper[mine, label] = np.maximum(upper[mine, label], most)
        return lower, upper


def _score(
    images: RecordedImages,
    similar: Estimates,
    text: Float64Array,
    kth: tuple[Float64Array, Float64Array],
    power: float,
) -> tuple[Float64Array, Float64Array]:
    """(m,) the score of a label with (x,) text values at least and at most, but for the norm."""
    inside, outside = kth
    off = (similar.error + COSINE_ROUNDING)[:, None]
    rows, columns = np.nonzero(similar.values + off >= outside[:, None])
    values, off = similar.values[rows, columns], off[rows, 0]
    most = images.weights_of(rows, values + off, power) * text[columns]
    least = images.weights_of(rows, values - off, power) * text[columns]
    least[values - off < inside[rows]] = 0.0
    return _sum_by_row(rows, least, len(inside)), _sum_by_row(rows, most, len(inside))


def _sum_by_row(rows: Int64Array, parts: Float64Array, count: int) -> Float64Array:
    return np.bincount(rows, parts, count).astype(np.float64)


def bound_kth_similarity(
    images: RecordedImages, removed: Estimates, added: Estimates, k: int
) -> tuple[Float64Array, Float64Array]:
    """From which similarity on an anchor is surely among the k nearest, and below which it is not.

    Args:
        images: m images, as recorded.
        removed: similarities of the removed anchors, in the first state.
        added: those of the added ones, in the same.
        k: how many anchors count.

    Returns:
        (m,) both, similarities in the other state; infinite where the recorded similarities do not
        reach that far.
    """
    known = images.similarities[:, 1:]
    # Among those before, ranks + 1 are at least as similar as this one and more than the next.
    end = np.inf if images.ranks[0] + 1 < images.pairs else -np.inf
    following = np.concatenate([np.full((len(known), 1), end), known[:, :-1]], axis=1)
    following += 2 * COSINE_ROUNDING
    off, slack = ((both.error + COSINE_ROUNDING)[:, None] for both in (removed, added))
    least = _count_at_least(removed.values, known - off)
    most = _count_at_least(removed.values, following + off)
    new_least = _count_at_least(added.values, known + slack)
    new_most = _count_at_least(added.values, following - slack)
    count = images.ranks + 1
    inside = np.where(count - most + new_most <= k, following, np.inf).min(axis=1)
    outside = np.where(count - least + new_least >= k, known - COSINE_ROUNDING, -np.inf)
    return inside + images.drift, outside.max(axis=1) - images.drift


def _count_at_least(similarities: Float32Array, bounds: Float64Array) -> Int64Array:
    """(m, w) how many of (m, x) similarities reach each of (m, w) bounds."""
    counts = np.zeros(bounds.shape, dtype=np.int64)
    for column in similarities.T:
        counts += column[:, None] >= bounds
    return counts
