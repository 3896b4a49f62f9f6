"""docs/scale.md is true: its loop runs as it stands, its command does what it says."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import entry_point, picture
from s3_server import Server, upload
from shared_sources import content, row, write_rows
from transcripts import BLOCK, check, steps

from asif_lance.audit import list_runs
from asif_lance.ingest import ingest_sources
from asif_lance.model import open_model
from asif_lance.store import PairStore

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text()
SHARE, SEARCH, RECORD = (text for name, text in BLOCK.findall(PAGE) if name == "python")
ON_RAY, IN_A_BUCKET, RECORD_ON_RAY = (
    text for name, text in BLOCK.findall(PAGE) if name == "console"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with 42 pairs, and two rows that are none."""
    rows = [row(n, n) for n in range(42)]
    write_rows(tmp_path / "shards" / "a.parquet", [*rows[:30], {**rows[30], "caption": ""}])
    write_rows(tmp_path / "shards" / "b.parquet", [*rows[29:], {**rows[30], "caption": " "}][1:])
    ingest_sources(tmp_path / "alone.lancedb", [tmp_path / "shards"])
    return tmp_path


def test_the_loop_of_ten_lines_makes_the_model_of_one_process(folder: Path) -> None:
    (folder / "share.py").write_text(SHARE)
    for told in ("added 42 v1\n", "added 0 None\n"):
        command = [sys.executable, "share.py"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, told), done.stderr
    assert content(folder / "pairs.lancedb").equals(content(folder / "alone.lancedb"))
    lines = SHARE.partition("if __name__")[2].splitlines()[1:]
    assert len(lines) <= 10


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four pictures, which are the pairs of a database beside it."""
    for number in range(4):
        photo = picture(tmp_path / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    ingest_sources(tmp_path / "pairs.lancedb", [tmp_path / "photos"])
    return tmp_path / "photos"


@pytest.mark.encoders
def test_a_model_that_processes_share_answers_as_the_page_says(
    tmp_path: Path, photos: Path
) -> None:
    uri = tmp_path / "pairs.lancedb"
    (tmp_path / "search.py").write_text(SEARCH)
    done = subprocess.run(
        [sys.executable, "search.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    model = open_model(uri)
    expected = model.classify(tmp_path / "photos", model.labels(["cat", "dog"]))
    labels = [line.split()[-1] for line in done.stdout.splitlines()]
    assert labels == [found.label for found in expected]
    assert len(labels) == 4


@pytest.mark.encoders
def test_the_loop_that_records_does_what_the_page_says(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "record.py").write_text(RECORD)
    done = subprocess.run(
        [sys.executable, "record.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "recorded 4\n"), done.stderr
    (run,) = list_runs(PairStore.open(str(tmp_path / "pairs.lancedb")))
    assert run.predictions == 4


@pytest.mark.encoders
def test_the_commands_on_ray_do_what_the_page_says(
    folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    try:
        for place, block in ((folder / "empty", ON_RAY), (folder, RECORD_ON_RAY)):
            place.mkdir(exist_ok=True)
            monkeypatch.chdir(place)
            for command, expected in steps(block):
                name, *arguments = shlex.split(command)
                assert name == "asif-lance"
                given = [str(folder / "shards") if a == "shards" else a for a in arguments]
                done = CliRunner().invoke(entry_point(), given)
                assert done.exit_code == 0, done.output
                check(command, expected, done.output.splitlines())
    finally:
        ray.shutdown()


def test_the_file_of_a_cluster_is_one_that_ray_takes() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
    pytest.importorskip("jsonschema", reason="Ray checks such files with jsonschema")
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    (text,) = (text for name, text in BLOCK.findall(PAGE) if name == "yaml")
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}


def test_commands_do_in_a_bucket_what_the_page_says(
    folder: Path, s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.ask("PUT", "pictures")
    upload(folder / "shards", "s3://pictures/shards")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ASIF_LANCE_DB", "s3://pictures/pairs.lancedb")
    for command, expected in steps(IN_A_BUCKET):
        _, *arguments = shlex.split(command)
        done = CliRunner().invoke(entry_point(), arguments)
        assert done.exit_code == 0, done.output
        check(command, expected, done.output.splitlines())
    assert len(content("s3://pictures/pairs.lancedb")) == 41
