"""What `forget` says before it does anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli, pairs_frame

CAPTIONS = ["A bison.", "a bison\n\x1b[31mred", "BISON " + "x" * 200, "a Bison‮"] * 4


@pytest.fixture
def herd(
    cli: Cli, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    monkeypatch.setenv("ASIF_LANCE_DB", "herd.lancedb")
    uris = pl.Series([f"photos/{i}.jpg" for i in range(16)])
    rows = pairs_frame(16, rng).with_columns(caption=pl.Series(CAPTIONS), image_uri=uris)
    rows.write_parquet(tmp_path / "herd.parquet")
    assert cli("ingest", "herd.parquet").status == 0
    return cli


def test_the_first_captions_are_shown_before_the_question(herd: Cli) -> None:
    done = herd("forget", "--where", "true")
    lines = done.err.splitlines()
    assert lines[0].startswith("16 pairs in 1 version (v1); ")
    assert lines[1].startswith("  p0: A bison. (")
    assert lines[1].endswith("photos/0.jpg)")
    assert "  … and 6 more: --list shows all" in lines
    assert sum(line.startswith("  p") for line in lines) == 10
    assert done.err.index("6 more") < done.err.index("Forget them?")


def test_captions_cannot_drive_the_terminal(herd: Cli) -> None:
    for arguments in (("--list",), ()):
        done = herd("forget", "--where", "true", "--dry-run", *arguments)
        told = done.err + done.out
        assert "\x1b" not in told
        assert "‮" not in told
        assert r"a bison\n\x1b[31mred" in told


def test_all_captions_are_listed_on_request(herd: Cli) -> None:
    done = herd("forget", "--where", "true", "--dry-run", "--list")
    assert len(done.out.splitlines()) == 17
    (plan,) = herd("forget", "--where", "true", "--dry-run", "--format", "json").objects
    listed = {pair["pair_id"]: pair["caption"] for pair in plan["listing"]}
    assert listed == {f"p{number}": caption for number, caption in enumerate(CAPTIONS)}


@pytest.mark.parametrize(
    ("where", "missed"),
    [
        ("caption LIKE '%bison%'", 8),
        ("caption like 'a%'", 4),
        ("caption ILIKE '%bison%'", 0),
        ("caption NOT LIKE '%bison%'", 0),
        ("caption = 'I like it'", 0),
    ],
)
def test_other_spellings_are_counted(herd: Cli, where: str, missed: int) -> None:
    told = herd("forget", "--where", where, "--dry-run").err
    hint = f"{missed} more pairs differ in capital letters: ILIKE instead of LIKE finds them"
    assert (hint in told) == bool(missed)


def test_recordings_that_change_are_counted(herd: Cli, query_file: Path, label_file: Path) -> None:
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file, "--record")
    assert herd(*asked).status == 0
    told = herd("forget", "p3", "--dry-run").err
    assert "1 recording will change: r" in told


def test_what_was_forgotten_before_is_told_with_its_receipt(herd: Cli) -> None:
    [receipt] = herd("forget", "p1", "p2", "--reason", "x", "--yes", "--format", "json").objects
    done = herd("forget", "p2", "p99", "--dry-run")
    day, made = receipt["created_at"][:10], receipt["receipt_id"]
    assert done.err.splitlines() == [
        f"p2: forgotten on {day}, receipt {made}",
        "1 of the ids is in no version",
        "nothing to forget",
    ]
    [plan] = herd("forget", "p2", "p3", "--dry-run", "--format", "json").objects
    assert plan["forgotten"] == {"p2": f"forgotten on {day}, receipt {made}"}
    assert (plan["pairs"], plan["unknown"]) == (["p3"], ["p2"])


def test_without_the_key_nothing_is_told_of_what_was_forgotten(herd: Cli, tmp_path: Path) -> None:
    assert herd("forget", "p1", "--reason", "x", "--yes").status == 0
    done = herd("forget", "p1", "--dry-run", "--keys", tmp_path / "other")
    assert done.err == "1 of the ids is in no version\nnothing to forget\n"
