"""Intervals and tests for shares of right answers, and for two models on the same pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from asif_lance.errors import InputError
from asif_lance.records import BoolArray, Float64Array, Int64Array

RESAMPLES, SEED = 10_000, 0
TRIAL_RESAMPLES = 2_000  # of trials and pictures at once

Interval = tuple[float, float]


def check_seed(seed: int) -> None:
    """Pass a seed that random drawing can begin with.

    Raises:
        InputError: it is negative.
    """
    if seed < 0:
        raise InputError(f"a seed is a whole number from 0 on, not {seed}")


def share_interval(correct: BoolArray) -> Interval:
    """95 % Wilson interval of the share of (n,) answers that are right.

    It has a width even where all are right or all are wrong: 20 of 20 is 84 % to 100 %.
    """
    found = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def deviation(values: Sequence[float] | Float64Array) -> float | None:
    """Standard deviation of (n,) values (n - 1); None for a single one: it shows no spread."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def bootstrap_mean(values: Int64Array | Float64Array) -> Interval | None:
    """95 % percentile bootstrap interval of the mean of (n,) values; the same at every call.

    None for a single value: drawn again, it is always the same.

    How often each distinct value is drawn is multinomial, so the values themselves need not be:
    differences of right answers have three, -1, 0 and 1.
    """
    if len(values) < 2:
        return None
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(SEED)
    draws = rng.multinomial(len(values), counts / len(values), RESAMPLES)
    low, high = np.percentile(draws @ distinct / len(values), [2.5, 97.5])
    return float(low), float(high)


def bootstrap_trials(values: Float64Array) -> Interval | None:
    """95 % percentile bootstrap interval of the mean of trials' means; the same at every call.

    Trials and pictures are drawn again, independently: both were drawn once.

    Args:
        values: (trials, n), NaN where a trial did not test a picture; each tested some.
    """
    trials, n = values.shape
    if n < 2:
        return None
    rng, tested = np.random.default_rng(SEED), ~np.isnan(values)
    pictures = rng.multinomial(n, np.full(n, 1 / n), TRIAL_RESAMPLES)
    sums, counts = pictures @ np.where(tested, values, 0.0).T, pictures @ tested.T
    drawn = rng.multinomial(trials, np.full(trials, 1 / trials), TRIAL_RESAMPLES)
    means = (drawn * sums / np.maximum(counts, 1)).sum(axis=1) / trials
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mcnemar_test(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value that both models are equally good where they differ."""
    differing = only_first + only_second
    return float(binomtest(only_first, differing).pvalue) if differing else 1.0
