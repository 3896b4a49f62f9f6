"""Vectors of forgotten pairs are found by their direction, however long, and no others are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.forgetting.content import SAME_COSINE, Content

SEEDS = st.integers(0, 2**32 - 1)


def find(sought: np.ndarray, vectors: np.ndarray) -> set[int]:
    flat = pa.array(sought.astype(np.float16).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, sought.shape[1])
    content = Content(b"a test", pa.table({"image_vector": column}))
    return {row for row, _ in content.match_vectors(vectors)}


def directions(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


@given(SEEDS, st.integers(2, 200), st.floats(-7, 0), st.booleans(), st.booleans())
def test_what_is_near_in_direction_is_found_and_nothing_else(
    seed: int, width: int, nearness: float, sparse: bool, empty_begin: bool
) -> None:
    """At any distance, also where the first coordinates say little or nothing."""
    dice = np.random.default_rng(seed)
    sought = dice.normal(size=(4, width))
    sought[:, dice.random(width) < 0.9 * sparse] = 0
    sought[:2, :40] *= 1e-3 * (not empty_begin)
    sought = sought.astype(np.float16).astype(np.float64)
    near = np.repeat(directions(sought), 8, axis=0)
    near += 10**nearness * dice.normal(size=near.shape) / width**0.5
    others = dice.normal(size=(20, width))
    vectors = np.vstack([near, others, np.zeros((1, width))]) * 10 ** dice.uniform(-3, 2)
    vectors = vectors.astype(np.float32)
    cosines = (directions(vectors.astype(np.float64)) @ directions(sought).T).max(axis=1)
    found = find(sought, vectors)
    assert set(np.flatnonzero(cosines > SAME_COSINE + 1e-5).tolist()) <= found
    assert found <= set(np.flatnonzero(cosines > SAME_COSINE - 1e-5).tolist())


@given(SEEDS, st.integers(1, 300))
def test_a_vector_is_found_as_it_is_stored(seed: int, width: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(9, width)).astype(np.float16)
    assert {3, 7} <= find(vectors[[3, 7]], vectors)
