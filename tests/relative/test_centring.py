"""Centres are functions of the live rows alone, bit by bit, and centred search is the oracle's."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

from asif_lance.anchors import distance_cache, fragments
from asif_lance.anchors.anchors import Anchors
from asif_lance.database import DISTANCES
from asif_lance.relative import centring
from asif_lance.relative.centring import (
    NEAREST,
    BlockDistances,
    BlockSums,
    Centre,
    add_totals,
    least_distance,
    make_centre,
    mean_at,
    mean_of,
)
from asif_lance.search.anchor_scale import ExactFactors, Scale
from asif_lance.search.exact import exact_top_k
from asif_lance.search.query_grid import unit_queries
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore

WIDTH = 24


def crowded(rng: np.random.Generator, n: int, width: int = WIDTH) -> np.ndarray:
    """Unit vectors as stored, around a common direction."""
    rows = rng.standard_normal((n, width)) + 3 * np.ones(width)
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float16)


def centre(blocks: list[np.ndarray], live: np.ndarray | None = None) -> Centre:
    tensors = [torch.from_numpy(block) for block in blocks]
    mask = np.ones(sum(map(len, blocks)), dtype=bool) if live is None else live
    sums = [BlockSums.of(tensor) for tensor in tensors]
    mean = mean_of(tensors, sums, mask)
    return make_centre(mean, sums, distances(tensors, [mean] * len(tensors)), mask)


def distances(blocks: list[torch.Tensor], points: list[np.ndarray]) -> list[BlockDistances]:
    return [
        BlockDistances.of(b, BlockSums.of(b), point)
        for b, point in zip(blocks, points, strict=True)
    ]


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
    np.testing.assert_array_equal(other.scale.near[live], plain.scale.near[order[live]])
    assert not other.scale.near[~live].any()


def test_sums_are_those_of_rational_arithmetic(rng: np.random.Generator) -> None:
    rows = crowded(rng, 300, 5)
    exact = [float(sum(map(Fraction, map(float, column)))) for column in rows.T]
    sums = BlockSums.of(torch.from_numpy(rows))
    assert sums.total.tolist() == exact
    squares = [float(sum(Fraction(float(x)) ** 2 for x in row)) for row in rows]
    assert sums.squares.tolist() == squares


def test_totals_of_more_rows_than_float64_counts_are_added_exactly() -> None:
    step = 2.0**-24
    block = np.array([2.0**28 - step, 3 * step - 2.0**28])  # of 2^28 rows
    found = add_totals([block] * 1023)
    assert found.tolist() == [1023 * (2**52 - 1), 1023 * (3 - 2**52)]


@settings(max_examples=100, deadline=None)
@given(
    blocks=st.lists(
        st.tuples(st.integers(1, 2**29), st.integers(-(2**24), 2**24)), min_size=1, max_size=32
    ),
    shards=st.integers(1, 8),
)
def test_the_mean_of_up_to_2_34_rows_is_that_of_rational_arithmetic_for_any_shards(
    blocks: list[tuple[int, int]], shards: int
) -> None:
    totals = [np.array([rows * steps * 2.0**-24]) for rows, steps in blocks]
    parts = [totals[i::shards] for i in range(min(shards, len(totals)))]
    merged = np.sum([add_totals(part) for part in parts], axis=0)
    total, count = sum(rows * steps for rows, steps in blocks), sum(rows for rows, _ in blocks)
    assert merged.tolist() == [total]
    assert mean_at(merged, count).tolist() == [round(Fraction(total, count + 1)) * 2.0**-24]


def test_factors_that_may_be_off_by_anything_give_way_to_exact_ones(
    rng: np.random.Generator,
) -> None:
    rows = crowded(rng, 60)
    turned, offset = (one := centre([rows])).turn_queries(unit_queries(crowded(rng, 5)))
    squares = BlockSums.of(torch.from_numpy(rows)).squares
    unknown = Scale(np.ones(60), np.inf, ExactFactors(one.mean, squares, least_distance(one.mean)))
    found, expected = (
        exact_top_k(turned, rows, 20, offset=offset, scale=scale) for scale in (unknown, one.scale)
    )
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50), k=st.integers(1, 60))
def test_centred_search_finds_what_naive_loops_find(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    anchors, queries = crowded(rng, n), unit_queries(crowded(rng, 5))
    found_centre = centre([anchors])
    turned, offset = found_centre.turn_queries(queries)
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
    turned, offset = alone.turn_queries(np.stack([anchor[0].astype(np.float64), alone.mean]))
    assert not turned[1].any()
    found = exact_top_k(turned, anchor, 3, offset=offset, scale=alone.scale)
    assert found.similarities[:, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 60),
    size=st.sampled_from([1e-5, 1e-3, 1e-2, 0.3]),
)
def test_distances_from_a_point_nearby_give_the_same_answers(
    seed: int, n: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    blocks = [crowded(rng, n), crowded(rng, 5)]
    plain, tensors = centre(blocks), [torch.from_numpy(block) for block in blocks]
    off = plain.mean + np.rint(rng.normal(size=WIDTH) * size * 2**24) / 2**24
    known = distances(tensors, [off, plain.mean])
    sums = [BlockSums.of(tensor) for tensor in tensors]
    other = make_centre(plain.mean, sums, known, np.ones(n + 5, dtype=bool))
    assert (np.abs(other.scale.near - plain.scale.near) <= other.scale.error).all()
    if np.isfinite(other.scale.error):
        turned, offset = plain.turn_queries(unit_queries(crowded(rng, 6)))
        expected, found = (
            exact_top_k(turned, blocks, 7, offset=offset, scale=c.scale) for c in (plain, other)
        )
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.similarities, expected.similarities)
    exact = other.scale.exact_factors(np.concatenate(blocks), np.arange(n + 5))
    np.testing.assert_array_equal(exact, plain.scale.near)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gone=st.integers(1, 12), near=st.booleans())
def test_similarities_move_no_more_than_the_bound_says(seed: int, gone: int, near: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = crowded(rng, 80)
    if near:  # anchors about the mean, which turn most
        middle = centre([rows]).mean + rng.normal(size=(5, WIDTH)) * 0.02
        rows = np.concatenate([rows, middle.astype(np.float16)])
    queries = unit_queries(np.concatenate([crowded(rng, 6), rng.normal(size=(6, WIDTH))]))
    first, second = centre([rows]), centre([rows[gone:]])
    similarities = []
    for one in (first, second):
        (known,) = distances([torch.from_numpy(rows)], [one.mean])
        factors = known.factors(1 / least_distance(one.mean))
        turned, offset = one.turn_queries(queries)
        products = turned.astype(float) @ rows.T.astype(float)
        similarities.append((products + offset[:, None]) * factors)
    moved = np.abs(similarities[0] - similarities[1])[:, gone:].max(axis=1)
    assert (moved <= second.bound_drift(queries, first.mean)).all()
    assert (second.bound_drift(queries, second.mean) == 0).all()


def test_anchors_next_to_the_mean_fade_and_loosen_no_bound(rng: np.random.Generator) -> None:
    """One of them, unbounded, would have a scale of thousands and make every search slow."""
    rows = crowded(rng, 500)
    mean = centre([rows]).mean
    near = centre([np.concatenate([rows, mean[None].astype(np.float16)])])
    usual = np.sqrt(1 - near.mean @ near.mean)
    assert near.scale.near[-1] == pytest.approx(1 / (NEAREST * usual))
    assert near.scale.largest <= 1 / (NEAREST * usual)


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
        expected = dict(zip(frame["pair_id"].to_pylist(), centre([rows]).scale.near, strict=True))
        live = np.flatnonzero(anchors.live)
        found = dict(
            zip(
                anchors.ids(live),
                anchors.centre(side).scale.exact_factors(anchors.vectors(side, live), live),
                strict=True,
            )
        )
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
    scales = [anchors.centre("image").scale.near for anchors in (wide, narrow)]
    np.testing.assert_array_equal(*scales)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows whose distances were measured, time by time; those of so few are kept."""
    monkeypatch.setattr(distance_cache, "WORTH_KEEPING", 100)
    measured: list[int] = []
    measure = centring._multiply_point

    def noted(rows: torch.Tensor, point: np.ndarray) -> np.ndarray:
        measured.append(len(rows))
        return measure(rows, point)

    monkeypatch.setattr(centring, "_multiply_point", noted)
    return measured


def afresh(store: PairStore, version: str = "latest") -> Anchors:
    """Anchors as another process finds them."""
    fragments._shared.clear()
    return Anchors(store.dataset(version))


def test_distances_are_measured_once_and_serve_later_versions_and_processes(
    store: PairStore, passes: list[int]
) -> None:
    afresh(store).centre("image")
    afresh(store).centre("image")
    assert passes == [120]
    store.add(pairs(names(120, 125)))
    store.publish(command="ingest")
    anchors = afresh(store)
    queries = unit_queries(np.random.default_rng(1).normal(size=(3, 8)))
    found = anchors.top_k("image", queries, 4, measure="centred")
    files = list((Path(store.uri) / DISTANCES).iterdir())
    assert len(files) == 1
    files[0].write_bytes(b"PK damaged")
    expected = afresh(store).top_k("image", queries, 4, measure="centred")
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)


def test_forgetting_and_compaction_leave_no_distances_of_what_is_gone(
    store: PairStore, passes: list[int]
) -> None:
    for side in ("image", "text"):
        afresh(store).centre(side)
    receipt = forget(store, names(3, 5), reason="asked to")
    assert receipt.elsewhere["distances"] == 2
    assert list((Path(store.uri) / DISTANCES).iterdir()) == []
    afresh(store).centre("image")
    (kept,) = (Path(store.uri) / DISTANCES).iterdir()
    store.add(pairs(names(200, 320)))
    store.publish(command="ingest")
    newest = Anchors(store.dataset("latest"))
    gone, there = newest.stored._fragments[0], newest.stored._fragments[-1]
    data = Path(store.uri) / "pairs.lance" / "data" / gone.files
    data.rename(data.with_suffix(".elsewhere"))  # as compaction and pruning leave it
    there.distances(newest.dataset, newest.stored._sources[-1], "image_vector", np.zeros(8))
    assert names_in(kept) == [gone.files]
    distance_cache.save_distances(newest.dataset.uri, "image_vector", [there], store.epoch())
    assert names_in(kept) == [there.files]


def names_in(kept: Path) -> list[str]:
    """The data files that a file of distances speaks of."""
    with np.load(kept) as arrays:
        return list(arrays["files"])


def test_the_distances_of_many_small_fragments_are_kept_together(
    store: PairStore, passes: list[int]
) -> None:
    for start in range(200, 290, 30):
        store.add(pairs(names(start, start + 30)))
        store.publish(command="ingest")
    found = afresh(store).centre("image").scale.near
    assert sorted(passes) == [30, 30, 30, 120]
    np.testing.assert_array_equal(afresh(store).centre("image").scale.near, found)
    assert len(passes) == 4
