"""What examples add to scores is the dense formula's, exact, and the sum of its shares."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asif_lance.relative import (
    MEMBER_COSINE,
    Teaching,
    find_members,
    fit_teaching,
    make_teaching,
)
from asif_lance.search import unit_queries

WIDTH = 12
GRID = 2.0**-24


def stored(rng: np.random.Generator, kinds: np.ndarray, spread: float = 0.3) -> np.ndarray:
    """Unit vectors as stored, around an axis for each kind."""
    rows = np.eye(WIDTH)[kinds] + spread * rng.standard_normal((len(kinds), WIDTH))
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float16).astype(np.float32)


def on_grid(rng: np.random.Generator) -> np.ndarray:
    return np.rint(0.1 * rng.standard_normal(WIDTH) / GRID) * GRID


def taught(
    rng: np.random.Generator, kinds: np.ndarray, labels: int
) -> tuple[np.ndarray, np.ndarray, Teaching]:
    examples, mean = stored(rng, kinds), on_grid(rng)
    teaching = make_teaching(examples, kinds, mean)
    ordinary = rng.random((len(kinds), labels))
    return examples, mean, fit_teaching(teaching, examples, np.arange(len(kinds)), ordinary)


def dense_evidence(
    query: np.ndarray, examples: np.ndarray, kinds: np.ndarray, mean: np.ndarray, label: int
) -> float:
    """The formula, in the plainest way."""
    own_mean = examples.astype(float).sum(axis=0) / (len(examples) + 1)
    middle = (mean + own_mean) / 2

    def turned(vector: np.ndarray) -> np.ndarray:
        return (vector - middle) / math.sqrt(sum((vector - middle) ** 2))

    members = [turned(a) for a, kind in zip(examples.astype(float), kinds, strict=True)]
    own = [a for a, kind in zip(members, kinds, strict=True) if kind == label]
    length = max(math.sqrt(sum(sum(own) ** 2)), 1.0)
    return float(sum(turned(query.astype(float)) @ a for a in own) / length)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kinds=st.lists(st.integers(0, 4), min_size=1, max_size=30))
def test_evidence_is_the_dense_formula_and_scores_are_the_sum_of_shares(
    seed: int, kinds: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    owner = np.array(kinds)
    examples, mean, teaching = taught(rng, owner, 6)
    queries = unit_queries(rng.standard_normal((5, WIDTH)))
    found, ordinary = teaching.evidence(queries), rng.random((5, 6))
    for i, label in enumerate(teaching.labels.tolist()):
        expected = [dense_evidence(q, examples, owner, mean, label) for q in queries]
        np.testing.assert_allclose(found[:, i], expected, atol=1e-5)
    scores = teaching.add(ordinary, queries)
    assert 0 <= teaching.weight <= 1
    assert scores.min() >= 0
    for query, row, plain in zip(queries, scores, ordinary, strict=True):
        for label in range(6):
            members, shares = teaching.shares(query, label)
            assert set(members.tolist()) <= set(np.flatnonzero(owner == label).tolist())
            expected = (1 - teaching.weight) * plain[label] + shares.sum()
            assert row[label] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 40))
def test_no_bit_depends_on_the_batch(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    _, _, teaching = taught(rng, rng.integers(0, 3, count), 4)
    queries, ordinary = unit_queries(rng.standard_normal((9, WIDTH))), rng.random((9, 4))
    together = teaching.add(ordinary, queries)
    for i in range(len(queries)):
        np.testing.assert_array_equal(teaching.add(ordinary[[i]], queries[[i]])[0], together[i])


def test_an_example_left_out_is_compared_with_the_others_of_its_label_alone() -> None:
    rng = np.random.default_rng(3)
    kinds = np.repeat([0, 2], 5)
    examples, mean = stored(rng, kinds), on_grid(rng)
    teaching = make_teaching(examples, kinds, mean)
    found = teaching.left_out(examples, teaching.owner)
    whole = teaching.turn(examples)
    for i in range(len(kinds)):
        others = [j for j in range(len(kinds)) if kinds[j] == kinds[i] and j != i]
        rest = whole[others].sum(axis=0)
        expected = whole[i] @ rest / max(np.linalg.norm(rest), 1.0)
        np.testing.assert_allclose(found[i, int(kinds[i] == 2)], expected, atol=1e-5)


def test_examples_that_tell_labels_apart_weigh_more_than_ones_that_do_not() -> None:
    rng = np.random.default_rng(5)
    kinds = np.repeat(np.arange(4), 10)
    ordinary = rng.random((40, 4))
    weights = []
    for spread in (0.1, 3.0):
        examples = stored(rng, kinds, spread)
        teaching = make_teaching(examples, kinds, on_grid(rng))
        weights.append(fit_teaching(teaching, examples, np.arange(40), ordinary).weight)
    assert weights[0] > weights[1] > 0


def test_a_single_example_teaches_its_label() -> None:
    rng = np.random.default_rng(6)
    examples, _, teaching = taught(rng, np.array([1]), 3)
    assert teaching.weight > 0
    query = unit_queries(examples)
    assert teaching.add(np.full((1, 3), 0.1), query)[0].argmax() == 1


def test_ordinary_pairs_decide_where_examples_say_nothing() -> None:
    rng = np.random.default_rng(8)
    kinds = np.repeat([0, 1], 10)
    examples = stored(rng, kinds, 0.05)
    misleading = np.eye(4)[1 - kinds]
    teaching = make_teaching(examples, kinds, on_grid(rng))
    fitted = fit_teaching(teaching, examples, np.arange(20), misleading)
    assert fitted.threshold > 0
    far = unit_queries(-examples.mean(axis=0)[None])
    assert fitted.add(np.array([[0.1, 0.1, 0.1, 0.3]]), far)[0].argmax() == 3


def test_examples_that_cancel_each_other_out_stay_finite() -> None:
    one = np.eye(WIDTH, dtype=np.float32)[:2]
    teaching = make_teaching(np.concatenate([one, one]), np.array([0, 0, 1, 1]), np.zeros(WIDTH))
    opposite = np.concatenate([one[:1], -one[:1]])
    cancelled = make_teaching(opposite, np.zeros(2, dtype=np.int64), np.zeros(WIDTH))
    for made, examples in ((teaching, np.concatenate([one, one])), (cancelled, opposite)):
        places = np.arange(len(examples))
        fitted = fit_teaching(made, examples, places, np.zeros((len(examples), 2)))
        assert np.isfinite(fitted.add(np.zeros((2, 2)), unit_queries(one))).all()


def test_an_example_belongs_to_the_label_that_its_caption_is_nearest_to() -> None:
    prompts = unit_queries(np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 1.0, 0.0]]))
    captions = unit_queries(
        np.array([[1.0, 0.05, 0.0], [0.1, 1.0, 0.0], [0.0, 0.2, 1.0], [0.8, 0.6, 0.0]])
    )
    found = find_members(captions, prompts, np.array([0, 0, 1]), 2)
    assert found.tolist() == [0, 1, -1, 0]
    assert 0 < MEMBER_COSINE < 1


def test_a_few_examples_alike_by_chance_do_not_silence_labels_without_any() -> None:
    """All their cosines are equal, so they alone would say that evidence never misleads."""
    rng = np.random.default_rng(8)
    kinds = np.arange(3)
    examples = stored(rng, kinds, 0.0)
    teaching = make_teaching(examples, kinds, np.zeros(WIDTH))
    assert np.std(teaching.left_out(examples, kinds)[~np.eye(3, dtype=bool)]) < 1e-3
    fitted = fit_teaching(teaching, examples, kinds, rng.random((3, 6)))
    assert fitted.threshold > 0.2
