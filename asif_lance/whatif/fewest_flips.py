"""The fewest pairs whose removal gives a picture another label.

A label's score is a dot product of vectors that are cut to their k largest similarities and
normalised, and a removed pair lets the next one in (and moves the mean, where a recipe has one). So
pairs' shares do not simply subtract, and the largest shares need not be the fewest pairs.

1. Towards each of the strongest rivals, the pair is taken out that lowers the winner's score most
   beyond the rival's, again and again, until the label is another one; then those that turn out
   not to be needed are put back. Means and metric are held meanwhile, so that it takes no search.
2. The state itself is asked without these pairs. If they do not flip it, more are taken out there.
3. No fewer do it than a bound on what pairs contribute says. Where something is left to find, all
   smaller sets of all pairs are tried in the state itself, the small ones first, as far as `tries`
   go: if all were tried without a find, or the bound left none, the answer is exact, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, inf

import numpy as np

from asif_lance.model import Model, Prediction, Prompts
from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.whatif.changes import PredictionChange
from asif_lance.whatif.held_measures import HeldMeasures
from asif_lance.whatif.hypothetical import without_pairs

#: Rivals of the winner that are tried, best first.
RIVALS = 3

_MOST_PROMPTS = 4096  # whose neighbors are held in memory

_Ask = Callable[[Sequence[int]], Prediction]


@dataclass(frozen=True, slots=True)
class FewestFlip:
    """Pairs without which a picture has another label.

    Attributes:
        pair_ids: the pairs, those that mattered most first.
        change: the prediction with and without them.
        exact: whether it is certain that no fewer pairs do it.
        at_least: no fewer pairs do it by what they contribute themselves. Under a recipe with a
            mean or a metric, which every pair moves a little, some might do it by that.
    """

    pair_ids: tuple[str, ...]
    change: PredictionChange
    exact: bool
    at_least: int


def find_fewest_flip(
    model: Model,
    vector: Float32Array,
    prompts: Prompts,
    *,
    most: int = 50,
    tries: int = 500,
    seconds: float = inf,
) -> FewestFlip | None:
    """The fewest pairs whose removal gives a (d,) image vector another label, as far as is tried.

    Args:
        model: the model.
        vector: the picture's embedding.
        prompts: the labels.
        most: pairs that may go.
        tries: smaller sets that are tried; each costs two searches, or less.
        seconds: begin no further search after so long.

    Returns:
        None if no way was found with that many pairs.
    """
    state, most = _State(model, vector, prompts, seconds), min(most, model.anchors.count - 1)
    if len(state.before.ranking) == 1:
        return None
    held = None
    if state.before.evidence.labels.taught is None and len(prompts.vectors) <= _MOST_PROMPTS:
        held = HeldMeasures(model, vector, prompts, most)
    found = state.find(held.without if held else state.without, most)
    size = most + 1 if found is None else len(found)
    least = held.bound_fewest(state.before, size) if held else 1
    if least == size and model.recipe.measures == ("cosine", "cosine"):
        smaller, sure = None, True
    else:
        smaller, sure = state.try_smaller(size, tries)
    best = found if smaller is None else smaller
    if best is None:
        return None
    change = PredictionChange(state.before, state.without(best))
    least = len(best) if sure else min(least, len(best))
    return FewestFlip(tuple(model.anchors.ids(np.array(best))), change, sure, least)


class _State:
    """One picture and its labels, answered by the model without any pairs."""

    def __init__(
        self, model: Model, vector: Float32Array, prompts: Prompts, seconds: float
    ) -> None:
        self._model, self._vector, self._prompts = model, vector[None], prompts
        self._until = time.monotonic() + seconds
        (self.before,) = model.classify_vectors([""], self._vector, model.compile(prompts))

    def without(self, gone: Sequence[int]) -> Prediction:
        ids = self._model.anchors.ids(np.array(gone))
        after, _ = without_pairs(self._model, ids)
        (found,) = after.classify_vectors([""], self._vector, after.compile(self._prompts))
        return found

    def find(self, ask: _Ask, most: int) -> list[int] | None:
        """Pairs without which the label is another one, by asking for many sets of them."""
        rivals = [label for label, _ in self.before.ranking[1 : 1 + RIVALS]]
        removed = [self._remove_towards(ask, rival, most) for rival in rivals]
        flips = [self._put_back(ask, gone) for gone in removed if gone]
        best: list[int] | None = None
        for gone in sorted(flips, key=len):
            sure = self._confirm(gone, most if best is None else len(best) - 1)
            best = sure or best
        return best

    def try_smaller(self, size: int, tries: int) -> tuple[list[int] | None, bool]:
        """Fewer pairs than `size` that flip the label, and whether it is sure that none do."""
        anchors = self._model.anchors
        positions = np.flatnonzero(anchors.there).tolist()
        for count in range(1, size):
            tries -= comb(len(positions), count)
            if tries < 0:
                return None, False
            for gone in combinations(positions, count):
                if self._is_late:
                    return None, False
                if self._flips(self.without(gone)):
                    return list(gone), True
        return None, True

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _flips(self, now: Prediction) -> bool:
        return now.label != self.before.label

    def _remove_towards(self, ask: _Ask, rival: str, most: int) -> list[int] | None:
        gone, now = list[int](), self.before
        while len(gone) < most and not self._is_late:
            pair = _strongest(now, self.before.label, rival)
            if pair is None:
                return None
            gone.append(pair)
            now = ask(gone)
            if self._flips(now):
                return gone
        return None

    def _put_back(self, ask: _Ask, gone: list[int]) -> list[int]:
        """The same without those that are not needed."""
        for pair in gone[:0:-1]:
            fewer = [other for other in gone if other != pair]
            if not self._is_late and self._flips(ask(fewer)):
                gone = fewer
        return gone

    def _confirm(self, gone: list[int], most: int) -> list[int] | None:
        """Pairs that flip the label in the state without them: these, and more if need be."""
        while len(gone) <= most and not self._is_late:
            now = self.without(gone)
            if self._flips(now):
                return gone
            pair = _strongest(now, now.label, now.ranking[1][0])
            if pair is None:
                return None
            gone = [*gone, pair]
        return None


def _strongest(now: Prediction, winner: str, rival: str) -> int | None:
    """The pair whose removal lowers the winner's score most beyond the rival's, to first order.

    A pair's share goes, and the norm of the label's vector shrinks, which raises what is left.
    """
    evidence, scores = now.evidence, dict(now.ranking)
    gains: dict[int, float] = {}
    for label, sign in ((winner, 1.0), (rival, -1.0)):
        positions, shares = evidence.shares(label)
        _add(gains, positions, sign * shares)
        text = evidence.text(label)
        _add(gains, text.indices[0], -sign * scores[label] / 2 * np.square(text.values[0]))
    best = max(gains.values(), default=0.0)
    if best <= 0:
        return None
    tied = np.array([pair for pair, gain in gains.items() if gain == best])
    return int(tied[np.argmin(evidence.anchors.tie_order(tied))])


def _add(gains: dict[int, float], positions: Int64Array, values: Float64Array) -> None:
    for position, value in zip(positions.tolist(), values.tolist(), strict=True):
        gains[position] = gains.get(position, 0.0) + value
