"""Jobs that are given to the head of a Ray cluster, as docs/scale.md has them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from s3_server import upload
from shared_sources import content, row, write_rows

from asif_lance.ingest import ingest_sources

pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
pytest.importorskip(
    "aiohttp_cors", reason="Ray takes jobs with ray[default]: `make cluster` has it"
)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:lance is not fork-safe")]

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"
Ran = subprocess.CompletedProcess[str]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@dataclass(frozen=True)
class Head:
    """A cluster of one machine that asks whoever comes for a token."""

    jobs: str
    env: dict[str, str]

    def run(self, command: str) -> Ran:
        """A command that speaks to it from outside."""
        ray, *words = shlex.split(command.replace("\\\n", ""))
        assert ray == "ray"
        env = {**self.env, "RAY_ADDRESS": self.jobs}
        return subprocess.run([*RAY, *words], env=env, capture_output=True, text=True, check=False)

    def wait(self, job: str) -> str:
        """What is said of a job when it has ended."""
        while re.search("PENDING|RUNNING", said := self.run(f"ray job status {job}").stdout):
            time.sleep(0.5)
        return said


def find_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


@pytest.fixture
def head(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """Its machines reach the S3 server that the tests have."""
    port, jobs = find_ports(2)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    for name, value in {**token, "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = f"--head --block --port={port} --dashboard-port={jobs} --num-cpus=2"
    command = [*RAY, "start", *options.split(), "--object-store-memory=100000000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ray:
        head = Head(f"http://127.0.0.1:{jobs}", dict(os.environ))
        try:
            _wait_for(head)
            yield head
        finally:
            ray.send_signal(signal.SIGTERM)


def _wait_for(head: Head) -> None:
    for _ in range(60):
        if head.run("ray job submit -- true").returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError("no head")


def test_the_job_of_the_docs_ingests_on_the_cluster(
    head: Head, bucket: str, tmp_path: Path
) -> None:
    rows = [row(n, n, image_uri=f"https://example.org/{n}.jpg") for n in range(60)]
    write_rows(tmp_path / "shards" / "a.parquet", rows)
    ingest_sources(tmp_path / "alone.lancedb", [tmp_path / "shards"])
    upload(tmp_path / "shards", f"{bucket}/shards")
    (command,) = re.findall(
        r"^RAY_ADDRESS=\S+ (ray job submit .*?)\n```", DOCS.read_text(), re.S | re.M
    )
    submitted = head.run(command.replace("s3://pictures", bucket))
    assert submitted.returncode == 0, submitted.stderr
    (job,) = re.findall(r"Job '(\w+)' submitted", submitted.stdout + submitted.stderr)
    ended, said = head.wait(job), head.run(f"ray job logs {job}").stdout
    assert "succeeded" in ended, said
    assert "added 60" in said
    found, alone = content(f"{bucket}/pairs.lancedb"), content(tmp_path / "alone.lancedb")
    assert found.drop_columns("source").equals(alone.drop_columns("source"))
    actors = json.loads(head.run("ray list actors --format json").stdout)
    assert [one["class_name"] for one in actors].count("Worker") == 2


def test_a_job_that_fails_ends_with_its_reason(head: Head, bucket: str) -> None:
    command = f"asif-lance --db {bucket}/pairs.lancedb ingest {bucket}/nothing --engine ray"
    submitted = head.run(f"ray job submit -- {command}")
    assert submitted.returncode != 0
    assert (
        f"asif-lance: there is no source at {bucket}/nothing" in submitted.stdout + submitted.stderr
    )
