"""Values of options: empty ones, wrong ones and extreme ones are told; files outlive the reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli, entry_point
from four_things import things
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.evaluation.self_test import LEAST_PAIRS

DB = ("--db", "t.lancedb")
ASKED = ("--label-vectors", "labels.parquet")


@pytest.fixture
def ready(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> Cli:
    """Pairs about four things, and twenty labelled pictures."""
    frame, labels = things(rng, 220)
    frame[:200].write_parquet(tmp_path / "pairs.parquet")
    vectors = np.array(frame["image_vector"][200:].to_list(), dtype=np.float32)
    truths = [f"c{i % 4}" for i in range(20)]
    columns = {"id": [f"q{i}" for i in range(20)], "label": truths, "vector": vectors}
    pl.DataFrame(columns).write_parquet(tmp_path / "test.parquet")
    matrix = np.array(list(labels.values()), dtype=np.float32)
    pl.DataFrame({"label": list(labels), "vector": matrix}).write_parquet("labels.parquet")
    assert cli(*DB, "ingest", "pairs.parquet").status == 0
    return cli


@pytest.mark.parametrize(
    "option", ["--recipe", "--model", "--device", "--k", "--templates", "--labels", "--where"]
)
def test_an_empty_value_is_wrong_usage(ready: Cli, option: str) -> None:
    command = ("delete",) if option == "--where" else ("classify", "--vectors", "test.parquet")
    done = ready(*DB, *command, option, "")
    assert (done.status, done.out) == (2, "")
    assert f"'{option}': " in done.err


def test_an_empty_name_of_a_folder_is_not_the_current_one(ready: Cli) -> None:
    done = ready(*DB, "forget", "p1", "--yes", "--keys", "")
    assert (done.status, "'--keys': it is empty" in done.err) == (2, True)


def test_what_is_empty_by_default_may_be_empty(ready: Cli) -> None:
    assert ready(*DB, "delete", "p1", "--message", "").status == 0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("--recipe", "none"), "no recipe 'none'"),
        (("--labels", "a,a"), "'a' is given twice"),
        (("--labels", "a,b", "--templates", "none"), "no template set 'none'"),
        (("--labels", "a,b", "--template", "none"), "has no {}"),
    ],
)
def test_a_value_that_has_no_meaning_is_wrong_usage(
    ready: Cli, given: tuple[str, ...], reason: str
) -> None:
    asked = () if "--labels" in given else ASKED
    done = ready(*DB, "classify", "--vectors", "test.parquet", *asked, *given)
    assert (done.status, reason in done.err) == (2, True)


def test_scores_of_0_are_told(ready: Cli) -> None:
    asked = ("classify", "--vectors", "test.parquet", *ASKED)
    assert "no score is above 0" not in ready(*DB, *asked).err
    done = ready(*DB, *asked, "--p", "1e9", "--format", "json")
    silent = sum(answer["predictions"][0]["score"] == 0 for answer in done.objects)
    assert silent > 0
    assert f"of {silent} picture" in done.err
    assert "no score is above 0" in done.err


@given(st.floats(0, 1))
def test_only_none_is_0_percent_and_only_all_is_100(share: float) -> None:
    percent = sys.modules[f"{entry_point().callback.__module__}.output"].percent
    told = percent(share, 0)
    assert float(told[:-1]) == pytest.approx(100 * share, abs=0.5)
    if 1e-8 < share < 1 - 1e-8:
        assert float(told[:-1]) not in (0, 100)


def test_a_coverage_is_told_as_it_was_asked(ready: Cli) -> None:
    asked = ("--vectors", "test.parquet", *ASKED, "--confidence", "--coverage", "0.9999")
    assert "possible with 99.99% probability together" in ready(*DB, "classify", *asked).out


@pytest.mark.parametrize(
    "command",
    [
        ("diagnose", *ASKED, "--plot", "made.png"),
        ("evaluate", "test.parquet", *ASKED, "--plot", "made.png"),
        ("tune", "test.parquet", *ASKED, "--ks", "50", "--ps", "2,4", "--plot", "made.png"),
        ("tune", "--self-test", *ASKED, "--ks", "50", "--ps", "2,4", "--plot", "made.png"),
    ],
)
def test_a_plot_is_written_though_nobody_reads_the_table(
    ready: Cli, tmp_path: Path, command: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-c", "from asif_lance.cli import main; main()"]
    with os.fdopen(writing, "w") as closed:
        subprocess.run([*program, *DB, *command], cwd=tmp_path, stdout=closed, check=False)
    assert (tmp_path / "made.png").stat().st_size > 0


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "test.parquet", *ASKED, "--confidence"),
        ("classify", "--vectors", "test.parquet", *ASKED, "--confidence"),
        ("tune", "--self-test", *ASKED),
        ("diagnose", *ASKED),
    ],
)
def test_too_few_pairs_for_a_self_test_are_told_before_anything_is_printed(
    ready: Cli, command: tuple[str, ...]
) -> None:
    few = [f"p{i}" for i in range(LEAST_PAIRS - 1, 200)]
    assert ready(*DB, "delete", *few).status == 0
    done = ready(*DB, *command)
    assert (done.status, done.out) == (1, "")
    assert "19 pairs are too few for a self-test: at least 20" in done.err
