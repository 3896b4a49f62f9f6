"""A real S3 server on this machine, one for all tests of a process."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

_NEEDED = ("moto", "flask", "flask_cors", "obstore", "upath")


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    address: str

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        kind = {"Content-Type": "application/xml"}  # what moto takes a body for, else it is a form
        request = urllib.request.Request(f"{self.address}/{path}", body, kind, method=method)
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for name in _NEEDED:
        pytest.importorskip(name, reason="moto's S3 server, or what reads it, is not installed")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    settings = {"ENDPOINT": address, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
    settings |= {"REGION": "us-east-1", "ALLOW_HTTP": "true"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    place = tmp_path_factory.mktemp("s3")
    with (place / "server.log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("ASIF_LANCE_CACHE", str(place / "cache"))
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait(Server(address))
            yield Server(address)
        finally:
            server.terminate()
            server.wait()


def _wait(server: Server) -> None:
    for _ in range(600):
        with suppress(urllib.error.URLError):
            server.ask("GET", "")
            return
        time.sleep(0.1)


@pytest.fixture
def bucket(s3_server: Server, request: pytest.FixtureRequest) -> str:
    """A new bucket, by its address."""
    name = f"b{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
    s3_server.ask("PUT", name)
    return f"s3://{name}"


@pytest.fixture
def vector_cache(s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of vectors of this test's own."""
    monkeypatch.setenv("ASIF_LANCE_CACHE", str(tmp_path / "vector cache"))
    return tmp_path / "vector cache"


def upload(folder: Path, place: str) -> str:
    """Puts the files of a folder into a bucket; where they are then."""
    from asif_lance.object_stores import open_path

    for file in sorted(folder.rglob("*")):
        if file.is_file():
            (open_path(place) / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())
    return place
