"""Accuracy and what stands beside it, on predictions whose truth is known."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import asif_lance
from asif_lance.errors import InputError, SourceError
from asif_lance.evaluation import accuracy
from asif_lance.evaluation.labelled_pictures import Labelled, read_labelled
from asif_lance.evaluation.statistics import (
    RESAMPLES,
    bootstrap_mean,
    mcnemar_test,
    share_interval,
)
from asif_lance.model.predictions import Prediction

DB = ("--db", "t.lancedb")
LABELS = tuple("abc")
Predict = Callable[[list[int], str], list[Prediction]]


@pytest.fixture
def predict(cli: Cli, tmp_path: Path) -> Predict:
    """Predictions for pictures of given classes; v2 has lost all pairs of class c."""
    frame = pairs_frame(3, np.random.default_rng(0))
    image, text = (np.eye(d, dtype=np.float32)[:3] for d in (IMAGE_DIM, TEXT_DIM))
    frame.with_columns(image_vector=image, text_vector=text).write_parquet(tmp_path / "p.parquet")
    cli(*DB, "ingest", "p.parquet")
    cli(*DB, "delete", "p2")

    def classified(kinds: list[int], version: str) -> list[Prediction]:
        model = asif_lance.open(tmp_path / "t.lancedb", model=version)
        labels = model.label_vectors(dict(zip(LABELS, text, strict=True)))
        names = [f"{i}" for i in range(len(kinds))]
        return list(model.classify_vectors(names, image[kinds], labels))

    return classified


def labelled(kinds: list[int], truths: str) -> Labelled:
    """The pictures that `predict` classifies, with their true classes."""
    names = tuple(f"{i}" for i in range(len(kinds)))
    vectors = np.eye(IMAGE_DIM, dtype=np.float32)[kinds]
    return Labelled(names, tuple(truths), vectors=vectors)


def test_accuracy_is_counted_overall_and_by_class(predict: Predict) -> None:
    found = accuracy.evaluate(predict([0, 0, 1, 2, 0], "v1"), labelled([0, 0, 1, 2, 0], "aaaca"))
    assert (found.model, found.pictures, found.labels) == ("v1", 5, 3)
    assert found.top_1 == pytest.approx(4 / 5)
    assert found.top_5 is None  # of three labels, all are among the best five
    assert found.classes == (("a", 4, 0.75), ("c", 1, 1.0))
    assert found.mean_per_class == pytest.approx(0.875)
    assert found.most_frequent == pytest.approx(4 / 5)
    assert found.chance == pytest.approx(1 / 3)
    assert found.nearest_caption == pytest.approx(4 / 5)
    assert found.confusions == (("a", "b", 1),)
    assert found.interval[0] <= found.top_1 <= found.interval[1]


def test_a_model_that_says_nothing_is_not_right(predict: Predict) -> None:
    found = accuracy.evaluate(predict([2, 2], "v2"), labelled([2, 2], "aa"))
    assert (found.top_1, found.nearest_caption) == (0, 0)


def test_vectors_that_are_in_the_model_are_counted(predict: Predict) -> None:
    mixed = labelled([0, 2, 2], "acc")
    assert accuracy.evaluate(predict([0, 2, 2], "v1"), mixed).pictures_in_model == 3
    assert accuracy.evaluate(predict([0, 2, 2], "v2"), mixed).pictures_in_model == 1
    others = Labelled(mixed.names, mixed.truths, vectors=2 * mixed.embeddings + 0.01)
    assert accuracy.evaluate(predict([0, 2, 2], "v1"), others).pictures_in_model == 0
    longer = Labelled(mixed.names, mixed.truths, vectors=2 * mixed.embeddings)
    assert accuracy.evaluate(predict([0, 2, 2], "v1"), longer).pictures_in_model == 3


def test_six_labels_have_a_top_5_and_five_have_none(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pairs_frame(30, rng).write_parquet(tmp_path / "p.parquet")
    cli(*DB, "ingest", "p.parquet")
    vectors = rng.standard_normal((12, IMAGE_DIM)).astype(np.float32)
    for count, shown in ((5, False), (6, True)):
        names = [f"c{i}" for i in range(count)]
        rows = {"label": [names[i % count] for i in range(12)], "vector": vectors}
        pl.DataFrame(rows).write_parquet(tmp_path / "test.parquet")
        texts = rng.standard_normal((count, TEXT_DIM)).astype(np.float32)
        pl.DataFrame({"label": names, "vector": texts}).write_parquet(tmp_path / "labels.parquet")
        asked = (*DB, "evaluate", "test.parquet", "--label-vectors", "labels.parquet")
        assert ("top-5" in cli(*asked).out) is shown
        (found,) = cli(*asked, "--format", "json").objects
        assert (found["top_5"] is not None) is shown
        if shown:
            assert found["top_1"] <= found["top_5"] <= 1


def test_versions_are_compared_picture_by_picture(predict: Predict) -> None:
    kinds, truths = [0, 1, 2, 2, 2], list("abccc")
    found = accuracy.compare(predict(kinds, "v1"), predict(kinds, "v2"), truths)
    assert (found.first, found.second) == ("v1", "v2")
    assert (found.only_first, found.only_second) == (3, 0)
    assert found.difference == pytest.approx(-3 / 5)
    assert found.interval is not None
    assert found.interval[0] <= found.difference <= found.interval[1] <= 0
    assert found.p_value == pytest.approx(0.25)


def test_a_single_picture_gives_a_difference_no_interval(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs_frame(30, rng).write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    cli(*DB, "delete", "p1")
    vector = rng.standard_normal((1, IMAGE_DIM)).astype(np.float32)
    pl.DataFrame({"label": ["a"], "vector": vector}).write_parquet(tmp_path / "test.parquet")
    texts = rng.standard_normal((2, TEXT_DIM)).astype(np.float32)
    pl.DataFrame({"label": ["a", "b"], "vector": texts}).write_parquet(tmp_path / "labels.parquet")
    asked = (*DB, "evaluate", "test.parquet", "--label-vectors", "labels.parquet")
    models = ("--model", "v1", "--model", "v2")
    assert "(no interval: one picture)" in cli(*asked, *models).out
    assert cli(*asked, *models, "--format", "json").objects[-1]["interval"] is None


def test_what_cannot_be_compared_is_refused(predict: Predict) -> None:
    with pytest.raises(InputError, match="2 predictions for 1 labelled picture"):
        accuracy.evaluate(predict([0, 1], "v1"), labelled([0], "a"))
    with pytest.raises(InputError, match="the class 'z' is not among the 3 labels"):
        accuracy.evaluate(predict([0], "v1"), labelled([0], "z"))
    with pytest.raises(InputError, match="the same pictures"):
        accuracy.compare(predict([0], "v1"), predict([0, 1], "v1"), ["a"])


@given(st.integers(0, 9), st.integers(0, 9))
def test_mcnemar_is_the_share_of_coin_tosses_at_least_as_uneven(one: int, other: int) -> None:
    n = one + other
    if n > 12:
        n, one, other = 6, min(one, 6), 6 - min(one, 6)
    tosses = [sum(toss) for toss in product((0, 1), repeat=n)]
    uneven = [abs(2 * heads - n) >= abs(one - other) for heads in tosses]
    assert mcnemar_test(one, other) == pytest.approx(sum(uneven) / len(tosses))


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_intervals_hold_the_mean_and_do_not_change(right: list[bool]) -> None:
    values = np.array(right)
    low, high = share_interval(values)
    assert 0 <= low <= values.mean() <= high <= 1
    assert low < high
    found = bootstrap_mean(values.astype(np.int64))
    assert bootstrap_mean(values.astype(np.int64)) == found
    assert (found is None) == (len(right) == 1)  # one value shows no spread
    if found is not None:
        assert 0 <= found[0] <= values.mean() <= found[1] <= 1


def test_all_right_is_not_said_to_be_certain() -> None:
    low, high = share_interval(np.ones(20, dtype=bool))  # Wilson 1927: n / (n + z²)
    assert (low, high) == (pytest.approx(20 / (20 + 1.959964**2), abs=1e-6), 1)
    low, high = share_interval(np.zeros(20, dtype=bool))
    assert (low, high) == (0, pytest.approx(1.959964**2 / (20 + 1.959964**2), abs=1e-6))


def test_a_bootstrap_by_counts_has_the_interval_of_one_that_draws_every_value() -> None:
    values = np.repeat([-1, 0, 1], [12, 60, 28])
    draws = np.random.default_rng(1).choice(values, (RESAMPLES, len(values)))
    expected = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    assert bootstrap_mean(values) == pytest.approx(expected, abs=0.011)  # means are hundredths


def test_folders_without_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"expected CLASS/picture\.jpg"):
        read_labelled(tmp_path)


@pytest.mark.encoders
def test_a_folder_is_evaluated_and_bad_pictures_are_told(cli: Cli, tmp_path: Path) -> None:
    for name, color in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
        for folder in (tmp_path / "pairs", tmp_path / "test" / name):
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), color).save(folder / f"{name}.png")
            (folder / f"{name}.txt").write_text(f"a {name} square")
    (tmp_path / "test" / "red" / "broken.png").write_bytes(b"no picture")
    assert cli(*DB, "ingest", "pairs").status == 0
    done = cli(*DB, "evaluate", "test", "--format", "json", "--model", "v1", "--model", "v1")
    assert done.status == 1
    assert "broken.png: " in done.err
    first, second, difference = done.objects
    assert first == second
    assert (first["pictures"], first["labels"], first["top_1"]) == (2, 2, 1.0)
    assert first["pictures_in_model"] == 2  # the same files
    assert (difference["difference"], difference["p_value"]) == (0, 1)
    _make_clip(tmp_path / "clip")
    compared = cli(*DB, "evaluate", "test", "--clip", tmp_path / "clip", "--format", "json")
    trained = compared.objects[1]
    assert (trained["first"], trained["second"]) == ("v1", str(tmp_path / "clip"))
    assert trained["difference"] == (trained["only_second"] - trained["only_first"]) / 2
    refused = cli(*DB, "evaluate", "test", "--clip", "all-MiniLM-L6-v2")
    assert refused.status == 1
    assert "all-MiniLM-L6-v2 embeds texts only: it is no CLIP" in refused.err
    shutil.rmtree(tmp_path / "test" / "red")
    shown = cli(*DB, "evaluate", "test")
    assert shown.status == 0
    assert shown.out.startswith("v1: 1 picture, 1 label\n")
    assert re.search(r"pictures in the model +1\n", shown.out)
    Image.new("RGB", (64, 64), (0, 0, 200)).save(tmp_path / "test" / "blue" / "blue.png")
    (found,) = cli(*DB, "evaluate", "test", "--format", "json").objects
    assert found["pictures_in_model"] == 0


def _make_clip(folder: Path) -> None:
    """A CLIP with random weights, small enough to be made here."""
    import json

    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder.mkdir()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + ["."]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    side = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    side["num_attention_heads"] = 2
    text = side | {"vocab_size": len(tokens), "max_position_embeddings": 20, "eos_token_id": 1}
    vision = side | {"image_size": 16, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    names = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = CLIPTokenizer(*names, model_max_length=20)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    CLIPProcessor(CLIPImageProcessor(**sizes), tokenizer).save_pretrained(folder)
