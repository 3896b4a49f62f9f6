"""The fewest pairs whose removal gives a picture another label.

A label's score is a dot product of vectors that are cut to their k largest similarities and
normalised, and a removed pair lets the next one in (and moves the mean, where a recipe has one). So
pairs' shares do not simply subtract, and the largest shares need not be the fewest pairs. Every
step here asks the state without the pairs itself:

1. Towards each of the strongest rivals, the pair is taken out that adds most to the winner's score
   beyond what it adds to the rival's, again and again, until the label is another one.
2. Pairs that turn out not to be needed are put back.
3. All smaller sets of all pairs are tried, the small ones first, as far as `tries` go. What they
   find is fewer; if all were tried without a find, the answer is exact, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

import numpy as np

from asif_lance.model import Model, Prediction, Prompts
from asif_lance.records import Float32Array
from asif_lance.whatif.changes import PredictionChange, compare_states
from asif_lance.whatif.hypothetical import without_pairs

#: Rivals of the winner that are tried, best first.
RIVALS = 3


@dataclass(frozen=True, slots=True)
class FewestFlip:
    """Pairs without which a picture has another label.

    Attributes:
        pair_ids: the pairs, those that mattered most first.
        change: the prediction with and without them.
        exact: whether it is certain that no fewer pairs do it.
    """

    pair_ids: tuple[str, ...]
    change: PredictionChange
    exact: bool


def find_fewest_flip(
    model: Model, vector: Float32Array, prompts: Prompts, *, most: int = 50, tries: int = 500
) -> FewestFlip | None:
    """The fewest pairs whose removal gives a (d,) image vector another label, as far as is tried.

    Args:
        model: the model.
        vector: the picture's embedding.
        prompts: the labels.
        most: pairs that may go.
        tries: smaller sets that are tried; each costs a search, or less.

    Returns:
        None if no way was found with that many pairs.
    """
    state = _States(model, vector, prompts)
    rivals = [label for label, _ in state.before.ranking[1 : 1 + RIVALS]]
    found = [state.remove_towards(rival, min(most, model.anchors.count - 1)) for rival in rivals]
    flips = [state.put_back(flip) for flip in found if flip is not None]
    return state.try_smaller(min(flips, key=lambda f: len(f.pair_ids), default=None), most, tries)


class _States:
    """One picture and its labels, answered by the model without any pairs."""

    def __init__(self, model: Model, vector: Float32Array, prompts: Prompts) -> None:
        self._model, self._vector, self._prompts = model, vector[None], prompts
        (self.before,) = model.classify_vectors([""], self._vector, model.compile(prompts))

    def without(self, pair_ids: Sequence[str]) -> PredictionChange:
        after, _ = without_pairs(self._model, pair_ids)
        (change,) = compare_states(self._model, after, [""], self._vector, self._prompts)
        return change

    def remove_towards(self, rival: str, most: int) -> FewestFlip | None:
        gone: list[str] = []
        now = self.before
        while len(gone) < most:
            pair = _strongest(now, self.before.label, rival)
            if pair is None:
                return None
            gone.append(pair)
            change = self.without(gone)
            if change.flips:
                return FewestFlip(tuple(gone), change, exact=len(gone) == 1)
            now = change.after
        return None

    def put_back(self, flip: FewestFlip) -> FewestFlip:
        for pair in flip.pair_ids[:0:-1]:
            fewer = tuple(other for other in flip.pair_ids if other != pair)
            if fewer and (change := self.without(fewer)).flips:
                flip = FewestFlip(fewer, change, exact=len(fewer) == 1)
        return flip

    def try_smaller(self, flip: FewestFlip | None, most: int, tries: int) -> FewestFlip | None:
        ids = self._ids()
        end = min(most + 1, len(ids)) if flip is None else len(flip.pair_ids)
        for size in range(1, end):
            tries -= comb(len(ids), size)
            if tries < 0:
                return flip
            for pair_ids in combinations(ids, size):
                if (change := self.without(pair_ids)).flips:
                    return FewestFlip(pair_ids, change, exact=True)
        return None if flip is None else replace(flip, exact=True)

    def _ids(self) -> list[str]:
        anchors = self._model.anchors
        return anchors.ids(np.flatnonzero(anchors.live))


def _strongest(now: Prediction, winner: str, rival: str) -> str | None:
    """The pair that adds most to the winner's score beyond what it adds to the rival's."""
    margins = dict(_shares(now, winner))
    for pair, share in _shares(now, rival):
        margins[pair] = margins.get(pair, 0.0) - share
    best = max(margins, key=lambda pair: (margins[pair], pair), default=None)
    return best if best is not None and margins[best] > 0 else None


def _shares(prediction: Prediction, label: str) -> Iterator[tuple[str, float]]:
    found = prediction.evidence.contributions(label)
    yield from zip(found.pair_ids, found.contributions.tolist(), strict=True)
