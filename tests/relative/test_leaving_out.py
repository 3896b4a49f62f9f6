"""A picture is compared with others as if it had no say in the mean and the metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.relative import turn_centred_without, turn_whitened_without
from asif_lance.search import unit_queries


def crowded(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    """Unit vectors as stored, around a common direction, which differ most in the first numbers."""
    rows = rng.standard_normal((n, width)) / np.sqrt(np.arange(1, width + 1)) + 1
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float16)


def whitened_densely(rows: np.ndarray, query: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Products with all rows by the definition, fitted on the others but for the ridge."""
    wide = rows.astype(np.float64)
    others = np.delete(wide, own, axis=0)
    apart = wide - wide.sum(axis=0) / (len(wide) + 1)
    mean = others.sum(axis=0) / (len(others) + 1)
    ridge = np.square(apart).sum() / wide.shape[1]
    metric = np.linalg.inv((others - mean).T @ (others - mean) + ridge * np.eye(wide.shape[1]))
    turned = metric @ (query - mean) * ridge
    return (wide - mean) @ turned / np.sqrt((query - mean) @ turned)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 60),
    width=st.sampled_from([8, 24, 48]),
    copies=st.integers(0, 5),
)
def test_the_metric_is_that_of_the_other_rows(seed: int, n: int, width: int, copies: int) -> None:
    """With fewer rows than dimensions as with more, and where no row is left."""
    rng = np.random.default_rng(seed)
    rows = crowded(rng, n, width)
    queries = unit_queries(crowded(rng, 3, width))
    own = [rng.permutation(n)[:copies] for _ in queries]
    turned, offset = turn_whitened_without(torch.from_numpy(rows), queries, own)
    found = turned.astype(np.float64) @ rows.T.astype(np.float64) + offset[:, None]
    for i, left_out in enumerate(own):
        expected = whitened_densely(rows, queries[i].astype(np.float64), left_out)
        np.testing.assert_allclose(found[i], expected, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), copies=st.integers(0, 5))
def test_the_mean_is_that_of_the_other_rows(seed: int, n: int, copies: int) -> None:
    rng = np.random.default_rng(seed)
    rows, queries = crowded(rng, n, 12), unit_queries(crowded(rng, 3, 12))
    own = [rng.permutation(n)[:copies] for _ in queries]
    mean = rows.astype(np.float64).sum(axis=0) / (n + 1)
    turned, offset = turn_centred_without(mean, n, queries, [rows[at] for at in own])
    for i, left_out in enumerate(own):
        others = np.delete(rows.astype(np.float64), left_out, axis=0)
        moved = others.sum(axis=0) / (len(others) + 1)
        apart = queries[i] - moved
        np.testing.assert_allclose(turned[i], apart / np.linalg.norm(apart), atol=1e-5)
        assert offset[i] == pytest.approx(-turned[i].astype(np.float64) @ moved, abs=1e-6)
