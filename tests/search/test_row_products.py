"""Products of rows with vectors: right to the error that search reckons with, or to the bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.search import compiled
from asif_lance.search.compiled import compiles
from asif_lance.search.fast_products import float32_error
from asif_lance.search.query_grid import on_grid
from asif_lance.search.row_products import pair_products, row_products

pytestmark = pytest.mark.skipif(not compiles(), reason="this processor cannot widen float16")


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


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    p=st.integers(0, 40),
    d=st.integers(0, 200),
    dtype=st.sampled_from([np.float16, np.float32]),
    beside=st.booleans(),
)
def test_products_of_pairs_are_those_of_fractions_rounded_once(seed, p, d, dtype, beside):
    rng = np.random.default_rng(seed)
    rows = np.linspace(-1, 1, 7 * d).reshape(7, d) / max(d, 1) + rng.normal(size=(7, d)) * 1e-5
    rows = rows.astype(dtype)
    vectors = on_grid(rng.normal(size=(4, d)))[0].astype(float)
    at, owners = rng.integers(7, size=p), rng.integers(3, size=p)
    out = np.full((2, p), 7.0)
    pair_products(
        rows.ctypes.data + at * rows.strides[0],
        owners,
        vectors[:3],
        vectors[3] if beside else None,
        out,
        torch.from_numpy(rows).dtype,
    )
    grid = 2**43  # what is lost of a float32 component is below it
    whole = np.rint(rows[at].astype(float) * grid) / grid
    for i in range(p):
        assert out[0, i] == math.fsum(whole[i] * vectors[owners[i]])
        assert out[1, i] == (math.fsum(whole[i] * vectors[3]) if beside or not d else 7)


def test_a_row_that_holds_nan_has_no_product():
    for dtype in (np.float16, np.float32):
        rows = np.array([[0.5] * 40, [0.5] * 39 + [np.nan]], dtype=dtype)
        at = rows.ctypes.data + np.arange(2) * rows.strides[0]
        out = np.empty((1, 2))
        ones = np.ones((1, 40))
        pair_products(at, np.zeros(2, int), ones, None, out, torch.from_numpy(rows).dtype)
        assert out[0, 0] == 20
        assert np.isnan(out[0, 1])


def test_a_processor_that_cannot_widen_is_told_so(monkeypatch):
    monkeypatch.setattr(compiled, "_llvm", lambda: None)
    monkeypatch.setattr(compiled, "_compiled", compiled._compiled.__wrapped__)
    assert not compiles()
    with pytest.raises(RuntimeError, match="no instruction that widens"):
        row_products(torch.ones((1, 1), dtype=torch.float16), torch.ones(1), torch.empty(1))
