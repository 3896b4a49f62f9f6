"""Every search, told to look everywhere, finds what comparing all pairs one by one finds."""

from __future__ import annotations

from collections.abc import Callable

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pairs_at_hand import names, new_store, pairs
from torch_settings import MODES

import asif_lance
from asif_lance.anchors import INDEX, Anchors, IndexSearch, SampledSearch, SearchSetting
from asif_lance.model import Model, prompts_from_vectors
from asif_lance.records import Float32Array, RelativeVectors
from asif_lance.relative import CompiledTexts, Recipe, relative_vectors
from asif_lance.search import unit_queries
from asif_lance.store import PairStore

IMAGE, TEXT, COUNT, COPIES, P = 16, 8, 300, 5, 4.0
LABELS = prompts_from_vectors(
    {f"label {i}": np.random.default_rng(i).normal(size=TEXT).astype(np.float32) for i in range(3)}
)

Search = Callable[[Anchors, Recipe, Float32Array, CompiledTexts], RelativeVectors]


def exact(
    anchors: Anchors, recipe: Recipe, queries: Float32Array, labels: CompiledTexts
) -> RelativeVectors:
    """The search that the others approximate."""
    near = anchors.top_k("image", queries, recipe.k[0], measure=recipe.measures[0])
    return relative_vectors(near, recipe.p[0], len(anchors))


SEARCHES: dict[str, Search] = {
    "exact": exact,
    "index": IndexSearch(SearchSetting(nprobes=1000, candidates=2.0 * COUNT), "dot"),
    "sampled": SampledSearch(SearchSetting(fraction=1.0)),
}


def add(store: PairStore, ids: list[str]) -> None:
    store.add(pairs(ids, image=IMAGE, text=TEXT))
    store.publish(command="ingest")


def add_copies(store: PairStore, ids: list[str]) -> None:
    """Further pairs with the pictures of these: cosines that are equal to the last bit."""
    for i in range(1, COPIES):
        more = pairs([f"{i}-{pair_id}" for pair_id in ids], image=IMAGE, text=TEXT)
        place = more.schema.get_field_index("image_vector")
        pictures = pairs(ids, image=IMAGE)["image_vector"]
        store.add(more.set_column(place, "image_vector", pictures))
    store.publish(command="ingest")


def build_index(store: PairStore) -> None:
    head = lance.dataset(f"{store.uri}/pairs.lance")
    head.create_index("image_vector", "IVF_FLAT", name=INDEX, metric="dot", num_partitions=4)
    store.adopt_head()


def one_ingest(store: PairStore) -> None:
    add(store, names(0, COUNT))
    build_index(store)


def copies(store: PairStore) -> None:
    add(store, names(0, COUNT // COPIES))
    add_copies(store, names(0, COUNT // COPIES))
    build_index(store)


def deleted(store: PairStore) -> None:
    one_ingest(store)
    store.delete(names(50, 150))
    store.publish(command="delete")


def added_later(store: PairStore) -> None:
    add(store, names(0, COUNT // 2))
    build_index(store)
    add(store, names(COUNT // 2, COUNT))
    store.delete(names(COUNT - 10, COUNT))
    store.publish(command="delete")


@pytest.fixture(scope="module", params=[one_ingest, copies, deleted, added_later])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    store = new_store(tmp_path_factory.mktemp(request.param.__name__), IMAGE, TEXT)
    request.param(store)
    return store


@pytest.fixture
def queries(store: PairStore) -> Float32Array:
    """Pictures that no pair has, and one that pairs have."""
    others = np.random.default_rng(7).normal(size=(4, IMAGE))
    own = matrix(
        store.read().filter(pc.field("pair_id") == names(3, 4)[0]).select(["image_vector"])
    )
    return unit_queries(np.concatenate([others, own]))


def matrix(rows: pa.Table) -> np.ndarray:
    return np.stack(rows["image_vector"].to_pylist()).astype(np.float64)


def one_by_one(model: Model, query: np.ndarray) -> dict[str, float]:
    """One query's relative vector by pair, best first, as the definition has it."""
    rows, recipe = model.store.read(), model.recipe
    vectors, ids = matrix(rows), rows["pair_id"].to_pylist()
    query, lengths = query.astype(np.float64), np.ones(len(ids))
    if recipe.measures[0] == "white":
        whitening = model.anchors.whitened("image").whitening
        values, axes = np.linalg.eigh(whitening.metric)
        query = (query - whitening.mean) @ axes * np.sqrt(values)
        query = query / np.linalg.norm(query)
        vectors = (vectors - whitening.mean) @ axes * np.sqrt(values)
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), whitening.least)
    if recipe.measures[0] == "centred":
        mean = vectors.sum(axis=0) / (len(ids) + 1)
        query = (query - mean) / np.linalg.norm(query - mean)
        vectors = vectors - mean
        usual = np.sqrt(1 - mean @ mean)
        lengths = np.maximum(np.linalg.norm(vectors, axis=1), usual / 4)
    cosines = [float(np.sum(v * query)) / float(n) for v, n in zip(vectors, lengths, strict=True)]
    order = sorted(range(len(ids)), key=lambda i: (-cosines[i], ids[i]))[: recipe.k[0]]
    powers = [max(cosines[i], 0.0) ** recipe.p[0] for i in order]
    norm = sum(power**2 for power in powers) ** 0.5
    return {ids[i]: power / norm for i, power in zip(order, powers, strict=True)}


@pytest.mark.parametrize("k", [1, 7, 60, 10 * COUNT])
@pytest.mark.parametrize("recipe", ["paper", "centred", "white"])
@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
def test_a_search_that_looks_everywhere_finds_the_nearest_pairs(
    store: PairStore, queries: Float32Array, search: Search, recipe: str, k: int
) -> None:
    model = asif_lance.open(store.uri, recipe=recipe, k=(k, 10), p=P, device="cpu")
    found = search(model.anchors, model.recipe, queries, model.compile(LABELS).compiled)
    for query, positions, values in zip(queries, found.indices, found.values, strict=True):
        expected = one_by_one(model, query)
        ids = model.anchors.ids(positions)
        assert ids == list(expected)
        np.testing.assert_allclose(values, list(expected.values()), atol=1e-5)


@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
def test_a_query_alone_gets_what_it_gets_among_others(
    store: PairStore, queries: Float32Array, search: Search
) -> None:
    model = asif_lance.open(store.uri, k=(20, 10), p=P, device="cpu")
    labels = model.compile(LABELS).compiled
    together = search(model.anchors, model.recipe, queries, labels)
    for i in range(len(queries)):
        alone = search(model.anchors, model.recipe, queries[i : i + 1], labels)
        np.testing.assert_array_equal(alone.indices[0], together.indices[i])
        np.testing.assert_array_equal(alone.values[0], together.values[i])


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_of_torch_changes_what_a_search_finds(
    store: PairStore, queries: Float32Array, mode: str
) -> None:
    def found() -> list[np.ndarray]:
        model = asif_lance.open(store.uri, k=(20, 10), p=P, device="cpu")
        labels, anchors = model.compile(LABELS).compiled, model.anchors
        relative = [s(anchors, model.recipe, queries, labels) for s in SEARCHES.values()]
        own = [one.indices[0] for one in relative]
        asked = queries[: len(own)]
        similar = [
            *anchors.similarities("image", own, asked, measure="centred"),
            *anchors.similarities("image", own, asked, measure="white"),
        ]
        return [*(one.values for one in relative), *own, *similar]

    expected = found()
    with MODES[mode]():
        for one, other in zip(found(), expected, strict=True):
            np.testing.assert_array_equal(one, other)
