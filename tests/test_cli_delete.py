"""delete says how much it takes, and asks before it takes most of the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli

DB = ("--db", "t.lancedb")
MOST, HALF = "license = 'CC-BY' OR pair_id < 'p15'", "license = 'CC-BY'"


@pytest.fixture
def filled(cli: Cli, pairs_file: Path) -> Cli:
    cli(*DB, "ingest", pairs_file)
    return cli


def versions(cli: Cli) -> list[str]:
    return [version["name"] for version in cli(*DB, "versions", "--format", "json").objects]


def test_a_dry_run_counts_and_changes_nothing(filled: Cli) -> None:
    done = filled(*DB, "delete", "--where", HALF, "--dry-run")
    assert (done.status, done.out) == (0, "")
    assert done.err == "would delete 100 of 200 pairs; nothing was changed\n"
    done = filled(*DB, "delete", "p1", "nobody", "p1", "--dry-run", "--format", "json")
    assert done.objects == [{"deleted": 1, "not_found": 1, "version": "v1"}]
    assert versions(filled) == ["v1"]


def test_half_of_the_pairs_go_without_a_question(filled: Cli) -> None:
    done = filled(*DB, "delete", "--where", HALF)
    assert (done.status, done.err) == (0, "deleted 100 pairs; the newest model is v2\n")


def test_more_than_half_need_a_yes(filled: Cli, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from asif_lance.cli import main; main()", *DB]
    asked = [*command, "delete", "--where", MOST]
    answers = {"n\n": (1, ["v1"]), "": (1, ["v1"]), "y\n": (0, ["v1", "v2"])}
    for answer, expected in answers.items():
        done = subprocess.run(
            asked, cwd=tmp_path, input=answer, text=True, capture_output=True, check=False
        )
        assert "of 200 pairs. Delete them?" in done.stderr
        assert (done.returncode, versions(filled)) == expected
    assert subprocess.call([*asked, "--yes"], cwd=tmp_path, stdin=subprocess.DEVNULL) == 0


def test_ids_that_are_written_out_need_no_yes(filled: Cli) -> None:
    done = filled(*DB, "delete", *(f"p{i}" for i in range(150)), "--format", "json")
    assert done.objects == [{"deleted": 150, "not_found": 0, "version": "v2"}]
