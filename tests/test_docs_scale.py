"""docs/scale.md is true: its loop runs as it stands, its command does what it says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import entry_point
from shared_sources import content, row, write_rows
from transcripts import BLOCK, check, steps

from asif_lance.ingest import ingest_sources

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text()
BLOCKS = {name: text for name, text in BLOCK.findall(PAGE) if name in ("python", "console")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with 42 pairs, and two rows that are none."""
    rows = [row(n, n) for n in range(42)]
    write_rows(tmp_path / "shards" / "a.parquet", [*rows[:30], {**rows[30], "caption": ""}])
    write_rows(tmp_path / "shards" / "b.parquet", [*rows[29:], {**rows[30], "caption": " "}][1:])
    ingest_sources(tmp_path / "alone.lancedb", [tmp_path / "shards"])
    return tmp_path


def test_the_loop_of_ten_lines_makes_the_model_of_one_process(folder: Path) -> None:
    (folder / "share.py").write_text(BLOCKS["python"])
    done = subprocess.run(
        [sys.executable, "share.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "added 42, v1\n"), done.stderr
    assert content(folder / "pairs.lancedb").equals(content(folder / "alone.lancedb"))
    lines = BLOCKS["python"].partition("if __name__")[2].splitlines()[1:]
    assert len(lines) <= 10


def test_the_command_does_what_the_page_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ((command, expected),) = steps(BLOCKS["console"])
    name, *arguments = shlex.split(command)
    assert name == "asif-lance"
    done = CliRunner().invoke(entry_point(), arguments)
    ray.shutdown()
    assert done.exit_code == 0, done.output
    check(command, expected, done.output.splitlines())
