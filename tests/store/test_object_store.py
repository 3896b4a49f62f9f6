"""A database in an object store: what a folder does, it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pytest
from conftest import Cli, pairs_frame
from s3_server import Server

from asif_lance.database import lease
from asif_lance.forgetting import execution
from asif_lance.object_stores import list_sizes, open_path
from asif_lance.verifier import JOURNAL_FILE

pytestmark = pytest.mark.slow

# Wide enough that Lance writes vectors as they are in memory, and narrower.
WIDTHS = 128, 96

Do = Callable[..., str]
Run = Callable[..., list[dict]]


@pytest.fixture(params=["folder", "s3", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the database is: every test here passes in a folder, too."""
    if request.param == "folder":
        return str(tmp_path / "t.lancedb")
    kind = "bucket" if request.param == "s3" else "container"
    return f"{request.getfixturevalue(kind)}/some/t.lancedb"


@pytest.fixture
def do(cli: Cli, place: str) -> Do:
    """Runs a command that has to succeed."""

    def do(*arguments: object) -> str:
        done = cli("--db", place, *arguments)
        assert done.status == 0, done.err
        return done.out

    return do


@pytest.fixture
def run(cli: Cli, place: str) -> Run:
    """The same, for what it prints as JSON."""

    def run(*arguments: object) -> list[dict]:
        done = cli("--db", place, *arguments, "--format", "json")
        assert done.status == 0, done.err
        return done.objects

    return run


@pytest.fixture
def wide(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, Path, Path]:
    """Pairs, questions and labels."""

    def vectors(n: int, side: int) -> np.ndarray:
        return rng.standard_normal((n, WIDTHS[side])).astype(np.float32)

    sides = {"image_vector": vectors(200, 0), "text_vector": vectors(200, 1)}
    names = {"pair_id": [f"p{n}" for n in range(200)], "caption": [f"no {n}" for n in range(200)]}
    asked = {"id": [f"q{n}" for n in range(5)], "vector": vectors(5, 0)}
    labels = {"label": list("abc"), "vector": vectors(3, 1)}
    files = tuple(tmp_path / f"{name}.parquet" for name in ("wide", "asked", "labels"))
    for path, columns in zip(files, (names | sides, asked, labels), strict=True):
        pl.DataFrame(columns).write_parquet(path)
    return files


def without_model(answers: list[dict]) -> list[dict]:
    return [{k: v for k, v in answer.items() if k != "model"} for answer in answers]


def test_versions_are_made_read_changed_and_named(
    run: Run, do: Do, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    (report,) = run("ingest", pairs_file)
    assert (report["added"], report["version"]) == (200, "v1")
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file)
    first = run(*asked)
    do("delete", "p7", "--yes")
    do("tag", "prod", "v1")
    do("rollback", "v1")
    assert without_model(run(*asked)) == without_model(first)
    assert without_model(run(*asked, "--model", "prod")) == without_model(first)
    assert [version["pairs"] for version in run("versions")] == [200, 199, 200]
    (facts,) = run("info")
    assert facts["bytes"] > 50_000


def test_predictions_are_recorded_and_answer_sql(
    run: Run, do: Do, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    run("ingest", pairs_file)
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file)
    run(*asked, "--record")
    counted = "SELECT count(DISTINCT prediction_id) AS n FROM predictions"
    assert run("audit", counted) == [{"n": 20}]
    shared = "SELECT count(*) AS n FROM attributions JOIN pairs USING (pair_id)"
    assert run("audit", shared)[0]["n"] > 100


def test_upkeep_frees_what_no_version_needs(
    run: Run, do: Do, tmp_path: Path, rng: np.random.Generator, query_file: Path, label_file: Path
) -> None:
    for start in range(0, 300, 100):
        pairs_frame(100, rng, start=start).write_parquet(tmp_path / f"{start}.parquet")
        run("ingest", tmp_path / f"{start}.parquet")
    do("delete", "p5", "--yes")
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file)
    first = run(*asked)
    do("optimize")
    do("versions", "prune", "--keep-last", "1", "--yes")
    assert without_model(run(*asked)) == without_model(first)
    assert [version["pairs"] for version in run("versions")] == [299]


def test_a_check_finds_a_file_that_was_changed(
    run: Run, do: Do, cli: Cli, place: str, pairs_file: Path
) -> None:
    run("ingest", pairs_file)
    (report,) = run("check")
    assert report["damage"] == []
    root = open_path(place)
    (file,) = (root / name for name in list_sizes(root, "pairs.lance/data"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    found = cli("--db", place, "check", "--format", "json")
    assert found.status == 1
    assert file.name in found.out


def test_what_an_index_finds_is_what_exact_search_finds(
    run: Run, do: Do, tmp_path: Path, rng: np.random.Generator, query_file: Path, label_file: Path
) -> None:
    pairs_frame(3000, rng).write_parquet(tmp_path / "many.parquet")
    run("ingest", tmp_path / "many.parquet")
    do("index", "build", "--keep")
    assert run("index", "status")
    do("index", "drop")


def test_pairs_that_were_brought_again_change_their_rows(
    run: Run, do: Do, tmp_path: Path, rng
) -> None:
    frame = pairs_frame(50, rng)
    frame.write_parquet(tmp_path / "old.parquet")
    frame.with_columns(pl.lit("new words").alias("caption")).write_parquet(tmp_path / "new.parquet")
    run("ingest", tmp_path / "old.parquet")
    (report,) = run("ingest", tmp_path / "new.parquet", "--on-conflict", "update")
    assert report["version"] == "v2"
    assert run("audit", "SELECT DISTINCT caption FROM pairs") == [{"caption": "new words"}]


def test_forgetting_leaves_nothing_in_any_version_and_its_receipt_says_so(
    run: Run, do: Do, cli: Cli, place: str, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    run("ingest", pairs_file)
    do("delete", "p1", "--yes")
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file)
    run(*asked, "--record")
    (receipt,) = run("forget", "p7", "p9", "--reason", "asked to", "--yes")
    assert receipt["clean"]
    assert [version["pairs"] for version in run("versions")] == [198, 197]
    verified = cli("--db", place, "forget", "--verify", receipt["receipt_id"])
    assert verified.status == 0, verified.err
    run(*asked)
    (again,) = run("ingest", pairs_file)  # p1 comes back, forgotten pairs stay out
    assert (again["added"], again["rejected"]) == (1, 2)


def test_two_processes_that_ingest_at_once_make_two_versions_of_all_pairs(
    bucket: str, cli: Cli, tmp_path: Path, rng: np.random.Generator
) -> None:
    place = f"{bucket}/t.lancedb"
    pairs_frame(10, rng).write_parquet(tmp_path / "first.parquet")
    assert cli("--db", place, "ingest", tmp_path / "first.parquet").status == 0
    for n in (1, 2):
        pairs_frame(100, rng, start=100 * n).write_parquet(tmp_path / f"{n}.parquet")
    command = "from asif_lance.cli import main; main()"
    both = [
        subprocess.Popen(
            [sys.executable, "-c", command, "--db", place, "ingest", str(tmp_path / f"{n}.parquet")]
        )
        for n in (1, 2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    versions = cli("--db", place, "versions", "--format", "json").objects
    # Whoever publishes first may publish what the other one has added, too.
    assert [version["name"] for version in versions] == ["v1", "v2", "v3"][: len(versions)]
    assert versions[-1]["pairs"] == 210


def test_vectors_are_read_once_and_kept_here_within_a_limit(
    bucket: str,
    cli: Cli,
    wide: tuple[Path, Path, Path],
    vector_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def list_kept() -> dict[Path, int]:
        return {p: p.stat().st_ino for p in vector_cache.rglob("*.vectors")}

    place, (pairs, queries, labels) = f"{bucket}/t.lancedb", wide
    cli("--db", place, "ingest", pairs)
    asked = ("--db", place, "classify", "--vectors", queries, "--label-vectors", labels)
    first = cli(*asked, "--format", "json").objects
    kept = list_kept()
    assert sum(path.stat().st_size for path in kept) == 200 * sum(WIDTHS) * 2
    assert cli(*asked, "--format", "json").objects == first
    assert list_kept() == kept
    monkeypatch.setenv("ASIF_LANCE_CACHE_BYTES", "60000")  # one side of the two
    for path in kept:
        path.unlink()
    assert cli(*asked, "--format", "json").objects == first
    assert sum(path.stat().st_size for path in list_kept()) <= 60_000


def test_forgotten_vectors_leave_the_caches_of_this_machine_and_of_others(
    bucket: str,
    cli: Cli,
    wide: tuple[Path, Path, Path],
    vector_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, (pairs, queries, labels) = f"{bucket}/t.lancedb", wide
    cli("--db", place, "ingest", pairs)
    asked = ("--db", place, "classify", "--vectors", queries, "--label-vectors", labels)
    other = tmp_path / "another machine"
    for folder in (other, vector_cache):
        monkeypatch.setenv("ASIF_LANCE_CACHE", str(folder))
        assert cli(*asked).status == 0
    assert cli("--db", place, "forget", "p7", "--reason", "asked to", "--yes").status == 0
    assert not list(vector_cache.rglob("*.vectors"))
    old = set(other.rglob("*.vectors"))
    monkeypatch.setenv("ASIF_LANCE_CACHE", str(other))
    assert cli(*asked).status == 0
    assert old
    assert not old & set(other.rglob("*.vectors"))


def test_a_receipt_says_that_a_bucket_keeps_what_was_deleted(
    bucket: str, s3_server: Server, cli: Cli, pairs_file: Path
) -> None:
    on = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    s3_server.ask("PUT", f"{bucket.removeprefix('s3://')}/?versioning", on.encode())
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    done = cli("--db", place, "forget", "p7", "--reason", "asked to", "--yes")
    assert done.status == 0, done.err
    assert "keeps versions of its objects" in done.out + done.err


def test_a_forget_that_was_killed_is_finished_by_whoever_opens_the_database_next(
    bucket: str, cli: Cli, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/t.lancedb"
    cli("--db", place, "ingest", pairs_file)
    plain = execution.erase_derived

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "erase_derived", die)
    with suppress(KeyboardInterrupt):
        cli("--db", place, "forget", "p7", "--reason", "asked to", "--yes")
    monkeypatch.setattr(execution, "erase_derived", plain)
    done = cli("--db", place, "info")
    assert "finished an interrupted forget of 1 pair" in done.out + done.err
    checked = cli("--db", place, "check")
    assert checked.status == 0, checked.out


def test_settings_that_a_program_brings_are_used_everywhere(
    bucket: str, s3_server: Server, cli: Cli, pairs_file: Path
) -> None:
    place = f"{bucket}/t.lancedb"
    cli("--db", place, "ingest", pairs_file)
    options = {"endpoint": s3_server.address, "region": "us-east-1", "allow_http": "true"}
    options |= {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    code = (
        "import asif_lance\n"
        f"model = asif_lance.open({place!r}, storage_options={options})\n"
        "print(model.version.name, len(model.anchors))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False
    )
    assert done.stdout == "v1 200\n", done.stderr


def test_what_an_overtaken_writer_left_of_forgotten_pairs_is_never_published(
    run: Run, cli: Cli, place: str, pairs_file: Path
) -> None:
    run("ingest", pairs_file)
    late = lance.dataset(f"{place}/pairs.lance").to_table(filter="pair_id = 'p7'")
    run("forget", "p7", "--reason", "asked to", "--yes")
    lance.write_dataset(late, f"{place}/pairs.lance", mode="append")
    done = cli("--db", place, "publish")
    assert done.status == 1
    assert "forgotten" in done.err
    assert [version["pairs"] for version in run("versions")] == [199]


_DYING = """
import os
from asif_lance.database import lease
from asif_lance.forgetting import execution
from asif_lance.store import PairStore
from asif_lance.store.forget import forget
execution.erase_derived = lambda *_: os._exit(9)
forget(PairStore.open({place!r}), ["p7"], reason="asked to")
"""


def test_the_next_writer_finishes_a_forget_whose_process_was_killed_with_the_lease(
    cli: Cli, bucket: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    code = _DYING.format(place=place)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    monkeypatch.setattr(lease, "LASTING", 2.0)
    assert cli("--db", place, "optimize").status == 0
    versions = cli("--db", place, "versions", "--format", "json").objects
    assert [version["pairs"] for version in versions] == [199]
    asked = cli("--db", place, "audit", "SELECT clean FROM receipts", "--format", "json")
    assert asked.objects == [{"clean": True}]


@pytest.mark.parametrize(
    "command",
    [("versions",), ("info",), ("receipt", "list"), ("audit", "SELECT count(*) AS n FROM pairs")],
    ids=lambda command: command[0],
)
def test_the_next_reader_finishes_a_forget_whose_process_was_killed_with_the_lease_and_tells(
    cli: Cli, bucket: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch, command: tuple
) -> None:
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    code = _DYING.format(place=place)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    monkeypatch.setattr(lease, "LASTING", 2.0)
    read = cli("--db", place, *command)
    assert read.status == 0
    told = read.err.splitlines()
    assert told[0].startswith("waiting up to 2 s to see whether `forget` (")
    assert told[1].startswith("finished an interrupted forget of 1 pair: receipt f")
    assert JOURNAL_FILE not in list_sizes(open_path(place))
    versions = cli("--db", place, "versions", "--format", "json").objects
    assert [version["pairs"] for version in versions] == [199]


def test_a_check_names_a_killed_forget_and_takes_nothing_of_it_for_damage(
    cli: Cli, bucket: str, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    code = _DYING.replace("erase_derived", "_set_counts").format(place=place)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    monkeypatch.setattr(lease, "LASTING", 2.0)
    checked = cli("--db", place, "check")
    assert (checked.status, "DAMAGED" in checked.err) == (0, False), checked.err
    assert "a forget has begun and not ended" in checked.err
    assert "finished an interrupted forget" in cli("--db", place, "versions").err
    assert "forget" not in cli("--db", place, "check").err


_WORKING = """
import sys, time
from asif_lance.forgetting import execution
from asif_lance.store import PairStore
from asif_lance.store.forget import forget
execution.erase_derived = lambda *_: (print("half done", flush=True), time.sleep(300))
forget(PairStore.open(sys.argv[1]), ["p7"], reason="asked to")
"""


def test_a_reader_leaves_a_forget_alone_whose_process_lives_and_tells_of_it(
    cli: Cli, bucket: str, pairs_file: Path
) -> None:
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    command = [sys.executable, "-c", _WORKING, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forgetting:
        try:
            assert forgetting.stdout is not None
            assert forgetting.stdout.readline() == "half done\n"
            read = cli("--db", place, "versions")
            assert forgetting.poll() is None
        finally:
            forgetting.kill()
    assert read.status == 0
    assert read.err.splitlines()[1:] == [
        "a forget is under way: until it is done, counts may include what it removes"
    ]
    assert JOURNAL_FILE in list_sizes(open_path(place))


def test_a_lease_that_is_none_is_damage_that_a_check_names(
    bucket: str, cli: Cli, pairs_file: Path
) -> None:
    place = f"{bucket}/t.lancedb"
    assert cli("--db", place, "ingest", pairs_file).status == 0
    (open_path(place) / ".asif-lease").write_bytes(b"garbage")
    told = ".asif-lease is not a lease: remove it when nobody writes"
    found = cli("--db", place, "check")
    assert (found.status, told in found.out + found.err) == (1, True), found
    assert told in cli("--db", place, "delete", "p1", "--yes").err
    (open_path(place) / ".asif-lease").unlink()
    assert cli("--db", place, "check").status == 0
