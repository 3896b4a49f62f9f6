"""Confidence: how probable is an answer, which labels are possible, or is it none of them?

Scores are cosines of relative vectors. They become probabilities by a softmax whose sharpness (the
inverse of the usual temperature) makes the true labels of the calibrating pictures most likely.
Those are labelled pictures of the kind that is to be classified, or the self-test's, which needs no
label. The latter's pictures are easier than others, so where a picture's scores spread less than
those of the lowest quarter of the self-test's, its sharpness is lowered in proportion.

By labelled pictures the set of possible labels is conformal (Vovk et al. 2005; the threshold of
Sadinle et al. 2019): the labels that are as probable as the true ones of the calibrating pictures
usually are. For pictures of the same kind as the calibrating ones, the true label is among them in
at least the stated share of cases, whatever the model. In the same way a picture is told to show
none of the labels if its best score is as low as in less than the rest of the cases.

The self-test's pictures are another kind than yours, so they state no coverage. Possible are then
the most probable labels that together have the asked probability: where scores spread little, and
sharpness is lowered, those are more labels, which a threshold learnt on other pictures would not
allow for. `evaluate --confidence` measures how often the true label is among them.

A few pictures that are all answered rightly make the sharpness as high as it can be, and say little
about rare errors. So no probability is stated more exactly than n pictures can show: by Laplace's
rule of succession, an answer that is always right in n cases is right in the next one with a
probability of (n + 1) / (n + 2), and what is left is shared by the other labels. Fewer than 20
pictures are refused, as by the self-test.

A calibration follows from the version, the recipe and the labels (and the labelled pictures, if
any). Nothing is kept: after pairs were deleted or forgotten the next one knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from asif_lance.errors import InputError
from asif_lance.evaluation.labelled_pictures import check_enough_pictures
from asif_lance.evaluation.self_test import sample_self_test
from asif_lance.model import LabelSet, Model, Prediction
from asif_lance.records import BoolArray, Float64Array, Int64Array, PictureKind

COVERAGE = 0.9

#: What a calibration is made of.
SELF_TEST, LABELLED = "self-test", "labelled pictures"

_LOW_SHARE = 0.1  # of the calibrating pictures, whose best scores count as low
_SHARPNESS = (0.1, 1000.0)  # scores lie in [0, 1]
_LOW_SPREAD = 0.25  # the share of the self-test's pictures below which spread is low


@dataclass(frozen=True, slots=True)
class Confidence:
    """What is known of one answer.

    Attributes:
        probabilities: of the labels, best first, as in the prediction's ranking.
        possible: the labels that are possible, best first.
        none: whether the picture shows none of the labels, to all appearance.
        low: share of the calibrating pictures whose best score is as low as this one's.
    """

    probabilities: tuple[float, ...]
    possible: tuple[str, ...]
    none: bool
    low: float


@dataclass(frozen=True)
class Calibration:
    """What n pictures say of a version's scores for a label set.

    Attributes:
        source: `self-test` or `labelled pictures`.
        sharpness: what scores are multiplied with before the softmax.
        spread: standard deviation of a picture's scores below which sharpness is lowered; 0 for
            never.
        true: (n,) ascending probabilities of the true labels.
        best: (n,) ascending best scores.
        nearest: (n,) ascending similarities to the most similar pair.
    """

    source: str
    sharpness: float
    spread: float
    true: Float64Array
    best: Float64Array
    nearest: Float64Array

    @property
    def pictures(self) -> int:
        """How many it was made of."""
        return len(self.true)

    @cached_property
    def low_limits(self) -> tuple[float, float]:
        """The best score and the similarity to the most similar pair that count as low."""
        low, far = (np.quantile(known, _LOW_SHARE) for known in (self.best, self.nearest))
        return float(low), float(far)

    def probabilities(self, scores: Float64Array) -> Float64Array:
        """(m, c) probabilities of the labels from (m, c) scores."""
        sharpness = np.full(len(scores), self.sharpness)
        if self.spread > 0:
            sharpness *= np.minimum(scores.std(axis=1) / self.spread, 1.0)
        return limit_exactness(softmax(sharpness[:, None] * scores, axis=1), self.pictures)

    @property
    def states_coverage(self) -> bool:
        """Whether the true label is possible as often as asked, for pictures of the same kind."""
        return self.source == LABELLED

    def possible(self, probabilities: Float64Array, coverage: float) -> BoolArray:
        """(m, c) whether labels are possible, by their (m, c) probabilities.

        Raises:
            InputError: a coverage that means nothing.
        """
        if self.states_coverage:
            return probabilities >= self.threshold(coverage)
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ranked = np.take_along_axis(probabilities, order, axis=1)
        missing = np.cumsum(ranked, axis=1) - ranked < check_coverage(coverage)
        found = np.empty(probabilities.shape, dtype=np.bool_)
        np.put_along_axis(found, order, missing, axis=1)
        return found

    def threshold(self, coverage: float) -> float:
        """The probability from which on a label is possible; 0 where n pictures are too few."""
        rank = int(np.floor((1 - check_coverage(coverage)) * (self.pictures + 1) + 1e-9))
        return float(self.true[rank - 1]) if rank else 0.0

    def share_as_low(self, best: Float64Array) -> Float64Array:
        """(m,) conformal p-values of (m,) best scores: how usual is one so low?"""
        lower = np.searchsorted(self.best, best, side="right")
        return np.asarray((lower + 1) / (self.pictures + 1), dtype=np.float64)

    def assess(self, prediction: Prediction, coverage: float = COVERAGE) -> Confidence:
        """What is known of one answer.

        Args:
            prediction: of the version, recipe and labels that were calibrated.
            coverage: the share of pictures whose true label shall be possible (by the self-test,
                the probability that the possible labels shall have together), and of those that
                show one of the labels that shall not be told to show none.

        Raises:
            InputError: a coverage that means nothing.
        """
        scores, (best,) = score_matrix([prediction], [prediction.label])
        found = self.probabilities(scores)
        possible = self.possible(found, coverage)[0]
        numbers = {name: i for i, name in enumerate(prediction.evidence.labels.names)}
        shares = {name: float(found[0, numbers[name]]) for name, _ in prediction.ranking}
        low = float(self.share_as_low(scores[:, best])[0])
        return Confidence(
            probabilities=tuple(shares.values()),
            possible=tuple(name for name in shares if possible[numbers[name]]),
            none=prediction.score <= 0 or low <= 1 - coverage,
            low=low,
        )


def limit_exactness(probabilities: Float64Array, pictures: int) -> Float64Array:
    """(m, c) probabilities as exactly as n calibrating pictures can know them.

    None is below 1 / (n + 2) by the number of other labels, or above (n + 1) / (n + 2).
    """
    others = probabilities.shape[1] - 1
    if not others:
        return probabilities
    found = np.maximum(probabilities, 1 / ((pictures + 1) * others))
    return np.asarray(found / found.sum(axis=1, keepdims=True), dtype=np.float64)


def check_coverage(coverage: float) -> float:
    """Pass a coverage between 0 and 1.

    Raises:
        InputError: it is not.
    """
    if not 0 < coverage < 1:
        raise InputError(f"a coverage lies between 0 and 1, not at {coverage:g}")
    return coverage


def fit_sharpness(scores: Float64Array, truths: Int64Array) -> float:
    """The sharpness under which (m,) true labels are most likely, given (m, c) scores."""
    low, high = np.log(_SHARPNESS)

    def loss(log_sharpness: float) -> float:
        return float(log_losses(scores, truths, float(np.exp(log_sharpness))).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def log_losses(scores: Float64Array, truths: Int64Array, sharpness: float) -> Float64Array:
    """(m,) minus the logarithm of the true labels' probabilities."""
    logs = log_softmax(sharpness * scores, axis=1)
    return np.asarray(-logs[np.arange(len(truths)), truths], dtype=np.float64)


def calibrate_by_self_test(model: Model, labels: LabelSet) -> Calibration:
    """Calibrate without any labelled picture.

    Args:
        model: the version with its recipe.
        labels: compiled by it. Of very many, some stand for all.

    Raises:
        InputError: too few pairs for a self-test.
    """
    test = sample_self_test(model, labels.prompts)
    scores, near = test.scores(model, labels)
    spread = float(np.quantile(scores.std(axis=1), _LOW_SPREAD))
    nearest = near.similarities[:, 0].astype(np.float64)
    return _calibrate(SELF_TEST, scores, test.truths, nearest, spread)


def calibrate_by_pictures(predictions: Sequence[Prediction], truths: Sequence[str]) -> Calibration:
    """Calibrate on what was predicted for labelled pictures.

    Raises:
        InputError: fewer than 20.
    """
    check_enough_pictures(len(predictions))
    scores, numbers = score_matrix(predictions, truths)
    return _calibrate(LABELLED, scores, numbers, nearest_similarities(predictions), 0.0)


def _calibrate(
    source: str,
    scores: Float64Array,
    truths: Int64Array,
    nearest: Float64Array,
    spread: float,
) -> Calibration:
    sharpness, unknown = fit_sharpness(scores, truths), np.zeros(len(truths))
    found = Calibration(source, sharpness, spread, unknown, np.sort(scores.max(axis=1)), nearest)
    true = found.probabilities(scores)[np.arange(len(truths)), truths]
    return replace(found, true=np.sort(true), nearest=np.sort(nearest))


def score_matrix(
    predictions: Sequence[Prediction], truths: Sequence[str]
) -> tuple[Float64Array, Int64Array]:
    """(m, c) scores with the labels in their set's order, and (m,) the true ones' numbers."""
    names = predictions[0].evidence.labels.names
    numbers = {name: i for i, name in enumerate(names)}
    scores = np.empty((len(predictions), len(names)))
    for row, prediction in zip(scores, predictions, strict=True):
        row[[numbers[name] for name, _ in prediction.ranking]] = [s for _, s in prediction.ranking]
    return scores, np.array([numbers[truth] for truth in truths], dtype=np.int64)


def nearest_similarities(predictions: Sequence[Prediction]) -> Float64Array:
    """(m,) similarity of each picture and the pair most like it."""
    return np.array([p.evidence.similarities[0] for p in predictions], dtype=np.float64)


def compare_kinds(
    calibration: Calibration, best: Float64Array, nearest: Float64Array
) -> PictureKind:
    """Compare (m,) best scores and similarities to the most similar pair with the calibration's."""
    low, far = calibration.low_limits
    return PictureKind(
        len(best),
        float((best <= low).mean()),
        float((nearest <= far).mean()),
        float(calibration.share_as_low(np.array([low]))[0]),
    )
