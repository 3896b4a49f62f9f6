"""Models asked from Python: names and pictures of any kind, answers that are values."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from conftest import IMAGE_DIM, TEXT_DIM
from PIL import Image

import asif_lance
from asif_lance.encoders import encode_images, read_label_vectors
from asif_lance.errors import InputError
from asif_lance.evaluation import read_labelled
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.model import LabelSet, Model, Prediction
from asif_lance.model.labels import check_names, list_names
from asif_lance.model.prediction_lists import Predictions
from asif_lance.model.reranker import AsifReranker
from asif_lance.relative import make_recipe


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
    assert list_names(pa.array(["cat", "dog"])) == ["cat", "dog"]
    assert list_names({"pet": "dog", "wild": ("wolf",)}) == {"pet": ["dog"], "wild": ["wolf"]}


def test_blanks_around_a_label_are_no_part_of_it_wherever_it_comes_from(
    tmp_path: Path, model: Model
) -> None:
    rows = [[1.0] * TEXT_DIM, [-1.0] * TEXT_DIM]
    assert list_names([" bird ", "cat\n"]) == ["bird", "cat"]
    assert list_names({" pet ": " dog"}) == {"pet": ["dog"]}
    assert model.label_vectors({" bird": rows[0]}).names == ("bird",)
    for twice in ([" bird", "bird"], {" bird": "a", "bird": "b"}):
        with pytest.raises(InputError, match="'bird' is given twice"):
            check_names(list(list_names(twice)))
    with pytest.raises(InputError, match="'bird' is given twice"):
        model.label_vectors(dict(zip([" bird", "bird"], rows, strict=True)))
    frame = pl.DataFrame({"label": [" bird", "bird ", "cat"], "vector": [rows[0], *rows]})
    frame.write_parquet(tmp_path / "labels.parquet")
    assert list(read_label_vectors(tmp_path / "labels.parquet")) == ["bird", "cat"]
    truths = pl.DataFrame({"label": [" bird", "bird "], "vector": [[1.0] * IMAGE_DIM] * 2})
    truths.write_parquet(tmp_path / "labelled.parquet")
    assert read_labelled(tmp_path / "labelled.parquet").classes == ("bird",)


@pytest.mark.parametrize("given", [7, [1, 2], [b"dog"], None])
def test_labels_of_a_wrong_kind_say_what_was_expected(given: object) -> None:
    with pytest.raises(InputError, match="give class names"):
        list_names(given)


def test_a_label_without_vectors_is_named(model: Model) -> None:
    vectors = {"b": np.ones(TEXT_DIM, np.float32), "a": np.ones((0, TEXT_DIM), np.float32)}
    with pytest.raises(InputError, match="label 'a' has no vectors"):
        model.label_vectors(vectors)


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


def test_what_a_program_holds_is_told_in_one_line(model: Model) -> None:
    labels = labels_of(model)
    told = [repr(one) for one in (model, labels, labels.prompts, Predictions([]))]
    assert told[0].endswith(f"m.lancedb', 'v1', {model.recipe})")
    assert told[1].startswith("LabelSet('a'; white (k = 800")
    assert told[2:] == ["Prompts('a')", "Predictions(made while they are read)"]
    many = replace(labels.prompts, names=("a", "b" * 100, "c", "d"))
    assert repr(many) == f"Prompts('a', '{'b' * 39}, 'c', … 4 in all)"
    assert labels != labels_of(model)


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
def test_a_notebook_shows_the_picture_and_the_pairs_that_decided(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    (tmp_path / "red.txt").write_text("<b>Red</b>\u202e.")
    ingest_sources(tmp_path / "t.lancedb", [tmp_path])
    answer = next(asif_lance.open(tmp_path / "t.lancedb").classify(tmp_path / "red.png", "red"))
    page = answer._repr_html_()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "&lt;b&gt;Red" in page
    assert "\u202e" not in page
    assert pickle.loads(pickle.dumps(answer))._repr_html_().count("data:image") == 1


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


@pytest.fixture
def model(tmp_path: Path, pairs_file: Path) -> Model:
    ingest_sources(tmp_path / "m.lancedb", pairs_file)  # one source by itself
    return asif_lance.open(tmp_path / "m.lancedb")


WRONG: dict[str, tuple[Callable[[Model], object], str]] = {
    "an id too many": (
        lambda m: list(m.classify_vectors(["a", "b"], np.ones((1, IMAGE_DIM)), labels_of(m))),
        "2 ids for 1 vectors",
    ),
    "words for vectors": (
        lambda m: list(m.classify_vectors(["a"], [["x"]], labels_of(m))),
        "image vectors: expected a matrix of numbers, got list",
    ),
    "a single vector": (lambda m: m.relate_images([1.0] * IMAGE_DIM), "expected a matrix, got 1"),
    "pairs for a mapping": (lambda m: m.label_vectors([("a", [1.0])]), "give a mapping of labels"),
    "a number for a text": (lambda m: m.search_text(5), "text: give a text or several, not 5"),
    "numbers for texts": (lambda m: m.encode_texts([1]), "texts: give a text or several, not 1"),
    "numbers to cut": (lambda m: m.tokenizer([1]), "texts: give a text or several, not 1"),
    "a list for a tensor": (lambda m: m.encode_image(["a.png"]), "not list"),
    "words for tokens": (lambda m: m.encode_text(["a"]), "takes what `tokenizer`"),
    "no such ensemble": (
        lambda m: m.label_vectors({"a": [1.0] * TEXT_DIM}, "mean"),
        "no ensemble 'mean'",
    ),
    "no batch": (
        lambda m: next(encode_images(None, [b""], batch_size=0)),
        "batch_size is a whole number above 0, not 0",
    ),
    "a number for a version": (
        lambda m: asif_lance.open(m.store.uri, 1),
        "model: give the name of a version, such as 'v3', not 1",
    ),
    "a text for a time": (
        lambda m: asif_lance.open(m.store.uri, as_of="2026"),
        "as_of: give a datetime, not str",
    ),
    "a store for an address": (lambda m: asif_lance.open(m.store), "an address, not PairStore"),
    "a dictionary for options": (
        lambda m: ingest_sources(m.store.uri, [], {"license": "CC0"}),
        "options: give IngestOptions, not dict",
    ),
    "a text for k": (lambda m: asif_lance.open(m.store.uri, k="8"), "k: give a number, or one"),
    "a flag for k": (lambda m: asif_lance.open(m.store.uri, k=True), "k: give a number, or one"),
    "a text for rejects": (
        lambda m: m.classify("a.png", labels_of(m), rejects="none"),
        "rejects: give a list, not str",
    ),
    "a tuple for rejects": (lambda m: m.encode("a.png", rejects=()), "rejects: give a list, not"),
    "no batches": (
        lambda m: m.classify("a.png", labels_of(m), batch_size=0),
        "batch_size: give a whole number above 0, not 0",
    ),
    "letters for ids": (
        lambda m: list(m.classify_vectors("ab", np.ones((2, IMAGE_DIM)), labels_of(m))),
        "1 ids for 2 vectors",
    ),
    "numbers for ids": (
        lambda m: list(m.classify_vectors([1], np.ones((1, IMAGE_DIM)), labels_of(m))),
        "ids: give a text or several, not 1",
    ),
    "half a match": (lambda m: m.search_text("a", top=1.5), "above 0, not 1.5"),
    "a text for attributions": (lambda m: answer_of(m).attributions("a"), "n: give a whole number"),
    "the last labels": (lambda m: answer_of(m).to_dict(top=-1), "top: give a whole number"),
    "a name for a recipe": (lambda m: m.under("paper"), "recipe: give a Recipe of"),
    "numbers for templates": (lambda m: m.prompts(["a"], [3]), "templates: give a text or"),
    "a text for bytes": (
        lambda m: asif_lance.open(m.store.uri, memory_limit="2GB"),
        "memory_limit: give a number of bytes, not str",
    ),
    "a list of models": (lambda m: asif_lance.Together([m, m]), "models: give a mapping, not"),
    "numbers to delete": (lambda m: m.store.delete([1]), "pair_ids: give a text or several"),
    "a number for an alias": (lambda m: m.store.tag(1, "v1"), "alias: give a text, not 1"),
    "a number to go back to": (lambda m: m.store.rollback(1), "version: give a text, not 1"),
    "a text for the past": (lambda m: m.store.version_as_of("2026"), "when: give a datetime, not"),
    "a dictionary for a pin": (
        lambda m: m.store.create(f"{m.store.uri}2", image={}, text={}),
        "image: give an EncoderPin",
    ),
    "a text for checks": (lambda m: IngestOptions(checks="all"), "checks: give a mapping, not str"),
    "a path for a source": (lambda m: IngestOptions(source=Path("a")), "source: give a text, not"),
    "a text for a count": (lambda m: IngestOptions(batch_size="3"), "batch_size: give a whole"),
    "a text for a waiver": (lambda m: IngestOptions(waiver="yes"), "waiver: give a Waiver of"),
    "a number for a column": (
        lambda m: asif_lance.attach(m.store.uri, image_vector=3),
        "image_vector: give a text, not 3",
    ),
    "no text to search for": (lambda m: m.search_text("\ud800"), "which is no text"),
    "no text to encode": (lambda m: m.encode_texts(["a", "\udcff"]), "which is no text"),
    "a text for a reranker": (lambda m: AsifReranker("x"), "model: give a model of `asif_lance.op"),
    "three ps": (lambda m: asif_lance.open(m.store.uri, p=(1, 2, 3)), "p: give a number, or one"),
}


def answer_of(model: Model) -> Prediction:
    return next(model.classify_vectors(["a"], np.ones((1, IMAGE_DIM)), labels_of(model)))


def labels_of(model: Model) -> LabelSet:
    return model.label_vectors({"a": [1.0] * TEXT_DIM})


@pytest.mark.parametrize(("ask", "told"), WRONG.values(), ids=list(WRONG))
def test_an_argument_of_a_wrong_kind_says_what_was_expected(
    ask: Callable[[Model], object], told: str, model: Model
) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        ask(model)


def test_one_text_is_one_id_and_paths_may_be_texts(model: Model, tmp_path: Path) -> None:
    first = model.store.read(columns=["pair_id"])["pair_id"][0].as_py()
    assert model.store.delete(first) == 1
    options = IngestOptions(image_root=str(tmp_path), require="license")
    assert (options.image_root, options.require) == (tmp_path, ("license",))


def test_vectors_may_be_lists_or_tensors(model: Model, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((2, IMAGE_DIM)).astype(np.float32)
    found = [
        [p.ranking for p in model.classify_vectors(["a", "b"], kind, labels_of(model))]
        for kind in (vectors, vectors.tolist(), torch.from_numpy(vectors), vectors.astype(float))
    ]
    assert found[0] == found[1] == found[2] == found[3]


def test_a_pickled_model_is_the_same_version_under_the_same_recipe(
    model: Model, rng: np.random.Generator
) -> None:
    again = pickle.loads(pickle.dumps(model.under(make_recipe("paper", k=5))))
    assert (again.version.name, again.recipe.name, again.recipe.k) == ("v1", "paper", (5, 5))
    queries = rng.standard_normal((2, IMAGE_DIM)).astype(np.float32)
    of_both = [
        [p.ranking for p in m.classify_vectors(["x", "y"], queries, labels_of(m))]
        for m in (again, model.under(again.recipe))
    ]
    assert of_both[0] == of_both[1]
