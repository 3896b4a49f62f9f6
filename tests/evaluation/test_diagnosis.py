"""Diagnosis of pairs whose faults are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli
from hypothesis import given
from hypothesis import strategies as st

import asif_lance
from asif_lance.errors import InputError
from asif_lance.evaluation.diagnosis import diagnose, examine_captions, is_uninformative
from asif_lance.evaluation.pair_similarity import measure_similarity, skewness
from asif_lance.model.labels import prompts_from_vectors
from asif_lance.model.model import Model

DB = ("--db", "t.lancedb")


@pytest.fixture
def model(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> Model:
    """200 pairs: `good` captions follow their images, `bad` ones are drawn without looking."""
    kinds = rng.integers(4, size=200)
    image, text = (np.eye(4, d, dtype=np.float32) for d in (IMAGE_DIM, TEXT_DIM))
    said = np.where(np.arange(200) < 100, kinds, rng.integers(4, size=200))
    frame = pl.DataFrame(
        {
            "pair_id": [f"p{i:03}" for i in range(200)],
            "caption": [f"a thing of kind k{kind} number {i}" for i, kind in enumerate(said)],
            "source": ["good"] * 100 + ["bad"] * 100,
            "image_vector": image[kinds] + 0.2 * rng.random((200, IMAGE_DIM), np.float32),
            "text_vector": text[said] + 0.2 * rng.random((200, TEXT_DIM), np.float32),
        }
    )
    frame.write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    return asif_lance.open(tmp_path / "t.lancedb")


def test_sources_whose_captions_do_not_follow_their_images_have_a_smaller_gap(
    model: Model,
) -> None:
    found = diagnose(model)
    good, bad = sorted(found.sources, key=lambda gap: -gap.gap)
    assert (good.source, bad.source, good.probes) == ("good", "bad", 100)
    assert good.gap > 0.2 > abs(bad.gap)
    assert found.gap.gap == pytest.approx((good.gap + bad.gap) / 2)
    assert (found.reference, found.near) == (200, 10)
    for bars in found.histograms.values():
        assert sum(bars) == pytest.approx(1)
    assert sum(anchors * lists for anchors, lists in found.occurrences) == 200 * 10


def test_the_most_similar_are_those_of_a_plain_double_loop(
    model: Model, rng: np.random.Generator
) -> None:
    found = measure_similarity(model.anchors, 30, rng)
    every = np.arange(200)
    image, text = (model.anchors.vectors(side, every) for side in ("image", "text"))
    lists = np.zeros(200, dtype=int)
    for place, probe in enumerate(found.probes):
        alike = image @ image[probe]
        others = [i for i in every if alike[i] < 0.999]
        near = sorted(others, key=lambda i: -alike[i])[:10]
        lists[near] += 1
        said = text @ text[probe]
        assert found.near_texts[place] == pytest.approx(said[near].mean(), abs=1e-5)
        assert found.all_texts[place] == pytest.approx(said[others].mean(), abs=1e-5)
    assert found.lists["image"].tolist() == lists.tolist()


def test_a_picture_with_several_captions_is_no_evidence_for_itself(
    cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    photos = np.repeat(rng.standard_normal((30, IMAGE_DIM)).astype(np.float32), 5, axis=0)
    texts = np.repeat(rng.standard_normal((30, TEXT_DIM)).astype(np.float32), 5, axis=0)
    rows = {"caption": ["x"] * 150, "pair_id": [f"{i}" for i in range(150)]}
    vectors = {"image_vector": photos, "text_vector": texts}
    pl.DataFrame({**rows, **vectors}).write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    found = diagnose(asif_lance.open(tmp_path / "t.lancedb"))
    assert abs(found.gap.gap) < 0.1


def test_an_anchor_in_the_middle_of_all_is_the_first_hub(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image = rng.standard_normal((100, IMAGE_DIM)).astype(np.float32) + 0.5
    image[42] = image.mean(axis=0)
    rows = {"caption": [f"c{i}" for i in range(100)], "pair_id": [f"p{i}" for i in range(100)]}
    text = rng.standard_normal((100, TEXT_DIM)).astype(np.float32)
    frame = pl.DataFrame({**rows, "image_vector": image, "text_vector": text})
    frame.write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    hubs = diagnose(asif_lance.open(tmp_path / "t.lancedb")).hubs[0]
    assert hubs.side == "image"
    assert hubs.top[0][:2] == ("p42", "c42")
    assert hubs.top[0][2] > 3 * 10 / 100  # three times its share
    assert hubs.skewness > 1


@pytest.mark.parametrize(
    ("caption", "empty"),
    [
        ("IMG_20180823.jpg", True),
        ("D90 18.0-70.0 mm f/3.5-4.5", True),
        ("DSC 0042", True),
        ("123", True),
        ("", True),
        ("a cat.jpg", False),
        ("A dog runs.", False),
        ("Hund", False),
        ("une vache à 50 mm", False),
    ],
)
def test_captions_without_a_word_say_nothing(caption: str, empty: bool) -> None:
    assert is_uninformative(caption) is empty


def test_repeated_captions_are_counted_but_for_case_and_spaces() -> None:
    found = examine_captions(["A cat", "a  cat", "a dog", "IMG_1.jpg", "IMG_1.jpg"])
    assert (found.pairs, found.duplicates, found.uninformative) == (5, 4, 2)
    assert found.repeated == (("a cat", 2), ("img_1.jpg", 2))
    assert found.examples == ("IMG_1.jpg",)


def test_equal_counts_are_not_skewed() -> None:
    assert skewness(np.array([3, 3, 3])) == 0
    assert skewness(np.array([0, 0, 3])) == pytest.approx(1 / np.sqrt(2))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=50))
def test_skewness_is_that_of_the_mirrored_counts_reversed(counts: list[int]) -> None:
    values = np.array(counts)
    assert skewness(values) == pytest.approx(-skewness(50 - values), abs=1e-9)


def test_coverage_counts_mentions_as_words_and_sees_which_labels_lead_somewhere(
    model: Model,
) -> None:
    text = np.eye(4, TEXT_DIM, dtype=np.float32)
    asked = prompts_from_vectors({"k0": text[0], "K1": text[1], "k": text[2], "a.b": text[3]})
    found = {c.label: c for c in diagnose(model, asked, probes=5).coverage}
    captions = [row["caption"] for row in model.anchors.rows(np.arange(200), ["caption"])]
    assert found["k0"].mentions == sum("k0" in caption for caption in captions)
    assert found["K1"].mentions == sum("k1" in caption for caption in captions)
    assert (found["k"].mentions, found["a.b"].mentions) == (0, 0)
    assert "kind k0" in found["k0"].caption
    positions = model.anchors.top_k("text", text[:1], 10).indices[0]
    images = model.anchors.vectors("image", np.arange(200)).astype(np.float64)
    centred = images[positions] - images.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    pairs = [centred[i] @ centred[j] for i in range(10) for j in range(i)]
    assert found["k0"].agreement == pytest.approx(np.mean(pairs), abs=1e-3)


def test_too_few_pairs_cannot_be_diagnosed(cli: Cli, tmp_path: Path, model: Model) -> None:
    frame = pl.read_parquet(tmp_path / "pairs.parquet").head(19)
    frame.write_parquet(tmp_path / "few.parquet")
    cli("--db", "few.lancedb", "ingest", "few.parquet")
    with pytest.raises(InputError, match="19 pairs are too few to compare: at least 20"):
        diagnose(asif_lance.open(tmp_path / "few.lancedb"))


def test_the_command_shows_sources_hubs_and_captions(
    cli: Cli, model: Model, tmp_path: Path
) -> None:
    shown = cli(*DB, "diagnose", "--plot", "pairs.png")
    assert shown.status == 0
    assert shown.out.startswith("v1: 200 probes against 200 pairs, the 10 most similar images")
    assert "image hubs: skewness" in shown.out
    assert (tmp_path / "pairs.png").stat().st_size > 10_000
    (told,) = cli(*DB, "diagnose", "--probes", 7, "--format", "json").objects
    assert told["gap"]["probes"] == 7
    assert told["coverage"] == []
    one = cli(*DB, "diagnose", "--probes", 1, "--plot", "one.png")
    assert one.err == "one probe shows no spread: --probes 1000 does\n"
    (told,) = cli(*DB, "diagnose", "--probes", 1, "--format", "json").objects
    assert told["gap"]["deviation"] is told["sources"][0]["deviation"] is None
