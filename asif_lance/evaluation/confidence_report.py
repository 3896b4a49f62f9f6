"""How far confidence is to be trusted: measured on pictures whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu

from asif_lance.evaluation.calibration import bin_by_confidence, calibration_error
from asif_lance.evaluation.confidence import (
    COVERAGE,
    Calibration,
    calibrate_by_pictures,
    calibrate_by_self_test,
    compare_kinds,
    nearest_similarities,
    score_matrix,
)
from asif_lance.evaluation.labelled_pictures import LEAST_PICTURES
from asif_lance.model import Model, Prediction
from asif_lance.records import BoolArray, Float64Array, Int64Array, PictureKind

_SEED = 0


@dataclass(frozen=True, slots=True)
class ConfidenceReport:
    """How far confidence is to be trusted, on pictures whose truth is known.

    Attributes:
        source: what it was calibrated on.
        calibrated_on: how many pictures those were; of two halves, the smaller.
        pictures: how many it was measured on.
        sharpness: the fitted one; of two halves, their mean.
        probability: mean probability of the answers.
        right: share of the answers that are right.
        calibration_error: expected calibration error of the answers' probabilities.
        ranks: how often a right answer is more probable than a wrong one (area under the ROC
            curve); None where all are right or all wrong.
        coverage: the stated one; by the self-test, the probability of the possible labels.
        covered: share of the pictures whose true label is possible.
        possible: mean number of possible labels.
        none: share told to show none of the labels, though all do.
        kind: the pictures beside those of the calibration.
    """

    source: str
    calibrated_on: int
    pictures: int
    sharpness: float
    probability: float
    right: float
    calibration_error: float
    ranks: float | None
    coverage: float
    covered: float
    possible: float
    none: float
    kind: PictureKind


def report_confidence(
    model: Model,
    predictions: Sequence[Prediction],
    truths: Sequence[str],
    coverage: float = COVERAGE,
) -> tuple[ConfidenceReport, ...]:
    """Measure confidence by the self-test, and by one half of the pictures on the other.

    The halves are drawn at random, and each calibrates for the other. Fewer than 40 pictures have
    none.
    """
    labels = predictions[0].evidence.labels
    everything = np.arange(len(predictions))
    found = [
        _report(
            [(calibrate_by_self_test(model, labels), everything)], predictions, truths, coverage
        )
    ]
    if len(predictions) >= 2 * LEAST_PICTURES:
        shuffled = np.random.default_rng(_SEED).permutation(len(predictions))
        halves = np.array_split(shuffled, 2)
        parts = [
            (calibrate_by_pictures(*_take(predictions, truths, own)), other)
            for own, other in ((halves[0], halves[1]), (halves[1], halves[0]))
        ]
        found.append(_report(parts, predictions, truths, coverage))
    return tuple(found)


def _take(
    predictions: Sequence[Prediction], truths: Sequence[str], chosen: Int64Array
) -> tuple[list[Prediction], list[str]]:
    return [predictions[i] for i in chosen], [truths[i] for i in chosen]


def _report(
    parts: Sequence[tuple[Calibration, Int64Array]],
    predictions: Sequence[Prediction],
    truths: Sequence[str],
    coverage: float,
) -> ConfidenceReport:
    """Measure calibrations, each on its own pictures, as one."""
    scores, numbers = score_matrix(predictions, truths)
    shares, covered = np.empty_like(scores), np.empty(scores.shape, dtype=bool)
    none = np.empty(len(scores), dtype=bool)
    kinds = []
    best, nearest = scores.max(axis=1), nearest_similarities(predictions)
    for calibration, at in parts:
        shares[at] = calibration.probabilities(scores[at])
        covered[at] = calibration.possible(shares[at], coverage)
        none[at] = calibration.share_as_low(best[at]) <= 1 - coverage
        kinds.append(compare_kinds(calibration, best[at], nearest[at]))
    rows = np.arange(len(scores))
    right = (scores.argmax(axis=1) == numbers) & (best > 0)
    told = shares.max(axis=1)
    return ConfidenceReport(
        source=parts[0][0].source,
        calibrated_on=min(calibration.pictures for calibration, _ in parts),
        pictures=len(scores),
        sharpness=float(np.mean([calibration.sharpness for calibration, _ in parts])),
        probability=float(told.mean()),
        right=float(right.mean()),
        calibration_error=calibration_error(bin_by_confidence(np.minimum(told, 1.0), right)),
        ranks=_ranks(told, right),
        coverage=coverage,
        covered=float(covered[rows, numbers].mean()),
        possible=float(covered.sum(axis=1).mean()),
        none=float((none | (best <= 0)).mean()),
        kind=_join_kinds(kinds),
    )


def _join_kinds(kinds: Sequence[PictureKind]) -> PictureKind:
    sizes = [kind.pictures for kind in kinds]
    low, far, usual = (
        float(np.average([getattr(k, of) for k in kinds], weights=sizes))
        for of in ("low", "far", "usual")
    )
    return PictureKind(sum(sizes), low, far, usual)


def _ranks(told: Float64Array, right: BoolArray) -> float | None:
    if right.all() or not right.any():
        return None
    above = mannwhitneyu(told[right], told[~right]).statistic
    return float(above / (right.sum() * (~right).sum()))
