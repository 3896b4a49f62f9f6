"""What a model says of one picture without some pairs, its means and metric held as they are.

A pair that goes lets the next nearest one in and changes norms; with some neighbors to spare, that
needs no search. It also moves the mean, and a whitening if it is of its sample: a little where
there are many pairs, and that alone is left out here. Under the recipe `paper` nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asif_lance.model import Model, Prediction, Prompts, average_prompts, build_label_set
from asif_lance.records import Float32Array, Float64Array, Int64Array, Neighbors
from asif_lance.search import unit_queries

#: Scores are sums of products of float32 numbers.
_ROUNDING = 1e-6


class HeldMeasures:
    """A picture and prompts with their nearest pairs, from which up to `most` can be left out."""

    def __init__(self, model: Model, vector: Float32Array, prompts: Prompts, most: int) -> None:
        """Search once for the picture, a (d,) embedding, and once for each prompt."""
        self._model, self._query = model, unit_queries(vector[None])
        self._prompts, recipe = average_prompts(prompts), model.recipe
        self._images = model.neighbors(self._query, spare=most)
        texts, k = self._prompts.vectors, recipe.k[1] + most
        self._texts = model.anchors.top_k("text", texts, k, measure=recipe.measures[1])

    def without(self, gone: Sequence[int]) -> Prediction:
        """What it says without the pairs at some positions."""
        model, recipe = self._model, self._model.recipe
        images = _leave_out(self._images, gone, recipe.k[0])
        texts = _leave_out(self._texts, gone, recipe.k[1])
        count, name = len(model.anchors), model.version.name
        labels = build_label_set(self._prompts, texts, recipe, count, name)
        (prediction,) = model.classify_neighbors([""], self._query, images, labels)
        return prediction

    def bound_fewest(self, before: Prediction, most: int) -> int:
        """So many pairs have to go at least for another label to win; `most` if not fewer.

        For the ensembles in which a score is that of one prompt; 1 for the other.
        """
        labels = before.evidence.labels
        if self._prompts.ensemble == "mean-relative":
            return 1
        scores, winner = before.evidence.prompt_scores, labels.names.index(before.label)
        own = np.flatnonzero(labels.owner == winner)
        best = int(own[np.argmax(scores[own])])
        for rival in np.argsort(-scores):
            if labels.owner[rival] == winner:
                continue
            margin = self._compare(best, int(rival))
            while most > 1 and margin.may_flip(most - 1):
                most -= 1
        return most

    def _compare(self, winner: int, rival: int) -> _Margin:
        k, p = self._model.recipe.k, self._model.recipe.p
        picture = _Weights.of(self._images, 0, k[0], p[0])
        texts = [_Weights.of(self._texts, row, k[1], p[1]) for row in (winner, rival)]
        return _Margin.of(picture, *texts)


@dataclass(frozen=True, slots=True)
class _Weights:
    """One relative vector and what comes after its k pairs, on the scale of the first k."""

    positions: Int64Array
    values: Float64Array
    k: int

    @staticmethod
    def of(near: Neighbors, row: int, k: int, p: float) -> _Weights:
        values = np.maximum(near.similarities[row].astype(np.float64), 0.0)
        values /= values.max(initial=0.0) or 1.0
        values **= p
        values /= np.sqrt(np.square(values[:k]).sum()) or 1.0
        return _Weights(near.indices[row], values, k)

    def spread(self, positions: Int64Array, more: int) -> Float64Array:
        """The values of the first k and some more at ascending positions; 0 for others."""
        found, first = np.zeros(len(positions)), slice(self.k + more)
        found[np.searchsorted(positions, self.positions[first])] = self.values[first]
        return found


@dataclass(frozen=True, slots=True)
class _Margin:
    """By how much one prompt's score is above another's, and what pairs can take from it.

    Without a set S of s pairs a score is N / B: N sums the products of the picture's weights and
    the prompt's, B is the norm of the prompt's, both of what is left and what moves up. As weights
    were scaled to B = 1, the rival wins only if N_r B_w >= N_w B_r. Of these, with sums over S,

        N_w >= score_w - sum(shares_w)            B_r >= 1 - steep * sum(r^2)
        N_r <= reach - sum(shares_r)              B_w <= 1 - sum(w^2 - next^2) / 2

    where `reach` is N_r with all that may move up, `next` the first weight that would, and `steep`
    the slope of the chord of 1 - sqrt(1 - x) up to the largest sum of s squares. Multiplied out and
    products of two sums bounded, that is a sum of one gain per pair, so its largest is that of the
    s largest gains.
    """

    picture: _Weights
    winner: _Weights
    rival: _Weights
    positions: Int64Array

    @staticmethod
    def of(picture: _Weights, winner: _Weights, rival: _Weights) -> _Margin:
        every = [weights.positions for weights in (picture, winner, rival)]
        return _Margin(picture, winner, rival, np.unique(np.concatenate(every)))

    def may_flip(self, size: int) -> bool:
        """False only if no set of so many pairs, or fewer, makes the rival win."""
        at = self.positions
        shares = self.picture.spread(at, 0) * self.winner.spread(at, 0)
        against = self.picture.spread(at, size) * self.rival.spread(at, size)
        squares = np.square(self.rival.spread(at, 0))
        most = _sum_largest(squares, size)
        if most >= 1.0:
            return True
        steep = (1.0 - np.sqrt(1.0 - most)) / most if most else 0.5
        score, reach = shares.sum(), against.sum()
        least = max(reach - _sum_largest(against, size), 0.0)
        gains = shares - against + steep * score * squares - least / 2 * self._norm_lost(at)
        return bool(_sum_largest(np.maximum(gains, 0.0), size) >= score - reach - _ROUNDING)

    def _norm_lost(self, at: Int64Array) -> Float64Array:
        """What the square of the winner's norm loses at least with each pair."""
        after = self.winner.values[self.winner.k : self.winner.k + 1].sum()
        lost: Float64Array = np.maximum(np.square(self.winner.spread(at, 0)) - after**2, 0.0)
        return lost


def _sum_largest(values: Float64Array, count: int) -> float:
    if count < len(values):
        values = np.partition(values, len(values) - count)[len(values) - count :]
    return float(values.sum())


def _leave_out(near: Neighbors, gone: Sequence[int], k: int) -> Neighbors:
    """The k nearest, or as many as there are, without some."""
    there = ~np.isin(near.indices, gone)
    k = min(k, int(there.sum(axis=1).min(initial=k)))
    first = np.argsort(~there, axis=1, kind="stable")[:, :k]
    indices = np.take_along_axis(near.indices, first, axis=1)
    return Neighbors(indices, np.take_along_axis(near.similarities, first, axis=1))
