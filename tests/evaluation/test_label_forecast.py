"""diagnose --labels foretells which labels fail, and says which pairs would help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame

import asif_lance
from asif_lance.evaluation import forecast_labels
from asif_lance.evaluation import label_forecast as library
from asif_lance.model import Model, Prompts, prompts_from_vectors

DB = ("--db", "t.lancedb")


@pytest.fixture
def task(cli: Cli, tmp_path: Path) -> tuple[Model, Prompts]:
    """Pairs about a and b; of c and d the pictures are alike; nothing is said of e, but of b."""
    rng = np.random.default_rng(0)
    image, text = np.eye(IMAGE_DIM)[:4], np.eye(TEXT_DIM)[:4]
    image[3] = image[2]
    kinds = np.arange(160) % 4

    def around(centres: np.ndarray, noise: float) -> np.ndarray:
        own = centres[kinds]
        return (own + noise * rng.standard_normal(own.shape)).astype(np.float32)

    pairs_frame(160, rng).with_columns(
        image_vector=around(image, 0.1), text_vector=around(text, 0.1)
    ).write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    asked = dict(zip("abcd", text.astype(np.float32), strict=True))
    asked["e"] = (text[1] + 2 * np.eye(TEXT_DIM)[7]).astype(np.float32)
    rows = {"label": list(asked), "vector": np.stack(list(asked.values()))}
    pl.DataFrame(rows).write_parquet(tmp_path / "labels.parquet")
    return asif_lance.open(tmp_path / "t.lancedb"), prompts_from_vectors(asked)


def test_labels_that_no_caption_speaks_of_come_first_with_what_would_help(
    task: tuple[Model, Prompts],
) -> None:
    found = {forecast.label: forecast for forecast in forecast_labels(*task)}
    assert next(iter(found)) == "e"
    assert (found["e"].own_captions, found["e"].caption_of) == (0, "b")
    assert found["e"].helps == "pairs whose captions speak of e, not b"
    assert found["a"].helps == found["b"].helps == ""
    assert (found["a"].own_captions, found["a"].own_pictures) == (1, 1)
    assert found["a"].forecast == pytest.approx(found["a"].self_test * found["a"].nearness)


def test_labels_whose_pictures_are_alike_are_told(task: tuple[Model, Prompts]) -> None:
    found = {forecast.label: forecast for forecast in forecast_labels(*task)}
    mistaken = min((found["c"], found["d"]), key=lambda forecast: forecast.own_pictures)
    other = "d" if mistaken.label == "c" else "c"
    assert (mistaken.own_captions, mistaken.picture_of) == (1, other)
    assert mistaken.self_test < 0.8 < found["a"].self_test


def test_labels_are_tested_a_few_at_a_time_with_the_same_result(
    task: tuple[Model, Prompts], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = forecast_labels(*task)
    monkeypatch.setattr(library, "_LABELS", 2)
    assert forecast_labels(*task) == whole


def test_diagnose_shows_the_forecast(task: tuple[Model, Prompts], cli: Cli) -> None:
    asked = (*DB, "diagnose", "--label-vectors", "labels.parquet")
    assert "pairs whose captions speak of e, not b" in cli(*asked).out
    (found,) = cli(*asked, "--format", "json").objects
    assert found["forecasts"][0]["label"] == "e"
    assert cli(*DB, "diagnose", "--format", "json").objects[0]["forecasts"] == []
