"""Shards that are searched apart answer together as one search does, bit by bit."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.anchors import (
    Anchors,
    Shard,
    ShardQuestion,
    SharedAnchors,
    merge_hits,
    sample_shard,
    search_shard,
    sum_shard,
)
from asif_lance.anchors.version_rows import Side, VersionRows
from asif_lance.audit.recorder import Recorder
from asif_lance.database import read_table
from asif_lance.errors import InputError, StaleModelError
from asif_lance.model import Model, open_model, share_model
from asif_lance.model.retrieval import retrieve, score_pairs
from asif_lance.relative import Measure
from asif_lance.search import Hits, unit_queries
from asif_lance.store import PairStore
from asif_lance.store.forget import forget

DIMS: dict[Side, int] = {"image": 8, "text": 4}


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """Seven fragments; a third of the pairs is in all of them; some are deleted."""
    store = new_store(tmp_path)
    for start in range(0, 84, 12):
        part = pairs(names(start, start + 12))
        same = pairs(names(0, 4))
        for column in ("image_vector", "text_vector"):
            both = pa.concat_arrays(
                [same[column].combine_chunks(), part[column].combine_chunks().slice(4)]
            )
            part = part.set_column(part.schema.names.index(column), column, both)
        store.add(part)
    store.publish(command="ingest")
    store.delete(names(1, 3) + names(30, 38))
    store.publish(command="delete")
    return store


def ask(side: Side) -> np.ndarray:
    """Some that lie on pairs, which tie, and others."""
    drawn = np.random.default_rng(3).standard_normal((12, DIMS[side]))
    stored = np.stack(pairs(names(0, 4))[f"{side}_vector"].to_numpy().tolist())
    return unit_queries(np.concatenate([drawn, stored.astype(np.float64)]))


def check_same(shared: SharedAnchors, alone: Anchors, measure: Measure) -> None:
    for side in DIMS:
        for k in (1, 5, 800):
            found = shared.top_k(side, ask(side), k, measure=measure)
            expected = alone.top_k(side, ask(side), k, measure=measure)
            assert np.array_equal(found.indices, expected.indices)
            assert np.array_equal(found.similarities, expected.similarities)


@pytest.mark.parametrize("measure", ["cosine", "centred", "white"])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_any_number_of_shards_finds_what_one_search_finds(
    store: PairStore, count: int, measure: Measure
) -> None:
    alone = Anchors(store.dataset())
    shared = SharedAnchors(alone, map, count)
    assert len(shared.shards) == min(count, 7)
    check_same(shared, alone, measure)


@pytest.mark.parametrize("measure", ["cosine", "centred", "white"])
def test_it_does_not_matter_which_fragments_a_shard_has(store: PairStore, measure: Measure) -> None:
    alone = Anchors(store.dataset())
    shared = SharedAnchors(alone, map, 7)
    order = np.random.default_rng(1).permutation(7)
    one = shared.shards[0]
    fragments = [next(iter(shared.shards[i].fragments)) for i in order]
    parts = [fragments[:1], fragments[1:4], fragments[4:]]
    shared.shards = [Shard(one.uri, one.version, frozenset(p), one.epoch) for p in parts]
    check_same(shared, alone, measure)


def test_equal_similarities_of_several_shards_go_to_the_smaller_id() -> None:
    first = Hits(np.array([[2, 4, 3]]), np.array([[0.5, 0.5, 0.25]]))
    second = Hits(np.array([[0, 1]]), np.array([[0.5, 0.25]]))
    found = merge_hits(first, second, 4, lambda positions: positions)
    assert found.indices.tolist() == [[0, 2, 4, 1]]
    assert found.similarities.tolist() == [[0.5, 0.5, 0.5, 0.25]]


def test_similarities_that_float32_takes_for_equal_keep_their_order() -> None:
    first, second = (np.array([[one]]) for one in (1 / 3, np.nextafter(1 / 3, 1)))
    hits = Hits(np.array([[0]]), first), Hits(np.array([[1]]), second)
    found = merge_hits(*hits, 2, lambda positions: positions)
    assert found.indices.tolist() == [[1, 0]]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["paper", None])
def test_processes_share_a_model_and_predict_the_same(store: PairStore, recipe: str | None) -> None:
    model = open_model(store.uri, recipe=recipe, k=20)
    rng = np.random.default_rng(5)
    questions = rng.standard_normal((9, DIMS["image"])).astype(np.float32)
    prompts = rng.standard_normal((5, DIMS["text"])).astype(np.float32)

    def predict(model: Model) -> list[tuple]:
        labels = model.label_vectors(dict(zip("abcde", prompts, strict=True)))
        found = model.classify_vectors([str(n) for n in range(9)], questions, labels)
        return [(one.ranking, one.attributions(20)) for one in found]

    expected = predict(model)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for count in (1, 2, 7):
            assert predict(share_model(model, pool.map, count)) == expected


def test_predictions_of_a_shared_model_are_recorded(store: PairStore) -> None:
    rng = np.random.default_rng(5)
    questions, prompts = (rng.standard_normal((3, d)).astype("f4") for d in DIMS.values())
    recorded, alone = [], open_model(store.uri, k=20)
    for model in (alone, share_model(alone, map, 7)):
        labels = model.label_vectors(dict(zip("abc", prompts, strict=True)))
        with Recorder(store, labels, model.recipe) as recorder:
            for found in model.classify_vectors(["x", "y", "z"], questions, labels):
                recorder.add(found)
        columns = ["label", "pair_id", "image_similarity", "text_similarity", "contribution"]
        own = f"prediction_id LIKE '{recorder.run_id}-%'"
        recorded.append(read_table(store.uri, "attributions", columns, own))
    assert len(recorded[0]) > 10
    assert recorded[0].equals(recorded[1])


def answer_all(model: Model) -> list[object]:
    """Everything that is asked of a model: labels, predictions, evidence, retrieval, self test."""
    rng = np.random.default_rng(5)
    questions, prompts = (rng.standard_normal((9, d)).astype("f4") for d in DIMS.values())
    asked = dict(zip("abcdefghi", unit_queries(prompts), strict=True))
    asked["taught"] = np.stack(pairs(names(90, 91))["text_vector"].to_numpy().tolist()).astype("f4")
    labels = model.label_vectors(asked)
    assert labels.taught is not None
    found = list(model.classify_vectors([str(n) for n in range(9)], questions, labels))
    anchors, recipe, text = model.anchors, model.recipe, unit_queries(prompts[:1])
    own = [np.array([n, n + 12]) for n in range(3, 12)]
    left_out = anchors.top_k_without("image", own, ask("image")[:9], 5, measure=recipe.measures[0])
    evidence = [one.evidence.contributions("taught") for one in found]
    return [
        [(one.ranking, one.attributions(20), one.attributions(5, "taught")) for one in found],
        [(one.positions.tolist(), one.pair_ids, one.contributions.tolist()) for one in evidence],
        retrieve(anchors, recipe, "text", text, 5),
        score_pairs(anchors, recipe, text, [*names(1, 5), *names(90, 92), "nobody"]).tolist(),
        (left_out.indices.tolist(), left_out.similarities.tolist()),
        (len(labels.compiled.anchors), anchors.examples.tolist(), anchors.count, anchors.pairs),
    ]


@pytest.mark.parametrize("recipe", ["paper", "centred", "white"])
def test_who_asks_makes_nothing_that_is_as_long_as_the_table(
    store: PairStore, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(pairs(names(90, 92), role=["example"] * 2))
    store.publish(command="ingest")
    expected = answer_all(open_model(store.uri, recipe=recipe, k=7))
    shared = share_model(open_model(store.uri, recipe=recipe, k=7), map, 3)
    asking = shared.anchors.stored
    asking.rows_per_fragment[-1] += 10**13  # no memory holds a byte for each of so many
    for name in ("live", "examples", "pair_ids", "image", "text"):
        refuse_whole(monkeypatch, asking, name)
    assert answer_all(shared) == expected


def refuse_whole(monkeypatch: pytest.MonkeyPatch, asking: VersionRows, name: str) -> None:
    """Have these rows alone refuse what holds something of all of them."""
    make = vars(VersionRows)[name].func

    def get(rows: VersionRows) -> object:
        assert rows is not asking, f"{name} of the whole version was asked for"
        return make(rows)

    monkeypatch.setattr(VersionRows, name, property(get))


def test_a_shard_of_forgotten_pairs_is_refused(store: PairStore, tmp_path: Path) -> None:
    shared = SharedAnchors(Anchors(store.dataset()), map, 2)
    forget(store, names(50, 51), reason="asked to", folder=tmp_path / "keys")
    with pytest.raises(StaleModelError):
        shared.top_k("image", ask("image"), 5)


def test_a_process_that_opens_a_shard_first_after_a_forget_refuses_it(
    store: PairStore, tmp_path: Path
) -> None:
    shard = SharedAnchors(Anchors(store.dataset()), map, 2).shards[0]
    forget(store, names(50, 51), reason="asked to", folder=tmp_path / "keys")
    for question in (search_shard, sum_shard, sample_shard):
        with pytest.raises(StaleModelError, match="forgotten"):
            question(ShardQuestion(shard, "image", ask("image"), k=5))


def test_less_than_one_shard_is_refused(store: PairStore) -> None:
    with pytest.raises(InputError, match="at least 1"):
        SharedAnchors(Anchors(store.dataset()), map, 0)
