"""On real pictures: the self-test chooses well, sets cover what they state, kinds are told."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

import asif_lance
from asif_lance.encoders import DEFAULT_IMAGE, DEFAULT_TEXT
from asif_lance.evaluation import (
    Grid,
    predict,
    read_labelled,
    report_confidence,
    tune,
    tune_by_self_test,
)
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.model import Model
from asif_lance.relative import RECIPES
from asif_lance.relative.recipes import PAPER

SHARED = Path(os.environ.get("ASIF_SHARED", Path(__file__).parents[2].parent / "shared"))
DATA = SHARED / "data"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.encoders,
    pytest.mark.skipif(
        not (DATA / "flickr8k").is_dir(), reason="needs the development data beside the checkout"
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Flickr8k with the mean of its five captions."""
    folder = tmp_path_factory.mktemp("self-test")
    captions = pl.read_parquet(DATA / "flickr8k" / "captions.parquet")
    pictures = pl.read_parquet(DATA / "flickr8k" / "images.parquet")
    pairs = captions.join(pictures, on="image").sort("image", "caption")
    pairs.rename({"image": "image_uri"}).write_parquet(folder / "pairs.parquet")
    options = IngestOptions(image_encoder=DEFAULT_IMAGE, text_encoder=DEFAULT_TEXT)
    ingest_sources(folder / "t.lancedb", [folder / "pairs.parquet"], options)
    return asif_lance.open(folder / "t.lancedb")


def test_the_self_test_chooses_within_three_points_of_the_best_and_above_paper(
    model: Model,
) -> None:
    clothing = read_labelled(DATA / "clothing" / "test.parquet")
    prompts = model.prompts(clothing.classes)
    grid = Grid(k=(200, 800, 1600), p=(1, 2, 4, 8), recipes=tuple(RECIPES))
    best = tune_by_self_test(model, prompts, grid).best
    true = {(c.recipe, c.k, c.p): c.top_1 for c in tune(model, clothing, prompts, grid).choices}
    chosen = true[best.recipe, best.k, best.p]
    assert chosen >= max(true.values()) - 0.03
    assert chosen > true[PAPER.name, PAPER.k, PAPER.p]


@pytest.mark.parametrize("pictures", ["clothing/test", "eurosat/sample"])
def test_sets_cover_what_they_state_and_another_kind_is_told(model: Model, pictures: str) -> None:
    labelled = read_labelled(DATA / f"{pictures}.parquet")
    answers = predict(model, labelled, model.prompts(labelled.classes))
    for stated in (0.8, 0.9):
        by_pairs, by_halves = report_confidence(model, answers, labelled.truths, stated)
        assert by_halves.covered == pytest.approx(stated, abs=0.02)
        assert by_halves.none == pytest.approx(1 - stated, abs=0.02)
        assert by_pairs.kind.is_another == pictures.startswith("eurosat")
    assert by_pairs.ranks is not None
    assert by_pairs.ranks > 0.5
