"""A whitening is a function of its sample, and what it says of one of the vectors given to it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import AGAIN, names, new_store, pairs

from asif_lance.anchors import fragments, whitened_cache
from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.fragments import hash_ids
from asif_lance.anchors.whitened import choose_sample
from asif_lance.database import DISTANCES
from asif_lance.relative import SAMPLE, Whitening, WhiteningStep
from asif_lance.relative.centring import NEAREST
from asif_lance.search import FactorsOnDemand, Scale, exact_top_k, unit_queries
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore

WIDTH = 12


def stretched(rng: np.random.Generator, n: int, width: int = WIDTH) -> np.ndarray:
    """Unit vectors as stored, around a common direction, which differ most in the first numbers."""
    rows = rng.standard_normal((n, width)) / np.arange(1, width + 1) + np.ones(width)
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float16)


def tensor(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows)


def dense(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and M by the definition, in float64 without any rounding to grids."""
    wide = rows.astype(np.float64)
    mean = wide.sum(axis=0) / (len(wide) + 1)
    covariance = (wide - mean).T @ (wide - mean) / len(wide)
    ridge = np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh(covariance)
    return mean, (vectors * np.sqrt(ridge / (values + ridge))) @ vectors.T


def cosines(queries: np.ndarray, rows: np.ndarray, mean: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Whitened cosines, densely; anchors near the mean fade."""
    left, right = (queries - mean) @ m, (rows.astype(np.float64) - mean) @ m
    sizes = np.linalg.norm(right, axis=1)
    least = NEAREST * np.sqrt(np.square(sizes).mean())
    unit = left / np.linalg.norm(left, axis=1)[:, None]
    return unit @ right.T / np.maximum(sizes, least)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40), k=st.integers(1, 45))
def test_a_search_finds_what_the_dense_formula_finds(seed: int, n: int, k: int) -> None:
    """With fewer vectors than dimensions as with more: M is computed in two ways."""
    rng = np.random.default_rng(seed)
    rows, queries = stretched(rng, n), unit_queries(stretched(rng, 5))
    whitening = Whitening.of(tensor(rows))
    turned, offset = whitening.turn_queries(queries)
    scale = Scale(whitening.inverse_distances(tensor(rows)))
    found = exact_top_k(turned, rows, k, offset=offset, scale=scale)
    expected = np.sort(cosines(queries, rows, *dense(rows)), axis=1)[:, ::-1][:, :k]
    np.testing.assert_allclose(found.similarities, expected, atol=1e-3)
    values, vectors = np.linalg.eigh(whitening.metric)
    ours = cosines(queries, rows, whitening.mean, (vectors * np.sqrt(values)) @ vectors.T)
    np.testing.assert_allclose(found.similarities, np.sort(ours, axis=1)[:, ::-1][:, :k], atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60))
def test_the_order_of_the_sample_changes_no_bit(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = stretched(rng, n)
    one, other = (Whitening.of(tensor(r)) for r in (rows, rows[rng.permutation(n)]))
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.metric, other.metric)
    assert one.least == other.least


def test_neither_blocks_nor_batches_nor_threads_change_a_bit(rng: np.random.Generator) -> None:
    rows, queries = stretched(rng, 3000, 40), unit_queries(stretched(rng, 9, 40))
    whitening = Whitening.of(tensor(rows))
    whole = whitening.inverse_distances(tensor(rows))
    cut = [whitening.inverse_distances(tensor(part)) for part in np.split(rows, [1, 777])]
    np.testing.assert_array_equal(np.concatenate(cut), whole)
    turned, offset = whitening.turn_queries(queries)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        again = Whitening.of(tensor(rows))
        alone = [again.turn_queries(query[None]) for query in queries]
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(again.metric, whitening.metric)
    np.testing.assert_array_equal(np.concatenate([one for one, _ in alone]), turned)
    np.testing.assert_array_equal(np.concatenate([one for _, one in alone]), offset)


def test_distances_are_those_of_rational_arithmetic_but_for_their_last_rounding(
    rng: np.random.Generator,
) -> None:
    rows = stretched(rng, 20, 7)
    whitening = Whitening.of(tensor(rows))
    mean, metric = (np.vectorize(Fraction)(x) for x in (whitening.mean, whitening.metric))
    for row, inverse in zip(rows, whitening.inverse_distances(tensor(rows)), strict=True):
        apart = [Fraction(float(a)) - m for a, m in zip(row, mean, strict=True)]
        turned = [sum(x * m for x, m in zip(apart, column, strict=True)) for column in metric]
        rounded = [Fraction(round(x * 2**24), 2**24) for x in turned]
        square = sum(x * y for x, y in zip(apart, rounded, strict=True))
        assert inverse == 1 / np.sqrt(float(square))


def test_the_metric_is_symmetric_and_shrinks_what_varies_most(rng: np.random.Generator) -> None:
    whitening = Whitening.of(tensor(stretched(rng, 500)))
    values = np.linalg.eigvalsh(whitening.metric)
    np.testing.assert_array_equal(whitening.metric, whitening.metric.T)
    assert 0 < values[0] < 0.4
    assert values[-1] <= 1 + 1e-4


def test_what_lies_on_the_mean_is_similar_to_nothing_and_no_vectors_differ_in_no_way(
    rng: np.random.Generator,
) -> None:
    whitening = Whitening.of(tensor(stretched(rng, 50)))
    turned, offset = whitening.turn_queries(whitening.mean[None])
    assert not turned.any()
    assert not offset.any()
    near = whitening.inverse_distances(tensor(whitening.mean[None].astype(np.float16)))
    assert near[0] == pytest.approx(1 / whitening.least)
    np.testing.assert_array_equal(Whitening.of(torch.empty(0, 5).half()).metric, np.eye(5))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 300))
def test_the_sample_is_chosen_by_ids_alone(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    hashes, live = hash_ids(np_ids(n)), rng.random(n) < 0.7
    order = rng.permutation(n)
    chosen = choose_sample(hashes, live)
    again = order[choose_sample(hashes[order], live[order])]
    assert chosen.tolist() == again.tolist()
    assert set(chosen) == set(np.flatnonzero(live))


def np_ids(n: int):
    return pairs(names(0, n))["pair_id"]


def test_of_more_pairs_than_a_sample_holds_the_smallest_hashes_are_taken(
    rng: np.random.Generator,
) -> None:
    hashes, live = rng.permutation(3 * SAMPLE).astype(np.uint64), np.ones(3 * SAMPLE, dtype=bool)
    assert hashes[choose_sample(hashes, live)].tolist() == list(range(SAMPLE))


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 120)))
    store.publish(command="ingest")
    return store


def told(store: PairStore, version: str = "latest") -> tuple[bytes, dict[str, tuple[float, ...]]]:
    """The whitening of a version, and what it says of each pair."""
    anchors = Anchors(store.dataset(version))
    side, live = anchors.whitened("image"), np.flatnonzero(anchors.live)
    queries = unit_queries(np.random.default_rng(3).normal(size=(3, 8)))
    near = anchors.top_k("image", queries, len(live), measure="white")
    by_id = dict(zip(anchors.ids(live), side.scale.near[live].tolist(), strict=True))
    rows = zip(near.indices, near.similarities, strict=True)
    found = {f"query {i}": (*anchors.ids(at), *s.tolist()) for i, (at, s) in enumerate(rows)}
    whitening = side.whitening
    name = whitening.mean.tobytes() + whitening.metric.tobytes()
    return name, {**found, **{pair_id: (one,) for pair_id, one in by_id.items()}}


def test_a_version_says_what_a_fresh_build_of_its_pairs_says_whatever_happened_before(
    store: PairStore, tmp_path: Path
) -> None:
    first = told(store)
    store.add(pairs(names(120, 200)))
    store.delete(names(30, 60))
    store.publish(command="delete")
    forget(store, names(5, 9), reason="asked to")
    fresh = new_store(tmp_path / "fresh")
    kept = [*names(0, 5), *names(9, 30), *names(60, 200)]
    for part in (kept[100:], kept[:100]):
        fresh.add(pairs(part))
    fresh.publish(command="ingest")
    assert told(store) == told(fresh)
    assert told(store, "v1") != first  # a pair of the sample is forgotten: from v1, too
    store.add(pairs(names(5, 9)), waiver=AGAIN)
    store.delete(names(120, 200))
    store.add(pairs(names(30, 60)))
    store.publish(command="ingest")
    assert told(store) == first


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were measured, time by time; those of so few are kept."""
    monkeypatch.setattr(whitened_cache, "WORTH_KEEPING", 100)
    measured: list[int] = []
    measure = Whitening.inverse_distances

    def noted(self: Whitening, rows: torch.Tensor) -> np.ndarray:
        measured.append(len(rows))
        return measure(self, rows)

    monkeypatch.setattr(Whitening, "inverse_distances", noted)
    return measured


def test_distances_are_measured_once_while_the_sample_stays(
    store: PairStore, keeping: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.anchors.whitened.SAMPLE", 20)
    first = told(store)
    fragments._shared.clear()
    assert told(store) == first
    assert keeping == [120]
    (kept,) = (Path(store.uri) / DISTANCES).glob("*white*")
    hashes = hash_ids(pairs(names(0, 400))["pair_id"])
    beyond = [name for name, h in zip(names(0, 400), hashes, strict=True) if h > 2**63][-3:]
    store.add(pairs([f for f in beyond if f not in set(names(0, 120))]))
    store.publish(command="ingest")
    fragments._shared.clear()
    assert told(store)[0] == first[0]
    assert sum(keeping) == 120 + 3
    kept.write_bytes(b"PK damaged")
    fragments._shared.clear()
    assert told(store, "v1") == first


def test_forgetting_leaves_no_whitening_of_what_is_gone(
    store: PairStore, keeping: list[int]
) -> None:
    before = told(store)[0]
    assert list((Path(store.uri) / DISTANCES).glob("*white*"))
    forget(store, names(3, 5), reason="asked to")
    assert list((Path(store.uri) / DISTANCES).iterdir()) == []
    assert told(store)[0] != before


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(30, 120),
    swapped=st.integers(1, 3),
    m=st.sampled_from([1, 6]),
    directions=st.sampled_from([1, 3, 48]),
)
def test_distances_under_a_whitening_nearby_give_the_same_answers(
    seed: int, n: int, swapped: int, m: int, directions: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, queries = stretched(rng, n), unit_queries(stretched(rng, m))
    before = Whitening.of(tensor(rows))
    after = Whitening.of(tensor(np.concatenate([rows[swapped:], stretched(rng, swapped)])))
    known, exact = (w.inverse_distances(tensor(rows)) for w in (before, after))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asif_lance.relative.whitening._DIRECTIONS", directions)
        step = WhiteningStep.between(before, after)
    near, ratio = step.step(tensor(rows), known), step.off
    assert (np.abs(exact - near) <= ratio * near).all()
    if not np.isfinite(ratio):
        return
    asked: list[int] = []

    def compute(at: np.ndarray) -> np.ndarray:
        asked.extend(at.tolist())
        return exact[at]

    later = Scale(near, exact=FactorsOnDemand(np.full(n, np.nan), compute), ratio=ratio)
    turned, offset = after.turn_queries(queries)
    expected = exact_top_k(turned, rows, 2, offset=offset, scale=Scale(exact))
    for _ in range(2):
        found = exact_top_k(turned, rows, 2, offset=offset, scale=later)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.similarities, expected.similarities)
    assert len(asked) == len(set(asked))  # each is computed once
    part = np.flatnonzero(rng.random(n) < 0.5)
    np.testing.assert_array_equal(
        later.part(part).exact_factors_at(np.arange(len(part)), None), exact[part]
    )


def test_there_is_no_bound_from_a_metric_that_rounding_left_without_a_root() -> None:
    good = Whitening.of(tensor(stretched(np.random.default_rng(1), 50)))
    metric = good.metric - 2 * np.eye(len(good.metric))
    assert WhiteningStep.between(replace(good, metric=metric), good).off == np.inf


def test_a_version_whose_sample_changed_little_measures_only_what_it_needs(
    tmp_path: Path, keeping: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.anchors.whitened.LONG", 0)
    monkeypatch.setattr("asif_lance.anchors.whitened._MOST_OFF", 0.5)
    store, fresh = new_store(tmp_path / "grown"), new_store(tmp_path / "fresh")
    store.add(pairs(names(0, 3000)))
    store.publish(command="ingest")
    queries = unit_queries(np.random.default_rng(3).normal(size=(1, 8)))
    Anchors(store.dataset("latest")).top_k("image", queries, 5, measure="white")
    store.add(pairs(names(3000, 3004)))
    store.publish(command="ingest")
    keeping.clear()
    near = Anchors(store.dataset("latest"))
    found = near.top_k("image", queries, 5, measure="white")
    assert near.whitened("image").scale.ratio > 0
    assert sum(keeping) < 1500
    fresh.add(pairs(names(0, 3004)))
    fresh.publish(command="ingest")
    other = Anchors(fresh.dataset("latest"))
    expected = other.top_k("image", queries, 5, measure="white")
    assert near.ids(found.indices[0]) == other.ids(expected.indices[0])
    np.testing.assert_array_equal(found.similarities, expected.similarities)


def test_what_a_search_measured_serves_the_versions_after(
    tmp_path: Path, keeping: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asif_lance.anchors.whitened.LONG", 0)
    monkeypatch.setattr("asif_lance.anchors.whitened._MOST_OFF", 0.5)
    monkeypatch.setattr("asif_lance.anchors.whitened.SAMPLE", 1000)
    store = new_store(tmp_path)
    store.add(pairs(names(0, 3000)))
    store.publish(command="ingest")
    queries = unit_queries(np.random.default_rng(3).normal(size=(3, 8)))
    Anchors(store.dataset("latest")).top_k("image", queries, 5, measure="white")
    store.add(pairs(names(3000, 3020)))
    store.publish(command="ingest")
    near = Anchors(store.dataset("latest"))
    first = near.top_k("image", queries, 5, measure="white")
    assert near.whitened("image").scale.ratio > 0
    needed = {*near.ids(near._sample()), *near.ids(first.indices.ravel())}
    store.delete([name for name in names(0, 3000) if name not in needed][:1])
    store.publish(command="delete")
    keeping.clear()
    later = Anchors(store.dataset("latest"))
    found = later.top_k("image", queries, 5, measure="white")
    assert keeping == []
    assert later.ids(found.indices.ravel()) == near.ids(first.indices.ravel())
    np.testing.assert_array_equal(found.similarities, first.similarities)
