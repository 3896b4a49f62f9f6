"""Relative vectors, scores and attributions against naive loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import asif_scores, relative_vector

from asif_lance.errors import DimensionError, InputError
from asif_lance.records import Neighbors, RelativeVectors
from asif_lance.relative import vectors
from asif_lance.relative.vectors import (
    CompiledTexts,
    attributions,
    best_scores,
    compile_texts,
    mean_vectors,
    relative_vectors,
    scores,
    single_vector,
)
from asif_lance.search import kernel_loading
from asif_lance.search.exact import exact_top_k
from asif_lance.search.query_grid import unit_queries


def random_vectors(rng, m, k, n, p=4.0):
    """Relative vectors of m items with k of n anchors each, some similarities negative."""
    indices = rng.permuted(np.tile(np.arange(n), (m, 1)), axis=1)[:, :k]
    similarities = -np.sort(-rng.normal(0.2, 0.3, size=(m, k)), axis=1)
    return relative_vectors(Neighbors(indices, similarities.astype(np.float32)), p, n)


def as_dense(vectors):
    dense = np.zeros((len(vectors.values), vectors.n))
    np.add.at(dense, (np.arange(len(dense))[:, None], vectors.indices), vectors.values)
    return dense


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    k=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    p=st.tuples(st.floats(0.3, 12), st.floats(0.3, 12)),
    masked=st.booleans(),
)
def test_scores_from_vectors_to_labels_equal_naive_loops(seed, n, k, p, masked):
    rng = np.random.default_rng(seed)
    sides = [rng.normal(size=(n, d)) for d in (5, 8)]
    for side in sides:
        side[rng.integers(n, size=n // 3)] = side[0]  # ties, as of photos with five captions
        side /= np.linalg.norm(side, axis=1, keepdims=True)
    anchors = [side.astype(np.float16) for side in sides]
    queries = [unit_queries(rng.normal(size=(4, d))) for d in (5, 8)]
    order = rng.permutation(n)
    live = rng.random(n) < 0.7 if masked else None
    vectors = [
        relative_vectors(exact_top_k(q, a, kk, live=live, tie_order=order), pp, n)
        for q, a, kk, pp in zip(queries, anchors, k, p, strict=True)
    ]
    expected = asif_scores(*queries, *anchors, k, p, live=live, tie_order=order)
    np.testing.assert_allclose(scores(*vectors), expected, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(
    similarities=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12),
    p=st.floats(0.25, 16),
)
def test_a_relative_vector_is_what_the_paper_defines(similarities, p):
    given = np.sort(np.array([similarities], np.float32))[:, ::-1]
    found = relative_vectors(Neighbors(np.arange(given.size)[None], given), p, given.size)
    if given.max() > 1e-3:  # the naive power underflows below
        expected = relative_vector(range(given.size), given[0].tolist(), p, given.size)
        np.testing.assert_allclose(found.values[0], expected, atol=1e-6)
    norm = np.linalg.norm(found.values[0].astype(float))
    assert norm == pytest.approx(1 if given.max() > 0 else 0, abs=1e-6)


def test_tiny_similarities_survive_a_large_power():
    tiny = Neighbors(np.array([[0, 1]]), np.array([[1e-30, 1e-31]], np.float32))
    np.testing.assert_allclose(relative_vectors(tiny, 8, 2).values, [[1, 1e-8]], rtol=1e-5)


def test_no_positive_similarity_leaves_a_zero_vector_that_scores_zero(rng):
    nothing = Neighbors(np.arange(5)[None], np.full((1, 5), -0.1, np.float32))
    vector = relative_vectors(nothing, 8, 9)
    assert not vector.values.any()
    assert not scores(vector, random_vectors(rng, 3, 5, 9)).any()


@pytest.mark.parametrize("p", [0, -1, np.nan, np.inf])
def test_only_positive_finite_powers_are_allowed(p):
    empty = Neighbors(np.zeros((0, 0), np.int64), np.zeros((0, 0), np.float32))
    with pytest.raises(InputError, match="p must be above 0 and finite"):
        relative_vectors(empty, p, 0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(0, 9), t=st.integers(0, 9))
def test_sparse_scores_equal_dense_ones(seed, m, t):
    rng = np.random.default_rng(seed)
    images, texts = random_vectors(rng, m, 7, 30), random_vectors(rng, t, 11, 30)
    expected = as_dense(images) @ as_dense(texts).T
    np.testing.assert_allclose(scores(images, texts), expected, atol=1e-12)


def test_batch_mates_and_chunks_do_not_change_a_score(rng, monkeypatch):
    images, texts = random_vectors(rng, 20, 50, 200), random_vectors(rng, 30, 60, 200)
    expected = scores(images, compile_texts(texts))
    monkeypatch.setattr(vectors, "_CHUNK_PRODUCTS", 1000)
    np.testing.assert_array_equal(scores(images, texts), expected)
    for i in range(20):
        np.testing.assert_array_equal(scores(single_vector(images, i), texts)[0], expected[i])
    np.testing.assert_array_equal(scores(images, single_vector(texts, 3))[:, 0], expected[:, 3])


def test_renaming_the_anchors_does_not_change_a_score(rng):
    images, texts = random_vectors(rng, 5, 50, 200), random_vectors(rng, 6, 60, 200)
    names = rng.permutation(200)
    moved = [RelativeVectors(names[v.indices], v.values, v.n) for v in (images, texts)]
    np.testing.assert_array_equal(scores(*moved), scores(images, texts))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_attributions_descend_and_sum_to_the_score(seed):
    rng = np.random.default_rng(seed)
    image, text = random_vectors(rng, 1, 20, 40), random_vectors(rng, 1, 15, 40)
    anchors, shares = attributions(image, text)
    assert shares.sum() == pytest.approx(scores(image, text)[0, 0], abs=1e-12)
    assert (shares > 0).all()
    assert (np.diff(shares) <= 0).all()
    product = as_dense(image)[0] * as_dense(text)[0]
    np.testing.assert_allclose(shares, product[anchors], rtol=1e-12)
    assert set(np.flatnonzero(product)) == set(anchors)


def test_best_scores_takes_each_class_best_prompt():
    given = np.array([[0.1, 0.5, 0.2, 0.3], [0.9, 0.5, 0.4, 0.3]])
    best = best_scores(given, np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(best, [[0.5, 0.3], [0.9, 0.4]])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_mean_vectors_are_the_normalised_means_of_each_class(seed, sizes):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(len(sizes)), sizes)
    texts = random_vectors(rng, len(classes), 6, 15)
    means = mean_vectors(texts, classes)
    expected = np.array([as_dense(texts)[classes == c].mean(axis=0) for c in range(len(sizes))])
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(as_dense(means), expected / np.where(norms, norms, 1), atol=1e-6)
    assert (np.diff(means.values, axis=1) <= 0).all()


@pytest.mark.parametrize("classes", [[0, 2, 2], [1, 1, 2], [0, 1, 0]])
def test_classes_with_gaps_or_out_of_order_are_refused(rng, classes):
    texts = random_vectors(rng, 3, 4, 9)
    with pytest.raises(InputError, match="classes of prompts must ascend from 0 without gaps"):
        mean_vectors(texts, np.array(classes))
    with pytest.raises(InputError, match="classes of prompts must ascend from 0 without gaps"):
        best_scores(np.zeros((2, 3)), np.array(classes))


def test_vectors_over_different_anchors_cannot_be_compared(rng):
    image, text = random_vectors(rng, 1, 4, 9), random_vectors(rng, 1, 4, 10)
    for compare in (scores, attributions):
        with pytest.raises(DimensionError) as caught:
            compare(image, text)
        assert str(caught.value) == "relative vectors: expected 10 dimensions, got 9"
    with pytest.raises(InputError, match="expected one image and one text, got 2 images"):
        attributions(random_vectors(rng, 2, 4, 9), text)


@pytest.fixture(params=["with loops", "without"])
def loops(request, monkeypatch):
    seconds = [float("inf") if request.param == "with loops" else float("nan")]
    monkeypatch.setattr(kernel_loading, "_seconds_without", seconds)
    assert (kernel_loading.loaded_kernels() is None) == (request.param == "without")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    t=st.sampled_from([1, 5, 255, 256, 300]),
    k=st.integers(1, 80),
)
def test_scores_are_sums_in_the_order_of_the_neighbors_to_the_last_bit(loops, seed, n, t, k):
    rng = np.random.default_rng(seed)
    images, texts = (random_vectors(rng, m, min(k, n), n) for m in (3, t))
    dense, expected = as_dense(texts), np.zeros((3, t))
    for i in range(3):
        for anchor, value in zip(images.indices[i], images.values[i], strict=True):
            expected[i] += np.float64(value) * dense[:, anchor]
    np.testing.assert_array_equal(scores(images, texts), expected)


def test_more_texts_than_16_bits_count_and_mapped_ones_are_scored(loops, rng, tmp_path):
    texts, images = random_vectors(rng, 70_000, 2, 50), random_vectors(rng, 4, 9, 50)
    compiled = compile_texts(texts)
    (block,) = compiled.blocks
    assert block.texts.dtype == np.uint32
    expected = scores(images, compiled)
    np.testing.assert_allclose(expected, as_dense(images) @ as_dense(texts).T, atol=1e-7)
    for name in ("anchors", "starts", "values", "texts"):
        np.save(tmp_path / name, getattr(block, name))
    arrays = {
        path.stem: np.load(path, mmap_mode="r").view(np.ndarray) for path in tmp_path.iterdir()
    }
    mapped = CompiledTexts([replace(block, **arrays)], 50)
    np.testing.assert_array_equal(scores(images, mapped), expected)


def test_images_without_neighbors_and_no_texts_have_no_scores_to_add(loops, rng):
    texts, images = random_vectors(rng, 4, 3, 50), random_vectors(rng, 2, 3, 50)
    none = RelativeVectors(images.indices[:, :0], images.values[:, :0], 50)
    np.testing.assert_array_equal(scores(none, texts), np.zeros((2, 4)))
    assert scores(images, RelativeVectors(texts.indices[:0], texts.values[:0], 50)).shape == (2, 0)
