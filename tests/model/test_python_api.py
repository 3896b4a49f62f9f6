"""Models asked from Python: names and pictures of any kind, answers that are values."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM
from PIL import Image

import asif_lance
from asif_lance.errors import InputError
from asif_lance.ingest import ingest_sources
from asif_lance.model import Prediction
from asif_lance.model.labels import check_names, list_names
from asif_lance.model.prediction_lists import Predictions


@pytest.fixture
def answers(tmp_path: Path, pairs_file: Path, rng: np.random.Generator) -> list[Prediction]:
    ingest_sources(tmp_path / "t.lancedb", [pairs_file])
    model = asif_lance.open(tmp_path / "t.lancedb")
    rows = rng.standard_normal((2, TEXT_DIM)).astype(np.float32)
    labels = model.label_vectors(dict(zip(["<a>", "b"], rows, strict=True)))
    pictures = rng.standard_normal((25, IMAGE_DIM)).astype(np.float32)
    return list(model.classify_vectors([f"p{i}" for i in range(25)], pictures, labels))


def test_the_package_lists_its_public_names() -> None:
    assert set(asif_lance.__all__) <= set(dir(asif_lance))


def test_one_string_is_one_label_and_a_generator_keeps_its_names() -> None:
    assert list_names("dog") == ["dog"]
    assert list_names(name for name in ("cat", "dog")) == ["cat", "dog"]
    assert list_names({"pet": "dog", "wild": ("wolf",)}) == {"pet": ["dog"], "wild": ["wolf"]}


@pytest.mark.parametrize("given", [7, [1, 2], [b"dog"], None])
def test_labels_of_a_wrong_kind_say_what_was_expected(given: object) -> None:
    with pytest.raises(InputError, match="give class names"):
        list_names(given)


@pytest.mark.parametrize("given", ["\ud800", "dog\udcff"])
def test_labels_that_no_table_could_hold_are_refused(given: str) -> None:
    with pytest.raises(InputError, match="which is no text"):
        check_names(["cat", given])


def test_a_pickled_prediction_keeps_its_answer_and_says_why_it_has_no_pairs(
    answers: list[Prediction],
) -> None:
    again = pickle.loads(pickle.dumps(answers[0]))
    assert again == answers[0]
    assert again.to_dict() == answers[0].to_dict()
    with pytest.raises(InputError, match="pickled without its model"):
        again.attributions(3)


def test_a_prediction_is_told_in_one_line(answers: list[Prediction]) -> None:
    assert repr(answers[0]).startswith("Prediction('p0': ")
    assert len(repr(answers[0]).splitlines()) == 1


def test_predictions_become_tables_with_a_row_per_picture(answers: list[Prediction]) -> None:
    frame = Predictions(answers).to_polars()
    assert frame["image"].to_list() == [f"p{i}" for i in range(25)]
    assert frame["score"].to_list() == [p.score for p in answers]
    ranked = frame["predictions"].to_list()
    assert [(r["label"], r["score"]) for r in ranked[3]] == list(answers[3].ranking)
    assert Predictions(answers).to_pandas()["label"].tolist() == [p.label for p in answers]
    assert pl.DataFrame(Predictions([]).to_arrow()).is_empty()


def test_a_notebook_shows_predictions_without_using_them_up(answers: list[Prediction]) -> None:
    stream = Predictions(answers)
    page = stream._repr_html_()
    assert "&lt;a&gt;" in page
    assert "<a>" not in page
    assert [p.image for p in stream] == [p.image for p in answers]


@pytest.mark.encoders
def test_a_picture_in_the_programs_hands_is_classified_as_its_file(tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{colour}.png")
        (tmp_path / f"{colour}.txt").write_text(f"The colour {colour}.")
    ingest_sources(tmp_path / "t.lancedb", [tmp_path])
    model = asif_lance.open(tmp_path / "t.lancedb")
    file = tmp_path / "red.png"
    kinds = [str(file), [file], Image.open(file), np.asarray(Image.open(file)), file.open("rb")]
    for given in kinds:
        (answer,) = model.classify(given, ["red", "blue"])
        assert answer.label == "red"
    assert [p.image for p in model.classify(tmp_path, "red")] == [
        str(tmp_path / "blue.png"),
        str(file),
    ]
    assert model.encode(file)[0] == [str(file)]
    assert len(model.encode_texts("red").vectors) == 1
    with pytest.raises(InputError, match="takes one picture"):
        model.search_image([file, file])
