"""The self-test: pairs stand for labels, and a picture never answers for itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli
from four_things import KINDS, things

import asif_lance
from asif_lance.anchors import HypotheticalAnchors
from asif_lance.errors import InputError
from asif_lance.evaluation import build_self_test
from asif_lance.model import Model, prompts_from_vectors
from asif_lance.relative import RECIPES, make_recipe

DB = ("--db", "t.lancedb")


@pytest.fixture
def build(cli: Cli, tmp_path: Path) -> Callable[..., Model]:
    """A model of pairs."""

    def built(frame: pl.DataFrame) -> Model:
        frame.write_parquet(tmp_path / "pairs.parquet")
        cli(*DB, "ingest", "pairs.parquet", "--captions", "each")
        return asif_lance.open(tmp_path / "t.lancedb")

    return built


def test_the_captions_nearest_to_a_label_stand_for_it(
    build: Callable[..., Model], rng: np.random.Generator
) -> None:
    frame, labels = things(rng, 100)
    model, prompts = build(frame), prompts_from_vectors(labels)
    found = build_self_test(model, prompts)
    assert found.truths.tolist() == [i for i in range(KINDS) for _ in range(10)]
    near = model.anchors.top_k("text", prompts.vectors, 10, measure="centred")
    assert found.positions.reshape(KINDS, 10).tolist() == near.indices.tolist()
    assert found.nearness.tolist() == near.similarities[:, 0].astype(float).tolist()


def test_several_prompts_of_a_label_choose_together(
    build: Callable[..., Model], rng: np.random.Generator
) -> None:
    frame, labels = things(rng, 60)
    both = {"one": np.stack([labels["c0"], labels["c1"]]), "two": labels["c2"]}
    model, prompts = build(frame), prompts_from_vectors(both)
    found = build_self_test(model, prompts)
    first = found.positions[found.truths == 0]
    near = model.anchors.top_k("text", prompts.vectors[:2], 60, measure="centred")
    best = {}
    for indices, cosines in zip(near.indices, near.similarities, strict=True):
        for i, cosine in zip(indices.tolist(), cosines.tolist(), strict=True):
            best[i] = max(best.get(i, -1.0), cosine)
    assert first.tolist() == sorted(best, key=lambda i: -best[i])[:10]


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_copy_of_a_picture_answers_for_it(
    build: Callable[..., Model], rng: np.random.Generator, recipe: str
) -> None:
    frame, labels = things(rng, 30, copies=12)  # more copies than are looked for at first
    model = build(frame).under(make_recipe(recipe))
    found = build_self_test(model, prompts_from_vectors(labels))
    assert {len(copies) for copies in found.copies} == {12}
    near = found.neighbors(model, 40)
    stored = model.anchors.vectors("image", np.arange(len(model.anchors)))
    for row, position in enumerate(found.positions):
        others = near.indices[row]
        assert np.abs(stored[others] - stored[position]).max(axis=1).min() > 0.01
        removed = np.isin(np.arange(len(model.anchors)), found.copies[row])
        query, measure = found.queries[row : row + 1], model.recipe.measures[0]
        left = HypotheticalAnchors.of(model.anchors).without(removed)
        fresh = left.top_k("image", query, 40, measure=measure)
        np.testing.assert_allclose(near.similarities[row], fresh.similarities[0], atol=0.05)
        assert len(np.intersect1d(others, fresh.indices[0])) >= 36


@pytest.mark.parametrize("recipe", RECIPES)
def test_with_fewer_pairs_than_dimensions_it_sees_what_a_new_picture_sees(
    build: Callable[..., Model], rng: np.random.Generator, recipe: str
) -> None:
    """Differences from a mean that knows a picture make it the opposite of all the others."""
    frame, labels = things(rng, 240, noise=1.5, width=256)
    model = build(frame[:40]).under(make_recipe(recipe))
    compiled = model.label_vectors(labels)
    found = build_self_test(model, prompts_from_vectors(labels))
    scores, _ = found.scores(model, compiled)
    told = np.mean(scores.argmax(axis=1) == found.truths)
    new = np.array(frame["image_vector"][40:].to_list(), dtype=np.float32)
    answers = model.classify_vectors([f"c{i % KINDS}" for i in range(200)], new, compiled)
    true = np.mean([answer.label == answer.image for answer in answers])
    assert true > 0.8
    assert told == pytest.approx(true, abs=0.15)


def test_where_all_pictures_are_one_nothing_is_left_to_answer(
    build: Callable[..., Model], rng: np.random.Generator
) -> None:
    frame, labels = things(rng, 1, copies=25)
    model = build(frame)
    found = build_self_test(model, prompts_from_vectors(labels))
    scores, _ = found.scores(model, model.label_vectors(labels))
    assert not scores.any()


def test_a_self_test_needs_twenty_pairs(
    build: Callable[..., Model], rng: np.random.Generator
) -> None:
    frame, labels = things(rng, 19)
    with pytest.raises(InputError, match="19 pairs are too few for a self-test: at least 20"):
        build_self_test(build(frame), prompts_from_vectors(labels))
