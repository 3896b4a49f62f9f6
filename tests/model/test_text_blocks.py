"""Label sets are compiled block by block, in memory or in a file: the vectors are the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.errors import StorageError
from asif_lance.model import (
    Ensemble,
    LabelSet,
    Prompts,
    build_label_set,
    label_compiler,
    text_blocks,
)
from asif_lance.records import Neighbors, RelativeVectors
from asif_lance.relative import make_recipe, relative_vectors, scores
from asif_lance.search import unit_queries

ANCHORS, K = 300, 25


def neighbors(rng: np.random.Generator, count: int) -> Neighbors:
    indices = np.array([rng.choice(ANCHORS, K, replace=False) for _ in range(count)])
    similarities = np.sort(rng.uniform(-0.2, 1, (count, K)).astype(np.float32))[:, ::-1]
    return Neighbors(indices.reshape(count, K), similarities.reshape(count, K))


def compiled(sizes: list[int], ensemble: Ensemble, near: Neighbors) -> LabelSet:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    vectors = unit_queries(np.ones((len(owner), 3)))
    prompts = Prompts(tuple(map(str, range(len(sizes)))), owner, vectors, ensemble)
    return build_label_set(prompts, near, make_recipe("paper", k=K, p=2.0), ANCHORS, "v1")


def dense(vectors: RelativeVectors) -> np.ndarray:
    wide = np.zeros((len(vectors.values), ANCHORS), np.float32)
    for row, indices, values in zip(wide, vectors.indices, vectors.values, strict=True):
        row[indices[values > 0]] = values[values > 0]
    return wide


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    ensemble=st.sampled_from(["max", "mean-relative"]),
    at_once=st.integers(1, 20),
    in_memory=st.sampled_from([0, 2000, 2**30]),
)
def test_neither_blocks_nor_the_file_change_a_bit(seed, sizes, ensemble, at_once, in_memory):
    rng = np.random.default_rng(seed)
    near, images = neighbors(rng, sum(sizes)), relative_vectors(neighbors(rng, 4), 2.0, ANCHORS)
    whole = compiled(sizes, ensemble, near)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_compiler, "PROMPTS_AT_ONCE", at_once)
        patch.setattr(text_blocks, "BYTES_IN_MEMORY", in_memory)
        parts = compiled(sizes, ensemble, near)
    np.testing.assert_array_equal(parts.owner, whole.owner)
    np.testing.assert_array_equal(parts.compiled.anchors, whole.compiled.anchors)
    expected = dense(whole.compiled.vectors())
    np.testing.assert_array_equal(dense(parts.compiled.vectors()), expected)
    np.testing.assert_array_equal(scores(images, parts.compiled), scores(images, whole.compiled))
    for row in range(len(whole.owner)):
        np.testing.assert_array_equal(dense(parts.compiled.vector(row))[0], expected[row])


def test_a_label_sets_vectors_are_those_of_its_neighbors(rng):
    near = neighbors(rng, 9)
    expected = relative_vectors(near, 2.0, ANCHORS)
    found = compiled([2, 3, 4], "max", near).compiled.vectors()
    np.testing.assert_array_equal(dense(found), dense(expected))


def test_blocks_beyond_the_limit_are_there_again_and_again(rng, monkeypatch):
    monkeypatch.setattr(label_compiler, "PROMPTS_AT_ONCE", 2)
    monkeypatch.setattr(text_blocks, "BYTES_IN_MEMORY", 1500)
    blocks = compiled([1] * 7, "max", neighbors(rng, 7)).compiled.blocks
    for _ in range(2):
        assert [block.count for block in blocks] == [2, 2, 2, 1]


def test_no_room_for_the_file_is_told_with_its_place(rng, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(text_blocks, "BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match=r"bytes of label vectors into .*nowhere: No such file"):
        compiled([1], "max", neighbors(rng, 1))
