"""Calibration: is a model that is sure more often right?

A score is a cosine of relative vectors, not a probability. Confidence is here the best label's
*share* of all labels' scores: score / (sum of the scores), 1 / labels when all are equal. It needs
no temperature, so nothing is fitted. The expected calibration error is that of Guo et al. (2017):
predictions in bins of equal width, the mean of |share right - mean confidence| over predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asif_lance.errors import InputError
from asif_lance.records import BoolArray, Float64Array

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about the same confidence.

    Attributes:
        low: least confidence, exclusive but for 0.
        high: greatest confidence, inclusive.
        pictures: how many.
        confidence: their mean confidence.
        accuracy: the share that is right.
    """

    low: float
    high: float
    pictures: int
    confidence: float
    accuracy: float


def measure_confidence(scores: Float64Array) -> Float64Array:
    """(m,) each row's greatest score as a share of its (m, c) scores; 0 where all are 0."""
    total = scores.sum(axis=1)
    best = scores.max(axis=1, initial=0.0)
    confidence: Float64Array = best / np.where(total > 0, total, 1.0)
    return confidence


def bin_by_confidence(
    confidence: Float64Array, correct: BoolArray, bins: int = BINS
) -> tuple[Bin, ...]:
    """The bins of equal width that have predictions, from unsure to sure.

    Args:
        confidence: (m,) in [0, 1].
        correct: (m,) whether each prediction is right.
        bins: how many cut [0, 1].

    Raises:
        InputError: confidences outside [0, 1], or another number of them.
    """
    if len(confidence) != len(correct) or np.any((confidence < 0) | (confidence > 1)):
        raise InputError("confidences must be in [0, 1], one per prediction")
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return tuple(
        Bin(
            low=i / bins,
            high=(i + 1) / bins,
            pictures=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(correct[inside].mean()),
        )
        for i in np.unique(place).tolist()
        for inside in [place == i]
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean of |accuracy - confidence| over predictions."""
    total = sum(b.pictures for b in bins)
    return sum(b.pictures * abs(b.accuracy - b.confidence) for b in bins) / total
