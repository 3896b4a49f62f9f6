"""Intervals and tests for shares of right answers, paired picture by picture."""

from __future__ import annotations

import math

import numpy as np

from asif_lance.records import BoolArray, Float64Array

RESAMPLES, SEED = 10_000, 0


Interval = tuple[float, float]


def bootstrap(values: BoolArray | Float64Array) -> Interval:
    """95 % percentile interval of the mean of (n,) values; the same for the same values."""
    draw = np.random.default_rng(SEED).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[draw].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that both models are equally good where they differ."""
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / (1 << n)
    return min(1.0, 2 * tail)
