"""Products of float16 rows with one vector: right to the error that search reckons with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance import row_products as module
from asif_lance.fast_products import float32_error
from asif_lance.row_products import row_products, widens

pytestmark = pytest.mark.skipif(not widens(), reason="this processor cannot widen float16")


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 40),
    d=st.integers(0, 200),
    every=st.integers(1, 3),
    turned=st.booleans(),
)
def test_they_are_those_of_float64_to_within_the_bound(seed, n, d, every, turned):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(d, n) if turned else (n, d)).astype(np.float16)
    rows = (rows.T if turned else rows)[::every]
    vector = rng.normal(size=d).astype(np.float32)
    out = torch.full((len(rows) + 1,), 7.0)
    row_products(torch.from_numpy(rows), torch.from_numpy(vector), out[: len(rows)])
    exact = rows.astype(float) @ vector.astype(float)
    norms = np.linalg.norm(rows.astype(float), axis=1) * np.linalg.norm(vector.astype(float))
    assert (np.abs(out[: len(rows)].numpy() - exact) <= norms * float32_error(d)).all()
    assert out[len(rows)] == 7  # and nothing behind them is written


def test_the_smallest_and_largest_numbers_are_widened_as_they_are():
    rows = torch.tensor([[2.0**-24], [-(2.0**-14)], [65504.0], [0.0]], dtype=torch.float16)
    out = torch.empty(4)
    row_products(rows, torch.ones(1), out)
    assert out.tolist() == rows[:, 0].tolist()


def test_a_processor_that_cannot_widen_is_told_so(monkeypatch):
    monkeypatch.setattr(module, "_kernel", lambda: None)
    assert not widens()
    with pytest.raises(RuntimeError, match="no instruction that widens"):
        row_products(torch.ones((1, 1), dtype=torch.float16), torch.ones(1), torch.empty(1))
