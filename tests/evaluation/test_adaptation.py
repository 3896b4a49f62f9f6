"""Adaptation: what imagined pairs promise is what added ones give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame
from PIL import Image

import asif_lance
from asif_lance.errors import InputError
from asif_lance.evaluation.adaptation import adapt, add_pairs, captions_of
from asif_lance.evaluation.labelled_pictures import (
    Labelled,
    draw_per_class,
    read_labelled,
)
from asif_lance.evaluation.statistics import bootstrap_trials
from asif_lance.model.labels import Prompts, prompts_from_vectors
from asif_lance.model.model import Model

DB = ("--db", "t.lancedb")


@pytest.fixture
def task(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> tuple[Model, Labelled, Prompts]:
    """Pairs that know nothing, and thirty pictures of three things that they do not show."""
    pairs_frame(50, rng).write_parquet(tmp_path / "pairs.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    kinds = np.repeat(np.arange(3), 10)
    image = 3 * np.eye(3, IMAGE_DIM)[kinds] + 0.3 * rng.standard_normal((30, IMAGE_DIM))
    rows = {"label": [f"c{i}" for i in kinds], "vector": image.astype(np.float32)}
    pl.DataFrame(rows).write_parquet(tmp_path / "new.parquet")
    text = rng.standard_normal((3, TEXT_DIM)).astype(np.float32)
    labels = {"label": ["c0", "c1", "c2"], "vector": text}
    pl.DataFrame(labels).write_parquet(tmp_path / "labels.parquet")
    model = asif_lance.open(tmp_path / "t.lancedb", k=20, p=4)
    prompts = prompts_from_vectors({f"c{i}": text[i] for i in range(3)})
    return model, read_labelled(tmp_path / "new.parquet"), prompts


def test_a_few_pairs_per_class_teach_a_new_task(task: tuple[Model, Labelled, Prompts]) -> None:
    model, labelled, prompts = task
    captions, texts = captions_of(prompts)
    assert captions == ["c0", "c1", "c2"]
    one, five = adapt(model, labelled, prompts, texts, [5, 1], old=(labelled, prompts), trials=3)
    assert (one.per_class, one.added, five.per_class, five.added) == (1, 3, 5, 15)
    assert len(five.new.before) == len(five.new.after) == 3
    assert five.new.mean > 0.9 > 0.7 > five.new.mean_before
    assert five.prototypes.mean > 0.9
    assert five.old is not None
    assert five.old.mean > five.old.mean_before
    assert one.new.deviation is not None
    assert (one.tested, five.tested) == (27, 15)


def test_kept_pairs_give_exactly_what_was_promised(
    task: tuple[Model, Labelled, Prompts], tmp_path: Path
) -> None:
    model, labelled, prompts = task
    captions, texts = captions_of(prompts)
    (promised,) = adapt(model, labelled, prompts, texts, [4], trials=1, seed=9)
    report = add_pairs(model, labelled, prompts, captions, texts, 4, seed=9, license="CC0")
    assert report.version is not None
    assert (report.added, report.version.name, report.version.pairs) == (12, "v2", 62)
    after = asif_lance.open(tmp_path / "t.lancedb", k=20, p=4)
    rest = labelled.take(~draw_per_class(labelled, 4, np.random.default_rng([9, 0])))
    answers = after.classify_vectors(rest.names, rest.embeddings, after.compile(prompts))
    hits = [a.label == truth for a, truth in zip(answers, rest.truths, strict=True)]
    assert promised.new.after == (np.mean(hits),)
    rows = after.store.read(columns=["caption", "license", "source"])
    rows = rows.filter(pc.field("license") == "CC0")
    assert sorted(rows["caption"].to_pylist()) == ["c0"] * 4 + ["c1"] * 4 + ["c2"] * 4
    assert set(rows["source"].to_pylist()) == {"adapt"}


def test_an_interval_knows_of_pictures_and_of_trials(rng: np.random.Generator) -> None:
    found = rng.integers(-1, 2, (5, 200)).astype(float)
    found[rng.random(found.shape) < 0.1] = np.nan  # not tested in every trial
    interval = bootstrap_trials(found)
    assert interval is not None
    low, high = interval
    assert low < np.nanmean(found) < high
    apart = bootstrap_trials(found + np.linspace(-1, 1, 5)[:, None])
    assert apart is not None
    assert apart[1] - apart[0] > 2 * (high - low)
    assert bootstrap_trials(found[:, :1]) is None
    assert bootstrap_trials(found) == interval


def test_what_cannot_be_adapted_is_refused(task: tuple[Model, Labelled, Prompts]) -> None:
    model, labelled, prompts = task
    _, texts = captions_of(prompts)
    (most,) = adapt(model, labelled, prompts, texts, [99], trials=1)
    assert (most.added, most.tested) == (27, 3)  # one of each class is left to test
    assert most.new.deviation is None  # a single trial shows no spread
    with pytest.raises(InputError, match="at least one picture per class"):
        adapt(model, labelled, prompts, texts, [0])
    with pytest.raises(InputError, match="a seed is a whole number from 0 on"):
        adapt(model, labelled, prompts, texts, [1], seed=-1)
    others = prompts_from_vectors({"z": np.ones(TEXT_DIM, dtype=np.float32)})
    with pytest.raises(InputError, match="the class 'c0' is not among the 1 label"):
        adapt(model, labelled, others, texts, [1])


def test_the_command_measures_writes_nothing_and_keeps_on_request(
    task: tuple[Model, Labelled, Prompts], cli: Cli, tmp_path: Path
) -> None:
    own = ("--label-vectors", "labels.parquet", "--trials", 2)
    asked = (*DB, "adapt", "new.parquet", *own)
    old = ("--old", "new.parquet", "--old-label-vectors", "labels.parquet")
    shown = cli(*asked, "--per-class", "1,3", *old, "--plot", "curve.png")
    assert shown.status == 0
    assert "on the new task, nothing added" in shown.out
    assert "on the old task" in shown.out
    assert (tmp_path / "curve.png").stat().st_size > 5_000
    once = cli(*DB, "adapt", "new.parquet", *own[:2], "--trials", 1, "--plot", "one.png")
    reached, spread = once.err.splitlines()
    assert reached.startswith("--per-class 10: some classes have fewer pictures")
    assert spread == "one trial shows no spread: --trials 5 does"
    assert "±" not in once.out
    assert [version.name for version in task[0].store.versions()] == ["v1"]
    assert cli(*asked, "--per-class", "1,3", "--keep").status == 2
    kept = cli(*asked, "--per-class", "3", "--keep", "--format", "json")
    assert [o["per_class"] for o in kept.objects] == [3]
    assert kept.err == "added 9 pairs; the newest model is v2\n"
    again = cli(*asked, "--per-class", "3", "--keep", "--model", "v1")
    assert again.err == "added 0 pairs, already there 9; the newest model is v2\n"
    twice = cli(*asked, "--per-class", "3")
    assert "in the model already, so what is told of them is too good: 9 pictures" in twice.err


def test_what_was_reached_is_told_where_classes_are_smaller(
    task: tuple[Model, Labelled, Prompts], cli: Cli
) -> None:
    asked = (*DB, "adapt", "new.parquet", "--label-vectors", "labels.parquet", "--trials", 2)
    (found,) = cli(*asked, "--per-class", "999", "--format", "json").objects
    told = cli(*asked, "--per-class", "1,999").err
    assert "--per-class 999: some classes have fewer pictures, and one of each is left" in told
    assert f"; {found['added']} pairs of {found['classes']} classes are the most" in told
    assert "fewer pictures" not in cli(*asked, "--per-class", "1").err


def test_pictures_that_were_forgotten_are_told_when_they_are_not_kept(
    task: tuple[Model, Labelled, Prompts], cli: Cli
) -> None:
    own = ("--label-vectors", "labels.parquet", "--trials", 2, "--per-class", 3, "--keep")
    assert cli(*DB, "adapt", "new.parquet", *own).status == 0
    gone = task[0].store.read(columns=["pair_id", "role"]).to_pylist()
    ids = [row["pair_id"] for row in gone if row["role"] == "example"][:2]
    assert cli(*DB, "forget", *ids, "--reason", "withdrawn", "--yes").status == 0
    again = cli(*DB, "adapt", "new.parquet", *own, "--model", "v1")
    assert again.status == 1
    assert "added 0 pairs, already there 7" in again.err
    assert again.err.count("forgotten on ") == 2


@pytest.mark.encoders
def test_pictures_are_kept_with_their_captions_and_files(cli: Cli, tmp_path: Path) -> None:
    for name, color in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(3):
            shade = tuple(max(0, c - 20 * i) for c in color)
            Image.new("RGB", (64, 64), shade).save(tmp_path / "new" / name / f"{i}.png")
    (tmp_path / "pairs").mkdir()
    Image.new("RGB", (64, 64), (0, 255, 0)).save(tmp_path / "pairs" / "green.png")
    (tmp_path / "pairs" / "green.txt").write_text("a green square")
    assert cli(*DB, "ingest", "pairs").status == 0
    done = cli(*DB, "adapt", "new", "--per-class", 2, "--caption", "a {} square", "--keep")
    assert done.status == 0
    assert done.err == "added 4 pairs; the newest model is v2\n"
    model = asif_lance.open(tmp_path / "t.lancedb")
    rows = model.store.read(columns=["caption", "image_uri", "image_sha256", "source"])
    new = [row for row in rows.to_pylist() if row["source"] == "new"]
    assert sorted(row["caption"] for row in new) == ["a blue square"] * 2 + ["a red square"] * 2
    assert all(Path(row["image_uri"]).is_file() and row["image_sha256"] for row in new)
