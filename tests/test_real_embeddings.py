"""On real embeddings: the oracle's scores, and the accuracy that a plain script once measured."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from oracle import asif_scores

import asif_lance
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.model.model import Model
from asif_lance.search.query_grid import unit_queries
from asif_lance.store.pair_store import PairStore

SHARED = Path(os.environ.get("ASIF_SHARED", Path(__file__).parents[1].parent / "shared"))

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(
        not (SHARED / "data" / "flickr8k").is_dir(),
        reason="needs the development data beside the checkout",
    ),
]


@pytest.fixture(scope="module")
def cifar() -> pl.DataFrame:
    return pl.read_parquet(SHARED / "data" / "cifar10" / "test-sample.parquet")


def database(folder: Path, pairs: pl.DataFrame) -> Model:
    """A database of Flickr8k pairs whose vectors the default encoders made."""
    pairs = pairs.with_row_index("pair_id").with_columns(pl.col("pair_id").cast(pl.String))
    pairs.write_parquet(folder / "pairs.parquet")
    names = IngestOptions(
        image_encoder="timm/tf_efficientnet_lite0",
        text_encoder="sentence-transformers/all-MiniLM-L6-v2",
    )
    ingest_sources(folder / "t.lancedb", [folder / "pairs.parquet"], names)
    return asif_lance.open(folder / "t.lancedb", recipe="paper")


def flickr() -> pl.DataFrame:
    """Photos with five captions each: the image side is full of exact ties."""
    folder = SHARED / "data" / "flickr8k"
    captions = pl.read_parquet(folder / "captions.parquet")
    return captions.join(pl.read_parquet(folder / "images.parquet"), on="image").sort(
        "image", "caption"
    )


@pytest.mark.parametrize(("n", "k"), [(1, 800), (700, 800), (800, 800), (801, 800), (5000, 7)])
def test_scores_on_photos_with_five_captions_are_the_oracles(
    tmp_path: Path, cifar: pl.DataFrame, n: int, k: int
) -> None:
    pairs = flickr().head(n)
    database(tmp_path, pairs)
    model = asif_lance.open(tmp_path / "t.lancedb", recipe="paper", k=k)
    images = np.array(cifar["vector"][:3].to_list(), dtype=np.float32)
    labels = model.labels(["frog", "dog", "airplane"])
    frame = pl.DataFrame(PairStore.open(str(tmp_path / "t.lancedb")).read()).sort("pair_id")
    anchors = [np.array(frame[f"{side}_vector"].to_list()) for side in ("image", "text")]
    queries = unit_queries(images), labels.prompts.vectors
    expected = asif_scores(*queries, *anchors, (k, k), (8, 8))
    for prediction, scores in zip(
        model.classify_vectors(list("abc"), images, labels), expected, strict=True
    ):
        found = dict(prediction.ranking)
        assert [found[name] for name in labels.names] == pytest.approx(scores, abs=1e-5)
        assert prediction.label == labels.names[int(np.argmax(scores))]


def test_flickr_pairs_classify_cifar_pictures_as_well_as_the_plain_script(
    tmp_path: Path, cifar: pl.DataFrame
) -> None:
    """One caption per photo, prompt "a photo of a {}.": 33.5 % was measured, chance is 10 %.

    The default recipe is ten points better.
    """
    first = pl.read_parquet(SHARED / "data" / "flickr8k" / "captions.parquet").unique(
        "image", keep="first", maintain_order=True
    )
    images = pl.read_parquet(SHARED / "data" / "flickr8k" / "images.parquet")
    vectors = np.array(cifar["vector"].to_list(), dtype=np.float32)

    def accuracy(model: Model) -> float:
        labels = model.labels(sorted(cifar["label"].unique()))
        found = model.classify_vectors(cifar["id"].to_list(), vectors, labels)
        return float(np.mean([p.label == t for p, t in zip(found, cifar["label"], strict=True)]))

    paper = accuracy(database(tmp_path, first.join(images, on="image")))
    assert paper == pytest.approx(0.335, abs=0.01)
    assert accuracy(asif_lance.open(tmp_path / "t.lancedb")) >= paper + 0.1
