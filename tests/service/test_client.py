"""`classify --server` prints what `classify` does from the database at hand; it loads nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, pairs_frame, picture
from running_service import serve

_LOADS = """
import sys
from asif_lance.cli import main
try:
    main(["classify", "photos/1.png", "--labels", "one"])
finally:
    print("torch" in sys.modules)
"""


def test_a_server_answers_what_the_database_answers(
    cli: Cli,
    tmp_path: Path,
    pairs_file: Path,
    query_file: Path,
    label_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = tmp_path / "t.lancedb"
    assert cli("--db", database, "ingest", pairs_file).status == 0
    asked = ("--vectors", query_file, "--label-vectors", label_file, "--explain", 3)
    with serve(database) as service:
        for options in (
            (),
            ("--recipe", "paper", "--k", "20,30"),
            ("--model", "v1", "--top", 2),
            ("--confidence",),
            (strange := ("--confidence", "--k", 3)),  # no pair speaks for most pictures
        ):
            for output in ("json", "table"):
                command = ("classify", *asked, *options, "--format", output)
                here = cli("--db", database, *command)
                there = cli(*command, "--server", service.address)
                assert (there.status, there.out) == (0, here.out), there.err
                assert there.err == here.err
                assert options != strange or "no score is above 0" in there.err
        done = cli("classify", *asked, "--model", "v9", "--server", service.address)
        assert (done.status, "no model version 'v9'" in done.err) == (1, True)
        done = cli("classify", *asked, "--record", "--server", service.address)
        assert (done.status, "--record needs the database at hand" in done.err) == (2, True)
        done = cli(*("--db", database, "classify", *asked), "--server", service.address)
        assert (done.status, "give --db or --server" in done.err) == (2, True)
        monkeypatch.setenv("ASIF_LANCE_SERVER", service.address)
        done = cli("classify", *asked, "--db", "nowhere")
        assert (done.status, "no asif_lance database at" in done.err) == (1, True)
        service.stop()
        done = cli("classify", *asked, "--server", service.address)
        assert (done.status, "does not answer" in done.err) == (1, True)


@pytest.mark.encoders
def test_pictures_are_sent_and_the_bad_ones_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        picture(tmp_path / "photos" / f"{number}.png", number)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"Picture number {number}.")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    database = tmp_path / "t.lancedb"
    assert cli("--db", database, "ingest", "photos").status == 0
    command = ("classify", "photos", "bad.png", "none.png", "--labels", "one,two")
    here = cli("--db", database, *command, "--format", "json")
    with serve(database) as service:
        monkeypatch.setenv("ASIF_LANCE_SERVER", service.address)
        there = cli(*command, "--format", "json")
        ran = subprocess.run(
            [sys.executable, "-c", _LOADS], capture_output=True, text=True, check=True
        )
    assert (here.status, there.status) == (1, 1)
    assert len(there.objects) == len(here.objects) == 6
    for far, near in zip(there.objects, here.objects, strict=True):
        ranked = [{one["label"]: one["score"] for one in o.pop("predictions")} for o in (far, near)]
        assert far == near
        assert ranked[0] == pytest.approx(ranked[1], abs=1e-5)  # what encoders differ by
    for told in ("bad.png: not an image", "none.png: missing file"):
        assert told in there.err
        assert told in here.err
    assert ran.stdout.splitlines()[-1] == "False"


@pytest.mark.encoders
def test_a_picture_larger_than_a_request_costs_only_itself(cli: Cli, tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "photos" / f"{number}.png", number)
        (tmp_path / "photos" / f"{number}.txt").write_text(f"Picture number {number}.")
    database = tmp_path / "t.lancedb"
    assert cli("--db", database, "ingest", "photos").status == 0
    (tmp_path / "photos" / "1.png").write_bytes(b"x" * 40_000_000)
    (tmp_path / "photos" / "2.png").write_bytes(b"x" * 1_500_000)  # too large with others
    command = ("classify", "photos", "--labels", "one,two", "--format", "json")
    for limit in ("2MB", "32MB"):
        with serve(database, "--upload-limit", limit) as service:
            done = cli(*command, "--server", service.address)
        assert [Path(one["image"]).name for one in done.objects] == ["0.png", "3.png"], done.err
        assert "1.png: larger than the service takes" in done.err
        assert "2.png: not an image" in done.err


def test_no_service_is_one_line(cli: Cli, tmp_path: Path) -> None:
    pairs_frame(2, np.random.default_rng(1))
    picture(tmp_path / "a.png", 1)
    for url in ("http://127.0.0.1:1", "nonsense", "http://[", "ftp://x", "127.0.0.1:8000"):
        done = cli("classify", "a.png", "--labels", "a,b", "--server", url)
        assert (done.status, len(done.err.splitlines())) == (1, 1), done.err
    assert "has to begin with http:// or https://" in done.err
