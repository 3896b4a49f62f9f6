"""Centres are functions of the live rows alone, bit by bit, and centred search is the oracle's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

from asif_lance.anchors import Anchors
from asif_lance.forget import forget
from asif_lance.means import NEAREST, Centre, centre_of, total
from asif_lance.search import exact_top_k, unit_queries
from asif_lance.store import PairStore

WIDTH = 24


def crowded(rng: np.random.Generator, n: int, width: int = WIDTH) -> np.ndarray:
    """Unit vectors as stored, around a common direction."""
    rows = rng.standard_normal((n, width)) + 3 * np.ones(width)
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float16)


def centre(blocks: list[np.ndarray], live: np.ndarray | None = None) -> Centre:
    tensors = [torch.from_numpy(block) for block in blocks]
    mask = np.ones(sum(map(len, blocks)), dtype=bool) if live is None else live
    return centre_of(tensors, [total(t) for t in tensors], mask, lambda block: None)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), cuts=st.integers(0, 4))
def test_neither_order_nor_fragments_nor_dead_rows_change_a_bit(
    seed: int, n: int, cuts: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, dead = crowded(rng, n), crowded(rng, 7)
    plain = centre([rows])
    order = rng.permutation(n + 7)
    mixed, live = np.concatenate([rows, dead])[order], order < n
    blocks = np.split(mixed, np.sort(rng.integers(0, n + 8, cuts)))
    other = centre(blocks, live)
    np.testing.assert_array_equal(other.mean, plain.mean)
    np.testing.assert_array_equal(other.scale[live], plain.scale[order[live]])
    assert not other.scale[~live].any()


def test_sums_are_those_of_rational_arithmetic(rng: np.random.Generator) -> None:
    from fractions import Fraction

    rows = crowded(rng, 300, 5)
    exact = [float(sum(map(Fraction, map(float, column)))) for column in rows.T]
    assert total(torch.from_numpy(rows)).tolist() == exact


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50), k=st.integers(1, 60))
def test_centred_search_finds_what_naive_loops_find(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    anchors, queries = crowded(rng, n), unit_queries(crowded(rng, 5))
    found_centre = centre([anchors])
    turned, offset = found_centre.turn(queries)
    found = exact_top_k(turned, anchors, k, offset=offset, scale=found_centre.scale)
    _, expected = oracle.top_k(*oracle.centred(queries, anchors), k)
    np.testing.assert_allclose(found.similarities, expected, atol=2e-6)
    if n > 2:
        assert np.abs(found.similarities).max() <= 1 + 1e-6


def test_one_pair_alone_is_similar_to_itself_and_what_lies_on_the_mean_to_nothing(
    rng: np.random.Generator,
) -> None:
    anchor = crowded(rng, 1)
    alone = centre([anchor])
    np.testing.assert_array_equal(alone.mean, anchor[0].astype(np.float64) / 2)
    turned, offset = alone.turn(np.stack([anchor[0].astype(np.float64), alone.mean]))
    assert not turned[1].any()
    found = exact_top_k(turned, anchor, 3, offset=offset, scale=alone.scale)
    assert found.similarities[:, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_anchors_next_to_the_mean_fade_and_loosen_no_bound(rng: np.random.Generator) -> None:
    """One of them, unbounded, would have a scale of thousands and make every search slow."""
    rows = crowded(rng, 500)
    mean = centre([rows]).mean
    near = centre([np.concatenate([rows, mean[None].astype(np.float16)])])
    usual = np.sqrt(1 - near.mean @ near.mean)
    assert near.scale[-1] == pytest.approx(1 / (NEAREST * usual))
    assert near.scale.max() <= 1 / (NEAREST * usual)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 120)))
    store.publish(command="ingest")
    return store


def test_a_version_has_the_centre_of_its_pairs_whatever_happened_before(store: PairStore) -> None:
    store.add(pairs(names(120, 200)))
    store.delete(names(30, 60))
    store.publish(command="delete")
    forget(store, names(5, 9), reason="asked to")
    anchors = Anchors(store.dataset("latest"))
    frame = store.read("latest")
    for side in ("image", "text"):
        rows = np.array(frame[f"{side}_vector"].to_pylist(), dtype=np.float16)
        expected = dict(zip(frame["pair_id"].to_pylist(), centre([rows]).scale, strict=True))
        live = np.flatnonzero(anchors.live)
        found = dict(zip(anchors.ids(live), anchors.centre(side).scale[live], strict=True))
        assert found == expected
        np.testing.assert_array_equal(anchors.centre(side).mean, centre([rows]).mean)


def test_an_older_version_keeps_its_own_centre(store: PairStore) -> None:
    first = Anchors(store.dataset("v1")).centre("image").mean
    store.delete(names(0, 50))
    store.publish(command="delete")
    second = Anchors(store.dataset("latest")).centre("image").mean
    assert (first != second).any()
    np.testing.assert_array_equal(Anchors(store.dataset("v1")).centre("image").mean, first)


def test_a_side_that_exceeds_the_limit_has_the_same_centre(store: PairStore) -> None:
    wide, narrow = (Anchors(store.dataset("v1"), memory_limit=m) for m in (None, 100))
    np.testing.assert_array_equal(wide.centre("image").scale, narrow.centre("image").scale)
