"""A model hub on this machine that speaks the hub's protocol, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40


@dataclass
class Hub:
    """What it has, by `owner/name`, each a folder and the library that it says made it."""

    models: dict[str, tuple[Path, str]]
    address: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def running_hub(models: dict[str, tuple[Path, str]]) -> Iterator[Hub]:
    """It answers until the block ends."""
    hub = Hub(models)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        """The hub's own list says what was asked."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.hub.asked.append(path)
        parts = path.removeprefix("api/models/").split("/")
        folder, library = self.hub.models.get("/".join(parts[:2]), (None, ""))
        if folder is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif not path.startswith("api/"):
            content = (folder / "/".join(parts[4:])).read_bytes()
            self._answer(200, content, {"ETag": f'"{sha1(content).hexdigest()}"'})
        elif parts[2:3] == ["tree"]:
            self._answer(200, json.dumps([_entry(file) for file in _files(folder)]).encode())
        else:
            siblings = [{"rfilename": f.name, "size": f.stat().st_size} for f in _files(folder)]
            told = {"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": siblings}
            self._answer(200, json.dumps({**told, "library_name": library}).encode())

    def _answer(self, status: int, content: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **(more or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _entry(file: Path) -> dict[str, object]:
    content = file.read_bytes()
    oid = sha1(content).hexdigest()
    return {"type": "file", "path": file.name, "size": len(content), "oid": oid}
