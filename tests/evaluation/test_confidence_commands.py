"""classify --confidence and evaluate --confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli
from four_things import things

DB = ("--db", "t.lancedb")
LABELS = ("--label-vectors", "labels.parquet")


@pytest.fixture(autouse=True)
def _files(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> None:
    """A database of 200 pairs about four things; pictures of them, with and without labels."""
    frame, labels = things(rng, 320)
    frame[:200].write_parquet(tmp_path / "pairs.parquet")
    vectors = np.array(frame["image_vector"][200:].to_list(), dtype=np.float32)
    names, truths = [f"{i}" for i in range(120)], [f"c{i % 4}" for i in range(120)]
    for name, columns in {
        "labels": {"label": list(labels), "vector": np.stack(list(labels.values()))},
        "test": {"label": truths, "vector": vectors},
        "queries": {"id": names, "vector": vectors},
        "unasked": {"id": names[3::4], "vector": vectors[3::4]},
    }.items():
        pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    cli(*DB, "ingest", "pairs.parquet")


def test_classify_adds_confidence_only_on_request(cli: Cli) -> None:
    asked = (*DB, "classify", "--vectors", "queries.parquet", *LABELS, "--format", "json")
    plain, sure = cli(*asked).objects, cli(*asked, "--confidence").objects
    for one, other in zip(plain, sure, strict=True):
        said = other.pop("confidence")
        assert (said["coverage"], said["source"], said["pictures"]) == (None, "self-test", 40)
        shares = [entry.pop("probability") for entry in other["predictions"]]
        assert sum(shares) == pytest.approx(1)
        count = len(said["possible"])
        assert sum(shares[: count - 1]) < 0.9 <= sum(shares[:count]) + 1e-12
        assert one == other


def test_labelled_pictures_calibrate_and_coverage_is_chosen(cli: Cli) -> None:
    asked = (*DB, "classify", "--vectors", "queries.parquet", *LABELS, "--confidence")
    calibrated = (*asked, "--calibrate", "test.parquet", "--format", "json")
    few, many = (
        [len(row["confidence"]["possible"]) for row in cli(*calibrated, "--coverage", c).objects]
        for c in ("0.5", "0.99")
    )
    assert cli(*calibrated).objects[0]["confidence"]["coverage"] == 0.9
    assert sum(few) < sum(many)
    said = cli(*asked, "--calibrate", "test.parquet").out
    assert "possible at 90% (labelled pictures, 120 pictures): c" in said
    assert "possible with 90% probability together (self-test, 40 pictures): c" in cli(*asked).out


def test_pictures_of_another_kind_are_told(cli: Cli, tmp_path: Path) -> None:
    """Pairs know what they show, but it is none of the labels."""
    asked = pl.read_parquet(tmp_path / "labels.parquet")
    asked.filter(pl.col("label") != "c3").write_parquet(tmp_path / "labels.parquet")
    strange = cli(*DB, "classify", "--vectors", "unasked.parquet", *LABELS, "--confidence")
    assert "these pictures are of another kind" in strange.err
    assert "none of these: " in strange.out
    pl.read_parquet(tmp_path / "queries.parquet")[::4].write_parquet(tmp_path / "c0.parquet")
    usual = cli(*DB, "classify", "--vectors", "c0.parquet", *LABELS, "--confidence")
    assert "another kind" not in usual.err


def test_evaluate_measures_what_classify_says(cli: Cli) -> None:
    asked = (*DB, "evaluate", "test.parquet", *LABELS, "--confidence")
    told = cli(*asked, "--coverage", "0.8").out
    for what in ("self-test", "half of the pictures", "true label possible (asked: 80%)"):
        assert what in told
    reports = [row["confidence"] for row in cli(*asked, "--format", "json").objects[1:]]
    assert [report["source"] for report in reports] == ["self-test", "labelled pictures"]


def test_options_that_do_not_go_together_are_refused(cli: Cli) -> None:
    classify = ("classify", "--vectors", "queries.parquet", *LABELS)
    for arguments, told in (
        ((*classify, "--coverage", "0.5"), "--coverage is for --confidence"),
        ((*classify, "--calibrate", "test.parquet"), "--calibrate is for --confidence"),
        ((*classify, "--confidence", "--search", "index"), "--confidence needs --search exact"),
        ((*classify, "--confidence", "--coverage", "1"), "coverage"),
        (("evaluate", "test.parquet", *LABELS, "--coverage", "0.5"), "is for --confidence"),
    ):
        done = cli(*DB, *arguments)
        assert (done.status, told in done.err) == (2, True), done.err


def test_too_few_labelled_pictures_are_refused_and_one_picture_is_no_kind(
    cli: Cli, tmp_path: Path
) -> None:
    pl.read_parquet(tmp_path / "test.parquet")[:1].write_parquet(tmp_path / "one.parquet")
    asked = (*DB, "classify", "--vectors", "unasked.parquet", *LABELS, "--confidence")
    done = cli(*asked, "--calibrate", "one.parquet")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "1 labelled picture is too few to calibrate on: at least 20" in done.err
    width = len(pl.read_parquet(tmp_path / "queries.parquet")["vector"][0])
    strange = pl.DataFrame({"id": ["x"], "vector": np.ones((1, width), np.float32)})
    strange.write_parquet(tmp_path / "unasked.parquet")
    assert "another kind" not in cli(*asked).err
