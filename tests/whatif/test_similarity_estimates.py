"""Estimates of similarities are off by their bound at most, whatever torch is told."""

from __future__ import annotations

import numpy as np
import pytest
from torch_settings import MODES, SWITCHES, switched

from asif_lance.search import Blocks, unit_queries
from asif_lance.whatif.similarity_estimates import SimilarityEstimator


@pytest.mark.parametrize("setting", [*SWITCHES, *MODES])
def test_estimates_are_off_by_their_bound_at_most(setting: str) -> None:
    rng = np.random.default_rng(0)
    queries = unit_queries(rng.normal(size=(40, 300)))
    anchors = unit_queries(rng.normal(size=(500, 300))).astype(np.float16)
    anchors[:40] = queries  # similarities near 1, and near 0
    true = queries.astype(np.float64) @ anchors.astype(np.float64).T
    with MODES[setting]() if setting in MODES else switched(setting):
        found = SimilarityEstimator(queries, Blocks(anchors), None)(slice(None), np.arange(500))
    assert (np.abs(found.values - true) <= found.error[:, None]).all()
    assert found.values.dtype == np.float32
