"""Similarities that reach a floor: the same ones, whoever looks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.search import reaching as module
from asif_lance.search.reaching import reaching


@pytest.mark.parametrize("compiles", [True, False])
@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sixteens=st.integers(0, 9),
    width=st.sampled_from([1, 16, 48]),
    share=st.floats(0, 1),
)
def test_they_are_those_that_numpy_finds(compiles, seed, sixteens, width, share):
    rng = np.random.default_rng(seed)
    rows = sixteens * (16 if width == 1 else 1)
    scores = rng.normal(size=(rows, width)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = rng.choice([np.nan, -np.inf, np.inf, 0.5])
    floors = np.quantile(rng.normal(size=1000), 1 - share + rng.random(width) * share)
    floors = floors.astype(np.float32)
    floors[: width // 16] = rng.choice([np.inf, np.finfo(np.float32).min, 0.5])
    with pytest.MonkeyPatch.context() as patch:
        if not compiles:
            patch.setattr(module, "compiles", lambda: False)
        positions, values = reaching(torch.from_numpy(scores), floors)
    expected = np.flatnonzero(scores >= floors)
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_array_equal(values, scores.ravel()[expected])
