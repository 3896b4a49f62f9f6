"""A real Azure blob store on this machine (Azurite), one for all tests of a process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import pytest

_PROGRAM = "azurite-blob"
_ACCOUNT = "devstoreaccount1"
# Azurite's own, the same everywhere.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it listens; the environment leads there."""
    for name in ("obstore", "upath"):
        pytest.importorskip(name, reason="what reads object stores is not installed")
    here = Path(sys.prefix, "azurite", "node_modules", ".bin", _PROGRAM)
    program = shutil.which(_PROGRAM) or shutil.which(here)
    if program is None:
        pytest.skip("Azurite is not installed: `make cluster` has it where npm is")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    settings = {"STORAGE_ACCOUNT_NAME": _ACCOUNT, "STORAGE_ACCOUNT_KEY": _KEY}
    settings |= {"STORAGE_ENDPOINT": address, "ALLOW_HTTP": "true"}
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent"]
    command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    place = tmp_path_factory.mktemp("azure")
    with (place / "server.log").open("w") as log, pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"AZURE_{name}", value)
        patch.setenv("ASIF_LANCE_CACHE", str(place / "cache"))
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=place)
        try:
            _wait(port)
            yield address
        finally:
            server.terminate()
            server.wait()


def _wait(port: int) -> None:
    for _ in range(600):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@pytest.fixture
def container(azure_server: str, request: pytest.FixtureRequest) -> str:
    """A new container, by its address."""
    name = f"c{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]}"
    now = formatdate(usegmt=True)
    signed = f"x-ms-date:{now}\nx-ms-version:{_VERSION}\n/{_ACCOUNT}/{_ACCOUNT}/{name}"
    text = "PUT" + "\n" * 12 + f"{signed}\nrestype:container"
    key = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256)
    headers = {
        "x-ms-date": now,
        "x-ms-version": _VERSION,
        "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(key.digest()).decode()}",
        "Content-Type": "",
    }
    url = f"{azure_server}/{name}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, b"", headers, method="PUT")):
        return f"az://{name}"
