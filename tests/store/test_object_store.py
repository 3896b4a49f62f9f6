"""A database in an object store: what works there, and one line for what does not."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Cli

pytest.importorskip("moto", reason="moto's S3 server is not installed")
pytest.importorskip("flask", reason="moto's S3 server is not installed")
pytestmark = pytest.mark.slow

DATABASE = "s3://bucket/t.lancedb"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A real S3 server on this machine, with one bucket."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    settings = {"ENDPOINT": address, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
    for name, value in (settings | {"REGION": "us-east-1", "ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                make = urllib.request.Request(f"{address}/bucket", method="PUT")
                urllib.request.urlopen(make).close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


@pytest.mark.usefixtures("bucket")
def test_an_object_store_holds_versions_that_are_read_changed_and_named(
    cli: Cli, pairs_file: Path, query_file: Path, label_file: Path
) -> None:
    def run(*arguments: object) -> list[dict]:
        done = cli("--db", DATABASE, *arguments, "--format", "json")
        assert done.status == 0, done.err
        return done.objects

    (report,) = run("ingest", pairs_file)
    assert (report["added"], report["version"]) == (200, "v1")
    asked = ("classify", "--vectors", query_file, "--label-vectors", label_file)
    first = run(*asked)
    assert cli("--db", DATABASE, "delete", "p7", "--yes").status == 0
    assert cli("--db", DATABASE, "rollback", "v1").status == 0
    answers = [{k: v for k, v in answer.items() if k != "model"} for answer in run(*asked)]
    assert answers == [{k: v for k, v in answer.items() if k != "model"} for answer in first]
    assert [version["pairs"] for version in run("versions")] == [200, 199, 200]
    (facts,) = run("info")
    assert facts["bytes"] is None  # nobody counts them
    told = cli("--db", DATABASE, "info").out
    assert "0.0 MB" not in told.split("reclaimable")[0]
    assert cli("--db", DATABASE, "optimize").status == 0


@pytest.mark.usefixtures("bucket")
def test_what_an_object_store_cannot_do_is_refused_in_one_line(cli: Cli, pairs_file: Path) -> None:
    assert cli("--db", DATABASE, "ingest", pairs_file).status == 0
    refused = {
        ("forget", "p1", "--reason", "asked to", "--yes"): "forgetting works in local directories",
        ("check",): "only databases in local directories can be checked",
        ("ingest", pairs_file, "--engine", "ray"): "not an object store yet",
    }
    for arguments, told in refused.items():
        done = cli("--db", DATABASE, *arguments)
        assert done.status == 1
        assert told in done.err
        assert "Traceback" not in done.err
