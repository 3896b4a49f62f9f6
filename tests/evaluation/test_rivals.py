"""Rivals are what their papers say, on the model's own pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli
from four_things import things
from scipy.linalg import orthogonal_procrustes, sqrtm

import asif_lance
from asif_lance.evaluation import Labelled, check_rivals
from asif_lance.evaluation import rivals as library
from asif_lance.evaluation.accuracy import check_answers, predict
from asif_lance.model import Model, prompts_from_vectors
from asif_lance.relative import make_recipe

DB = ("--db", "t.lancedb")


@pytest.fixture
def task(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> tuple[Model, dict, Labelled]:
    """A model of 400 pairs about four things, one deleted, and 80 pictures more."""
    frame, labels = things(rng, 480)
    frame[:400].write_parquet(tmp_path / "pairs.parquet")
    vectors = np.array(frame["image_vector"][400:].to_list(), dtype=np.float32)
    truths = tuple(f"c{i % 4}" for i in range(80))
    pl.DataFrame({"label": truths, "vector": vectors}).write_parquet(tmp_path / "test.parquet")
    rows = {"label": list(labels), "vector": np.stack(list(labels.values()))}
    pl.DataFrame(rows).write_parquet(tmp_path / "labels.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    cli(*DB, "delete", "p7")
    known = Labelled(tuple(map(str, range(80))), truths, vectors=vectors)
    return asif_lance.open(tmp_path / "t.lancedb"), labels, known


def centred_pairs(model: Model) -> tuple[np.ndarray, np.ndarray]:
    """The live pairs' vectors less their means, (n, d) and (n, e)."""
    live = np.flatnonzero(model.anchors.live)
    sides = (model.anchors.vectors(side, live).astype(np.float64) for side in ("image", "text"))
    image, text = (vectors - vectors.mean(axis=0) for vectors in sides)
    return image, text


def test_csa_compares_canonical_variables_weighted_by_their_correlations(
    task: tuple[Model, dict, Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels, known = task
    monkeypatch.setattr(library, "_ROWS", 64)
    image, text = centred_pairs(model)
    n = len(image)
    roots = [np.linalg.inv(np.real(sqrtm(side.T @ side / n))) for side in (image, text)]
    u, s, vh = np.linalg.svd(roots[0] @ (image.T @ text / n) @ roots[1], full_matrices=False)
    for variables in (3, 1000):
        found = library.fit_csa(library.measure_moments(model.anchors), variables)
        texts = np.stack(list(labels.values()))
        got = found.compare(known.queries, texts)
        left = (known.queries - found.moments.image_mean) @ roots[0] @ u[:, :variables]
        right = (texts - found.moments.text_mean) @ roots[1] @ vh[:variables].T
        left /= np.linalg.norm(left, axis=1, keepdims=True)
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        assert got == pytest.approx((left * s[:variables]) @ right.T, abs=1e-6)


def test_procrustes_is_scipys_on_padded_captions(task: tuple[Model, dict, Labelled]) -> None:
    model, labels, known = task
    image, text = centred_pairs(model)
    wide = max(image.shape[1], text.shape[1])
    padded = [np.pad(side, ((0, 0), (0, wide - side.shape[1]))) for side in (image, text)]
    rotation, _ = orthogonal_procrustes(*padded)
    found = library.fit_procrustes(library.measure_moments(model.anchors))
    texts = np.stack(list(labels.values()))
    left = known.queries - found.moments.image_mean
    right = texts - found.moments.text_mean
    left = np.pad(left, ((0, 0), (0, wide - left.shape[1]))) @ rotation
    expected = left[:, : right.shape[1]] @ right.T
    got = found.compare(known.queries, texts)
    assert (
        got.argmax(axis=1).tolist() == (expected / np.linalg.norm(right, axis=1)).argmax(1).tolist()
    )


def test_rivals_answer_from_the_same_pairs(task: tuple[Model, dict, Labelled]) -> None:
    model, labels, known = task
    prompts = prompts_from_vectors(labels)
    found = check_rivals(model, known, prompts)
    assert list(found) == ["paper", "CSA", "Procrustes"]
    paper = predict(model.under(make_recipe("paper")), known, prompts)
    assert found["paper"].tolist() == check_answers(paper, known.truths).tolist()
    assert min(found["CSA"].mean(), found["Procrustes"].mean()) > 0.5  # chance is 0.25


def test_evaluate_compares_with_rivals_and_says_what_they_cannot(
    task: tuple[Model, dict, Labelled], cli: Cli
) -> None:
    done = cli(*DB, "evaluate", "test.parquet", "--label-vectors", "labels.parquet", "--rivals")
    assert done.status == 0
    for name in ("paper", "CSA", "Procrustes"):
        assert f"v2 against {name}: " in done.out
    assert "CSA and Procrustes name no pairs behind an answer" in done.err
