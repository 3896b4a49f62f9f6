"""The model on vectors: scores are the oracle's, shares sum to scores, versions stay themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, pairs_frame
from oracle import asif_scores, compared, dot

import asif_lance
from asif_lance.errors import DimensionError, EmptyModelError, InputError, InvalidVectorError
from asif_lance.ingest.pipeline import ingest_sources
from asif_lance.model.labels import fill_templates
from asif_lance.model.model import Model
from asif_lance.model.retrieval import retrieve
from asif_lance.relative.recipes import RECIPES
from asif_lance.search.query_grid import unit_queries
from asif_lance.store.pair_store import PairStore

K, P = (30, 12), (4.0, 2.0)


@pytest.fixture
def uri(tmp_path: Path, pairs_file: Path) -> Path:
    ingest_sources(tmp_path / "t.lancedb", [pairs_file])
    return tmp_path / "t.lancedb"


@pytest.fixture(params=sorted(RECIPES))
def model(uri: Path, request: pytest.FixtureRequest) -> Model:
    return asif_lance.open(uri, recipe=request.param, k=K, p=P)


def stored(model: Model) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Live ids and both matrices of a model, in the order of the ids."""
    frame = pl.DataFrame(model.store.read(model.version.name)).sort("pair_id")
    images, texts = (np.array(frame[f"{s}_vector"].to_list()) for s in ("image", "text"))
    return frame["pair_id"].to_list(), images, texts


def oracle(model: Model, images: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    _, image_anchors, text_anchors = stored(model)
    queries = unit_queries(images), unit_queries(prompts)
    return np.array(
        asif_scores(*queries, image_anchors, text_anchors, K, P, recipe=model.recipe.name)
    )


def scores(model: Model, images: np.ndarray, labels: object) -> np.ndarray:
    names = [str(i) for i in range(len(images))]
    found = [dict(p.ranking) for p in model.classify_vectors(names, images, labels)]
    return np.array([[ranking[name] for name in labels.names] for ranking in found])


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((9, IMAGE_DIM)).astype(np.float32)


@pytest.fixture
def prompts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three classes with one, two and four prompts."""
    return {
        name: rng.standard_normal((n, TEXT_DIM)).astype(np.float32)
        for name, n in (("a", 1), ("b", 2), ("c", 4))
    }


def test_max_takes_the_best_prompt_of_a_class(
    model: Model, images: np.ndarray, prompts: dict[str, np.ndarray]
) -> None:
    each = oracle(model, images, np.concatenate(list(prompts.values())))
    expected = np.stack([each[:, :1].max(1), each[:, 1:3].max(1), each[:, 3:].max(1)], axis=1)
    assert scores(model, images, model.label_vectors(prompts)) == pytest.approx(expected, abs=1e-5)


def test_mean_embedding_averages_the_prompts_before_the_search(
    model: Model, images: np.ndarray, prompts: dict[str, np.ndarray]
) -> None:
    means = np.stack([unit_queries(v).astype(np.float64).mean(0) for v in prompts.values()])
    labels = model.label_vectors(prompts, "mean-embedding")
    expected = oracle(model, images, means.astype(np.float32))
    assert scores(model, images, labels) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("ensemble", ["max", "mean-embedding", "mean-relative"])
def test_attributions_sum_to_the_score_of_every_label(
    model: Model, images: np.ndarray, prompts: dict[str, np.ndarray], ensemble: str
) -> None:
    labels = model.label_vectors(prompts, ensemble)
    for prediction in model.classify_vectors(list("abcdefghi"), images, labels):
        for label, score in prediction.ranking:
            shares = prediction.attributions(1000, label)
            assert sum(a.contribution for a in shares) == pytest.approx(score, abs=1e-5)
            assert 0 <= score <= 1 + 1e-6


def test_an_attribution_names_the_pair_and_both_similarities(
    model: Model, images: np.ndarray, prompts: dict[str, np.ndarray]
) -> None:
    ids, image_anchors, text_anchors = stored(model)
    image, text = unit_queries(images[:1]), unit_queries(prompts["a"])
    image, image_anchors = compared(model.recipe.name, 0, image, image_anchors)
    text, text_anchors = compared(model.recipe.name, 1, text, text_anchors)
    labels = model.label_vectors({"a": prompts["a"]})
    (prediction,) = model.classify_vectors(["x"], images[:1], labels)
    share = prediction.attributions(1)[0]
    at = ids.index(share.pair_id)
    assert share.caption == f"caption {share.pair_id[1:]}"
    assert share.image_similarity == pytest.approx(dot(image[0], image_anchors[at]), abs=1e-5)
    assert share.text_similarity == pytest.approx(dot(text[0], text_anchors[at]), abs=1e-5)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_model_after_deleting_and_adding_equals_one_built_fresh(
    recipe: str, uri: Path, tmp_path: Path, rng: np.random.Generator, images: np.ndarray,
    prompts: dict[str, np.ndarray], pairs_file: Path,
) -> None:  # fmt: skip
    more = pairs_frame(40, rng, start=500)
    more.write_parquet(tmp_path / "more.parquet")
    ingest_sources(uri, [tmp_path / "more.parquet"])
    store = PairStore.open(str(uri))
    gone = [f"p{i}" for i in range(0, 200, 3)]
    store.delete(gone)
    store.publish(command="delete")
    kept = pl.concat([more, pl.read_parquet(pairs_file)], how="vertical_relaxed")
    kept = kept.filter(~pl.col("pair_id").is_in(gone)).sample(fraction=1, shuffle=True, seed=1)
    kept.write_parquet(tmp_path / "fresh.parquet")
    ingest_sources(tmp_path / "fresh.lancedb", [tmp_path / "fresh.parquet"])
    edited = asif_lance.open(uri, recipe=recipe, k=K, p=P)
    fresh = asif_lance.open(tmp_path / "fresh.lancedb", recipe=recipe, k=K, p=P)
    answers = [scores(m, images, m.label_vectors(prompts)).tolist() for m in (edited, fresh)]
    assert answers[0] == answers[1]


def test_two_versions_share_the_vectors_that_they_share_on_disk(uri: Path) -> None:
    first = asif_lance.open(uri).anchors
    image = first.image
    store = PairStore.open(str(uri))
    store.delete(["p1"])
    store.publish(command="delete")
    second = asif_lance.open(uri).anchors
    assert (first.count, second.count) == (200, 199)
    assert [b.data_ptr() for b in second.image] == [b.data_ptr() for b in image]


@pytest.mark.parametrize("side", ["image", "text"])
def test_retrieval_with_all_candidates_is_the_exact_ranking(
    model: Model, rng: np.random.Generator, side: str
) -> None:
    dim = IMAGE_DIM if side == "image" else TEXT_DIM
    query = rng.standard_normal((1, dim)).astype(np.float32)
    ids, images, texts = stored(model)
    if side == "image":
        expected = oracle(model, query, texts.astype(np.float32))[0]
    else:
        expected = oracle(model, images.astype(np.float32), query)[:, 0]
    found = retrieve(model.anchors, model.recipe, side, unit_queries(query), 10, 1000)
    best = sorted(zip(-expected, ids, strict=True))[:10]
    assert [m.score for m in found] == pytest.approx([-s for s, _ in best], abs=1e-5)


def test_a_label_set_of_another_version_is_refused(uri: Path, prompts: dict) -> None:
    labels = asif_lance.open(uri).label_vectors(prompts)
    store = PairStore.open(str(uri))
    store.delete(["p1"])
    store.publish(command="delete")
    newer = asif_lance.open(uri)
    with pytest.raises(InputError, match="compiled for v1, this model is v2"):
        list(newer.classify_vectors(["x"], np.ones((1, IMAGE_DIM), np.float32), labels))


def test_a_label_set_of_another_recipe_is_refused(uri: Path, prompts: dict) -> None:
    labels = asif_lance.open(uri, recipe="paper").label_vectors(prompts)
    other = asif_lance.open(uri, recipe="centred")
    with pytest.raises(InputError, match="compiled for the recipe paper"):
        list(other.classify_vectors(["x"], np.ones((1, IMAGE_DIM), np.float32), labels))


def test_a_model_without_pairs_says_so(uri: Path, prompts: dict) -> None:
    store = PairStore.open(str(uri))
    store.delete([f"p{i}" for i in range(200)])
    store.publish(command="delete")
    with pytest.raises(EmptyModelError, match=r"^model version v2 has no ordinary pairs"):
        asif_lance.open(uri).label_vectors(prompts)


def test_vectors_that_cannot_be_compared_are_refused(model: Model, prompts: dict) -> None:
    labels = model.label_vectors(prompts)
    with pytest.raises(DimensionError, match="expected 16 dimensions, got 3"):
        list(model.classify_vectors(["x"], np.ones((1, 3), np.float32), labels))
    with pytest.raises(InvalidVectorError):
        list(model.classify_vectors(["x"], np.zeros((1, IMAGE_DIM), np.float32), labels))


def test_templates_take_every_label_literally() -> None:
    texts, owner = fill_templates(["{}", "a{0}b"], ["a {}.", "{}!"])
    assert texts == ["a {}.", "{}!", "a a{0}b.", "a{0}b!"]
    assert owner.tolist() == [0, 0, 1, 1]
