"""What commands say where there is nothing, one of something, or too much of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame

import asif_lance
from asif_lance.audit import Audit, matching_ids
from asif_lance.database.lock import LOCK_FILE
from asif_lance.errors import AuditError, InputError, PredicateError, format_count
from asif_lance.model import retrieve
from asif_lance.search import unit_queries

DB = ("--db", "t.lancedb")


@pytest.fixture
def filled(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> Cli:
    """A database of 60 pairs: v1."""
    pairs_frame(60, rng).write_parquet(tmp_path / "pairs.parquet")
    assert cli(*DB, "ingest", "pairs.parquet").status == 0
    return cli


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs"), (1234, "1,234 pairs")]
)
def test_one_thing_is_no_plural(number: int, told: str) -> None:
    assert format_count(number, "pair") == told
    assert format_count(number, "pair", "pairs") == told


@pytest.mark.parametrize("command", [("delete",), ("forget",), ("what-if", "delete")])
@pytest.mark.parametrize("where", ["", "  "])
def test_an_empty_predicate_is_wrong_usage(
    filled: Cli, command: tuple[str, ...], where: str
) -> None:
    done = filled(*DB, *command, "--where", where)
    assert (done.status, "'--where': it is empty" in done.err) == (2, True)


def test_empty_sql_is_told(filled: Cli, tmp_path: Path) -> None:
    done = filled(*DB, "audit", "")
    assert (done.status, done.err.startswith("asif-lance: there is no SQL: ask ")) == (1, True)
    store = asif_lance.open(tmp_path / "t.lancedb").store
    with pytest.raises(PredicateError, match="it is empty"):
        matching_ids(store, " ")
    with pytest.raises(AuditError, match="there is no SQL"):
        Audit(store).query("\n")


def test_a_time_before_the_first_version_names_that_version(filled: Cli) -> None:
    done = filled(*DB, "search", "x", "--as-of", "1999-01-01T00:00:00Z")
    assert done.status == 1
    assert done.err.startswith("asif-lance: no model version is as old as 1999-01-01T00:00:00Z: v1")


def test_an_alias_that_is_not_there_cannot_be_taken_away(filled: Cli) -> None:
    assert filled(*DB, "tag", "prod").status == 0
    done = filled(*DB, "tag", "--remove", "test")
    assert (done.status, done.err) == (1, "asif-lance: no alias 'test'; there are: prod\n")


def test_fewer_candidates_than_matches_are_refused(filled: Cli, tmp_path: Path) -> None:
    done = filled(*DB, "search", "x", "--top", 3, "--candidates", 1)
    assert (done.status, "--top 3 needs at least as many --candidates" in done.err) == (2, True)
    model = asif_lance.open(tmp_path / "t.lancedb")
    query = unit_queries(np.ones((1, TEXT_DIM), dtype=np.float32))
    with pytest.raises(InputError, match="best 3 cannot be found among 1 candidates"):
        retrieve(model.anchors, model.recipe, "text", query, 3, 1)


def test_a_very_long_label_is_shortened_in_terminals_only(
    filled: Cli, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "label" * 2000
    texts = rng.standard_normal((2, TEXT_DIM)).astype(np.float32)
    pl.DataFrame({"label": ["a", long], "vector": texts}).write_parquet(tmp_path / "l.parquet")
    image = rng.standard_normal((1, IMAGE_DIM)).astype(np.float32)
    pl.DataFrame({"id": ["q"], "vector": image}).write_parquet(tmp_path / "q.parquet")
    asked = (*DB, "classify", "--vectors", "q.parquet", "--label-vectors", "l.parquet")
    assert long in filled(*asked).out
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a terminal
    shown = filled(*asked).out
    assert "…" in shown
    assert len(shown) < 1000


def test_what_cannot_be_forgotten_leaves_no_keys(filled: Cli, tmp_path: Path) -> None:
    asked = (*DB, "forget", "p1", "--yes", "--keys", "keys")
    quoting = filled(*asked, "--reason", "as 'caption 1' asked")
    assert "quotes what is to be forgotten" in quoting.err
    (tmp_path / "t.lancedb" / LOCK_FILE).unlink()
    (tmp_path / "t.lancedb" / LOCK_FILE).mkdir()  # so that nobody can write, root neither
    done = filled(*asked)
    assert (done.status, "cannot write to " in done.err) == (1, True)
    assert not (tmp_path / "keys").exists()
    (tmp_path / "t.lancedb" / LOCK_FILE).rmdir()
    done = filled(*asked)
    assert done.status == 0
    assert "made two keys in " in done.err
    assert "made two keys in " not in filled(*DB, "forget", "p2", "--yes", "--keys", "keys").err
