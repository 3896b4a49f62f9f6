"""The command with examples: they go in with a role, and every command shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame

DB = ("--db", "t.lancedb")
ASKED = ("--vectors", "queries.parquet", "--label-vectors", "labels.parquet", "--k", "20")


@pytest.fixture
def texts(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> np.ndarray:
    """Fifty ordinary pairs, three labels, and six pictures of each of two of them."""
    pairs_frame(50, rng).write_parquet(tmp_path / "pairs.parquet")
    assert cli(*DB, "ingest", "pairs.parquet").status == 0
    kinds = np.repeat(np.arange(2), 6)
    image = 3 * np.eye(2, IMAGE_DIM)[kinds] + 0.3 * rng.standard_normal((12, IMAGE_DIM))
    text = rng.standard_normal((3, TEXT_DIM)).astype(np.float32)
    few = {"pair_id": [f"e{i}" for i in range(8)], "caption": [f"c{i % 2}" for i in range(8)]}
    order = [0, 6, 1, 7, 2, 8, 3, 9]
    vectors = {"image_vector": image[order].astype("f4"), "text_vector": text[kinds[order]]}
    pl.DataFrame({**few, **vectors}).write_parquet(tmp_path / "few.parquet")
    rest = [4, 5, 10, 11]
    asked = {"id": [f"q{kinds[i]}" for i in rest], "vector": image[rest].astype("f4")}
    pl.DataFrame(asked).write_parquet(tmp_path / "queries.parquet")
    labels = {"label": ["c0", "c1", "c2"], "vector": text}
    pl.DataFrame(labels).write_parquet(tmp_path / "labels.parquet")
    return text


def test_examples_go_in_with_a_role_teach_and_are_shown(cli: Cli, texts: np.ndarray) -> None:
    assert len(texts) == 3
    assert cli(*DB, "ingest", "few.parquet", "--role", "example").status == 0
    asked = cli(*DB, "classify", *ASKED, "--explain", 100, "--format", "json").objects
    assert [one["predictions"][0]["label"] for one in asked] == ["c0", "c0", "c1", "c1"]
    for one in asked:
        assert {pair["role"] for pair in one["pairs"]} == {None, "example"}
        total = sum(pair["contribution"] for pair in one["pairs"])
        assert total == pytest.approx(one["predictions"][0]["score"], abs=1e-12)
    shown = cli(*DB, "classify", *ASKED, "--explain", 100).out
    assert "pair_id  role" in shown
    assert "example" in shown
    plain = cli(*DB, "classify", *ASKED, "--explain", 3, "--model", "v1").out
    assert "role" not in plain
    counted = "SELECT role, count(*) AS n FROM pairs GROUP BY role ORDER BY n"
    rows = cli(*DB, "audit", counted, "--format", "json").objects
    assert rows == [{"role": "example", "n": 8}, {"role": None, "n": 50}]


def test_a_pair_that_is_there_becomes_an_example_only_on_request(
    cli: Cli, texts: np.ndarray
) -> None:
    assert len(texts) == 3
    assert cli(*DB, "ingest", "few.parquet").status == 0
    again = ("ingest", "few.parquet", "--role", "example")
    assert cli(*DB, *again, "--on-conflict", "fail").status == 1
    cli(*DB, *again)
    asked = "SELECT count(*) AS n FROM pairs WHERE role = 'example'"
    assert cli(*DB, "audit", asked, "--format", "json").objects == [{"n": 0}]
    assert cli(*DB, *again, "--on-conflict", "update").status == 0
    assert cli(*DB, "audit", asked, "--format", "json").objects == [{"n": 8}]
    (found,) = cli(*DB, "diff", "v2", "v3", "--format", "json").objects
    assert (found["added"], found["removed"], found["changed"]) == (0, 0, 8)


def test_what_if_tells_what_examples_would_teach(cli: Cli, texts: np.ndarray) -> None:
    assert len(texts) == 3
    asked = (*ASKED, "--recipe", "centred")  # under which examples change some answers here
    recorded = cli(*DB, "classify", *asked, "--record", "--format", "json").objects
    promised = cli(*DB, "what-if", "add", "few.parquet", "--role", "example", "--format", "json")
    flips = [one for one in promised.objects if "because" in one]
    assert cli(*DB, "ingest", "few.parquet", "--role", "example").status == 0
    really = cli(*DB, "classify", *asked, "--format", "json").objects
    pairs = zip(recorded, really, strict=True)
    both = [(a["predictions"][0], b["predictions"][0]) for a, b in pairs]
    changed = [(a["label"], b["label"]) for a, b in both if a["label"] != b["label"]]
    assert changed
    assert [(f["before"]["label"], f["after"]["label"]) for f in flips] == changed
    assert {pair["role"] for flip in flips for pair in flip["because"]} <= {None, "example"}
    assert any(pair["role"] for flip in flips for pair in flip["because"])


def test_a_database_of_examples_alone_says_that_it_cannot_compare(cli: Cli, tmp_path: Path) -> None:
    pairs_frame(3, np.random.default_rng(0)).write_parquet(tmp_path / "few.parquet")
    pl.DataFrame({"id": ["q"], "vector": np.ones((1, IMAGE_DIM), "f4")}).write_parquet("q.parquet")
    labels = {"label": ["a"], "vector": np.ones((1, TEXT_DIM), "f4")}
    pl.DataFrame(labels).write_parquet("labels.parquet")
    assert cli(*DB, "ingest", "few.parquet", "--role", "example").status == 0
    asked = ("--vectors", "q.parquet", "--label-vectors", "labels.parquet")
    refused = cli(*DB, "classify", *asked)
    assert refused.status == 1
    assert "has no ordinary pairs to compare with: ingest some first" in refused.err
