"""Code that is written for CLIP models runs on a model unchanged, and answers as the model does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

import asif_lance
from asif_lance.encoders import DEFAULT_IMAGE, DEFAULT_TEXT
from asif_lance.errors import DimensionError, InputError
from asif_lance.evaluation import encode_labelled, evaluate, predict, read_labelled
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.model import Model
from asif_lance.model.clip_interface import ClipInterface

COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")
TEMPLATES = ["the colour {c}", "something {c}", "a {c} thing"]

pytestmark = pytest.mark.encoders


def tinted(path: Path, colour: str, seed: int) -> None:
    """A photo-like picture with a tint, not so strong that all are recognized."""
    grain = Image.open(picture(path, seed)).convert("RGB")
    plain = Image.new("RGB", grain.size, colour)
    ImageEnhance.Contrast(Image.blend(grain, plain, 0.35)).enhance(1.2).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs to learn from, and labelled pictures, of eight colours."""
    folder = tmp_path_factory.mktemp("clip")
    for number, colour in enumerate(COLOURS):
        for i in range(6):
            tinted(folder / "pairs" / f"{colour}{i}.png", colour, 100 * number + i)
            (folder / "pairs" / f"{colour}{i}.txt").write_text(f"Picture {i} is {colour}.")
        for i in range(6, 11):
            tinted(folder / "labelled" / colour / f"{i}.png", colour, 100 * number + i)
    encoders = IngestOptions(image_encoder=DEFAULT_IMAGE, text_encoder=DEFAULT_TEXT)
    ingest_sources(folder / "t.lancedb", [folder / "pairs"], encoders)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return asif_lance.open(folder / "t.lancedb")


class Labelled(Dataset[tuple[torch.Tensor, int]]):
    """A torchvision-like data set: transformed pictures with the numbers of their classes."""

    classes = sorted(COLOURS)

    def __init__(self, folder: Path, transform: Any) -> None:
        self.files = sorted((folder / "labelled").rglob("*.png"))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.files[i]) as opened:
            return self.transform(opened), self.classes.index(self.files[i].parent.name)


def numpy_makes_numbers_of_lists() -> bool:
    """Whether an array of one number is a number, as it was before NumPy 2.4."""
    try:
        float(np.zeros(1))
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("templates", [TEMPLATES[:1], TEMPLATES])
def test_clip_benchmark_unchanged_agrees_with_evaluate_to_the_last_picture(
    model: Model, folder: Path, templates: list[str]
) -> None:
    clip_benchmark = pytest.importorskip(
        "clip_benchmark.metrics.zeroshot_classification",
        reason="needs CLIP_benchmark: pip install --no-deps clip_benchmark",
    )
    data = Labelled(folder, model.preprocess)
    loader = DataLoader(data, batch_size=16, num_workers=2)  # which are forked
    asked: Any = (model, model.tokenizer, data.classes, templates, "cpu")
    classifier = clip_benchmark.zero_shot_classifier(*asked, amp=False)
    logits, _ = clip_benchmark.run_classification(model, classifier, loader, "cpu", amp=False)

    ours = [template.replace("{c}", "{}") for template in templates]
    prompts = model.prompts(data.classes, ours, "mean-relative")
    files = read_labelled(folder / "labelled")
    labelled = encode_labelled(files, lambda: model.image_encoder, model.store.image.dimension)
    predictions = predict(model, labelled, prompts)
    measured = evaluate(predictions, labelled)
    assert labelled.names == tuple(map(str, data.files))
    chosen = [data.classes[i] for i in logits.argmax(dim=1)]
    assert chosen == [prediction.label for prediction in predictions]
    assert 0.3 < measured.top_1 < 1
    if numpy_makes_numbers_of_lists():  # as the shares in CLIP_benchmark 1.6.2 need
        theirs = clip_benchmark.evaluate(model, loader, *asked[1:], amp=False)
        assert theirs["acc1"] == pytest.approx(measured.top_1, abs=1e-12)
        assert theirs["acc5"] == pytest.approx(measured.top_5, abs=1e-12)
        assert theirs["mean_per_class_recall"] == pytest.approx(measured.mean_per_class)


def test_dense_relative_vectors_score_as_the_model_does(model: Model, folder: Path) -> None:
    files = sorted((folder / "labelled" / "red").iterdir())
    batch = torch.stack([model.preprocess(Image.open(file)) for file in files])
    texts = [f"a photo of a {colour}." for colour in COLOURS]
    scores = model.encode_image(batch) @ model.encode_text(model.tokenizer(texts)).T
    for row, prediction in zip(scores, model.classify(files, COLOURS), strict=True):
        expected = dict(prediction.ranking)
        assert row.tolist() == pytest.approx([expected[c] for c in COLOURS], abs=1e-5)
    assert math.isclose(float(model.encode_image(batch).norm(dim=1).mean()), 1, abs_tol=1e-5)


def test_a_callers_mixed_precision_changes_no_vector(model: Model, folder: Path) -> None:
    batch = model.preprocess(Image.open(folder / "pairs" / "red0.png"))[None]
    tokens = model.tokenizer(["something red"])
    plain = model.encode_image(batch), model.encode_text(tokens)
    with torch.autocast("cpu"):
        mixed = model.encode_image(batch), model.encode_text(tokens)
    assert torch.equal(plain[0], mixed[0])
    assert torch.equal(plain[1], mixed[1])


def test_relative_vectors_of_embeddings_are_sparse_and_those_of_the_recipe(model: Model) -> None:
    vectors = model.encode_texts(["something red", "something blue"]).vectors
    found = model.relate_texts(vectors)
    assert found.values.shape == (2, min(model.recipe.k[1], model.anchors.count))
    assert np.linalg.norm(found.values, axis=1) == pytest.approx(1, abs=1e-6)
    with pytest.raises(DimensionError):
        model.relate_images(vectors)


@given(st.lists(st.text(), min_size=1))
def test_the_tokenizer_keeps_every_text(texts: Sequence[str]) -> None:
    tokens = ClipInterface.tokenizer(None, texts)  # type: ignore[arg-type]
    rows = [bytes(b for b in row if b >= 0).decode() for row in tokens.tolist()]
    assert rows == [text.encode("utf-8", "replace").decode() for text in texts]


def test_what_another_models_transform_or_tokenizer_made_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="takes what `preprocess` of the model made"):
        model.encode_image(torch.zeros((2, 3, 224, 224)))
    with pytest.raises(InputError, match="takes what `tokenizer` of the model made"):
        model.encode_text(torch.zeros((2, 77), dtype=torch.int64))
