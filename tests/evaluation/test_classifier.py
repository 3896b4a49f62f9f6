"""The classifier keeps scikit-learn's rules, and examples teach what pairs do not know."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import asif_lance
from asif_lance import AsifClassifier
from asif_lance.errors import DimensionError, InputError
from asif_lance.ingest import ingest_sources
from asif_lance.model import Model

COLOURS = ("red", "green", "blue")


@parametrize_with_checks([AsifClassifier()])
def test_it_keeps_every_rule_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def blobs(rng: np.random.Generator, size: int = 60) -> tuple[Any, Any]:
    """Three clouds of vectors and their classes."""
    classes = np.array(["north", "east", "south"])[np.arange(size) % 3]
    centres = {"north": (0, 4, 1, 0), "east": (4, 0, 0, 1), "south": (-2, -3, 1, 1)}
    return np.array([centres[c] for c in classes]) + rng.normal(size=(size, 4)), classes


def test_without_a_model_examples_alone_are_learnt_in_pipelines_and_cross_validation(
    rng: np.random.Generator,
) -> None:
    vectors, classes = blobs(rng)
    pipeline = make_pipeline(StandardScaler(), AsifClassifier())
    assert cross_val_score(pipeline, vectors, classes, cv=5).mean() > 0.9
    fitted = pipeline.fit(vectors, classes)
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict(vectors) == fitted.predict(vectors)).all()


def test_probabilities_sum_to_one_and_rank_as_the_predictions(rng: np.random.Generator) -> None:
    vectors, classes = blobs(rng)
    fitted = AsifClassifier().fit(vectors, classes)
    shares = fitted.predict_proba(vectors)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert (fitted.classes_[shares.argmax(axis=1)] == fitted.predict(vectors)).all()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Pairs of three colours."""
    folder = tmp_path_factory.mktemp("classifier")
    for i, colour in enumerate(COLOURS):
        for j in range(3):
            tinted(folder / "pairs" / f"{colour}{j}.png", colour, 10 * i + j)
            (folder / "pairs" / f"{colour}{j}.txt").write_text(f"The colour {colour}.")
    ingest_sources(folder / "t.lancedb", [folder / "pairs"])
    return asif_lance.open(folder / "t.lancedb")


def tinted(path: Path, colour: str, seed: int) -> Path:
    """A photo-like picture with a tint."""
    grain = Image.open(picture(path, seed)).convert("RGB")
    Image.blend(grain, Image.new("RGB", grain.size, colour), 0.5).save(path)
    return path


@pytest.mark.encoders
def test_pictures_teach_classes_whose_names_say_nothing(model: Model, tmp_path: Path) -> None:
    def draw(first: int) -> tuple[list[Path], list[int]]:
        files = [
            tinted(tmp_path / f"{first}-{c}-{i}.png", c, first + i)
            for c in COLOURS
            for i in range(4)
        ]
        return files, [n for n in range(len(COLOURS)) for _ in range(4)]

    files, classes = draw(1000)
    others, truths = draw(2000)
    taught = AsifClassifier(model).fit(files, classes)
    assert taught.score(others, truths) > 0.9
    vectors = model.encode(files)[1]
    by_vectors = clone(taught).fit(vectors, classes)
    assert by_vectors.model is model
    assert (by_vectors.predict(model.encode(others)[1]) == taught.predict(others)).all()
    assert model.store.version("latest").name == "v1"
    with pytest.raises(InputError, match="at least one"):
        taught.predict([])
    with pytest.raises(DimensionError, match="image vectors: expected 1280"):
        taught.predict(vectors[:, :5])


@pytest.mark.encoders
def test_names_are_what_prompts_call_the_classes(model: Model, rng: np.random.Generator) -> None:
    vectors = model.encode([np.full((9, 9, 3), 128, np.uint8), np.zeros((9, 9, 3), np.uint8)])[1]
    named = AsifClassifier(model, names={0: "red", 1: ["green", "blue"]}).fit(vectors, [0, 1])
    assert named.labels_.names == ("0", "1")
    assert len(named.labels_.owner) == 3
    with pytest.raises(InputError, match="names: nothing for the class 1"):
        AsifClassifier(model, names={0: "red"}).fit(vectors, [0, 1])


@pytest.mark.encoders
def test_a_search_over_settings_leaves_the_model_shared(model: Model, tmp_path: Path) -> None:
    files = [tinted(tmp_path / f"{c}{i}.png", c, i) for c in COLOURS for i in range(4)]
    vectors = model.encode(files)[1]
    truths = [c for c in COLOURS for _ in range(4)]
    search = GridSearchCV(
        AsifClassifier(model), {"templates": [["the colour {}"], ["a {} thing"]]}, cv=2
    ).fit(vectors, truths)
    assert search.best_estimator_.model is model
