"""`index` and `classify --search`: the command line's part of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli

from asif_lance.anchors import Approximation, MeasuredSetting
from asif_lance.indexing.agreement import AgreementTest

DB = ("--db", "t.lancedb")
K = ("--k", "30", "--p", "4")


@pytest.fixture
def filled(cli: Cli, pairs_file: Path) -> Cli:
    assert cli(*DB, "ingest", pairs_file).status == 0
    return cli


def test_an_index_is_built_shown_used_and_dropped(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    asked = ("--queries", query_file, "--label-vectors", label_file)
    built = filled(*DB, "index", "build", *asked, *K, "--keep")
    assert built.status == 0, built.err
    assert "measured on 20 given pictures; 5 given labels" in built.err
    assert "of 20 queries get the label of exact search" in built.out
    assert " ms a picture, exact search " in built.out
    shown = filled(*DB, "index", "status", "--format", "json").objects
    assert [(s["version"], s["search"], s["later"]) for s in shown] == [("v1", "index", 0)]
    assert shown[0]["choice"]["measured"]["agreement"] >= 0.99
    assert "v1: index over 200 pairs" in filled(*DB, "index", "status").out
    said = filled(
        *(*DB, "classify", "--vectors", query_file, "--label-vectors", label_file, *K),
        *("--search", "index", "--format", "json", "--explain", "2"),
    )
    assert [p["image"] for p in said.objects] == [f"q{i}" for i in range(20)]
    assert "dropped: index" in filled(*DB, "index", "drop").err
    assert "asif-lance index build" in filled(*DB, "index", "status").err


def test_a_sample_is_measured_on_the_table_itself_unless_told_otherwise(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    built = filled(*DB, "index", "build", "--kind", "sampled", *K, "--keep", "--format", "json")
    assert built.status == 0, built.err
    assert "of its own pictures, left out of it; " in built.err
    assert "of its own captions as labels, left out of it" in built.err
    (choice,) = built.objects
    assert (choice["search"], choice["queries"]) == ("sampled", 50)
    classify = (*DB, "classify", "--vectors", query_file, "--label-vectors", label_file, *K)
    assert filled(*classify, "--search", "sampled").status == 0


def test_a_recorded_run_brings_its_own_queries_and_labels(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    classify = (*DB, "classify", "--vectors", query_file, "--label-vectors", label_file, *K)
    run = filled(*classify, "--record").err.split()[-1]
    built = filled(*DB, "index", "build", "--run", run, *K, "--keep")
    assert built.status == 0, built.err
    assert f"measured on the 20 pictures and 5 labels of run {run}" in built.err
    both = filled(*DB, "index", "build", "--run", run, "--queries", query_file)
    assert both.status == 2


def test_searching_without_an_index_names_the_command_in_one_line(
    filled: Cli, query_file: Path, label_file: Path
) -> None:
    classify = (*DB, "classify", "--vectors", query_file, "--label-vectors", label_file)
    done = filled(*classify, "--search", "index")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert "v1 has nothing measured for --search index: `asif-lance index build`" in done.err
    sampled = filled(*classify, "--search", "sampled")
    assert "`asif-lance index build --kind sampled`" in sampled.err


def test_what_is_recorded_is_exact(filled: Cli, query_file: Path, label_file: Path) -> None:
    classify = (*DB, "classify", "--vectors", query_file, "--label-vectors", label_file)
    assert filled(*classify, "--record", "--search", "sampled").status == 2


def test_queries_of_another_size_are_one_line(filled: Cli, label_file: Path) -> None:
    import numpy as np
    import polars as pl

    pl.DataFrame({"id": ["a"], "vector": np.ones((1, 5), np.float32)}).write_parquet("q.parquet")
    done = filled(*DB, "index", "build", "--queries", "q.parquet")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "expected 16 dimensions, got 5" in done.err


def test_what_is_slower_than_exact_search_is_told_in_one_line_and_not_kept(
    filled: Cli, query_file: Path, label_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: AgreementTest, approximation: Approximation) -> MeasuredSetting:
        return MeasuredSetting(approximation.setting, 1.0, 1.0, 0.5, 3.0)

    monkeypatch.setattr(AgreementTest, "measure", slow)
    asked = ("--queries", query_file, "--label-vectors", label_file)
    done = filled(*DB, "index", "build", *asked, *K)
    assert (done.status, done.out) == (1, "")
    assert "takes 3.00 ms instead of 1.50 ms" in done.err.splitlines()[-1]
    assert filled(*DB, "index", "status", "--format", "json").objects == []
