"""Confidence and calibration against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.errors import InputError
from asif_lance.evaluation.calibration import (
    bin_by_confidence,
    calibration_error,
    measure_confidence,
)


def test_confidence_is_the_best_scores_share_of_all() -> None:
    found = measure_confidence(np.array([[0.3, 0.1], [0.2, 0.2], [0.0, 0.0]]))
    assert found == pytest.approx([0.75, 0.5, 0.0])


def test_the_error_is_the_mean_gap_of_the_bins() -> None:
    confidence = np.array([0.95, 0.91, 0.55, 0.0])
    bins = bin_by_confidence(confidence, np.array([True, False, True, False]))
    assert [(b.low, b.high, b.pictures) for b in bins] == [(0, 0.1, 1), (0.5, 0.6, 1), (0.9, 1, 2)]
    assert bins[2].confidence == pytest.approx(0.93)
    assert bins[2].accuracy == 0.5
    assert calibration_error(bins) == pytest.approx((0 + 0.45 + 2 * 0.43) / 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_every_prediction_is_in_one_bin_and_the_error_is_a_share(
    told: list[tuple[float, bool]],
) -> None:
    confidence, right = np.array([c for c, _ in told]), np.array([r for _, r in told])
    bins = bin_by_confidence(confidence, right)
    assert sum(b.pictures for b in bins) == len(told)
    assert all(b.low <= b.confidence <= b.high + 1e-12 for b in bins)
    assert 0 <= calibration_error(bins) <= 1


def test_a_confidence_above_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        bin_by_confidence(np.array([1.5]), np.array([True]))
