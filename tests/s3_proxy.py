"""A proxy before an S3 server, which lets clients die, answers get lost, and requests take long.

Clients reach the server through it, so it knows of every write whatever made it, and no client has
to have a place in its code where a test can get in.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

#: What is done about a write; it gets the request's method and path, and `pass_on`, which has the
#: server do it. What it returns says whether the client gets the answer.
Act = Callable[[str, str, Callable[[], None]], bool]

_LEASE = "/.asif-lease"


def count_write(method: str, path: str) -> bool:
    """Whether a request changes what is stored; renewals of the lease come when they will."""
    return method != "GET" and method != "HEAD" and not path.endswith(_LEASE)


@dataclass
class Proxy:
    """One that runs.

    Attributes:
        address: where clients reach it.
        writes: the writes so far, by method and path.
        act: what to do about the write number `at`; the others pass.
        at: which write of those to come, the first is 0; none if negative.
        counts: which requests are writes.
    """

    address: str
    writes: list[tuple[str, str]] = field(default_factory=list)
    act: Act | None = None
    at: int = -1
    counts: Callable[[str, str], bool] = count_write
    _changing: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, act: Act | None, at: int) -> None:
        """From now on: what to do, and about which write."""
        with self._changing:
            self.writes, self.act, self.at = [], act, at

    def take(self, method: str, path: str) -> Act | None:
        """Counts a request; what is to be done about it, if anything."""
        if not self.counts(method, path):
            return None
        with self._changing:
            self.writes.append((method, path))
            return self.act if len(self.writes) == self.at + 1 else None


def kill_before(process: Callable[[], int]) -> Act:
    """The client dies before the server gets the request."""

    def act(method: str, path: str, pass_on: Callable[[], None]) -> bool:
        os.kill(process(), signal.SIGKILL)
        return False

    return act


def kill_after(process: Callable[[], int]) -> Act:
    """The client dies when the server has done it, and before it gets the answer."""

    def act(method: str, path: str, pass_on: Callable[[], None]) -> bool:
        pass_on()
        os.kill(process(), signal.SIGKILL)
        return False

    return act


def lose_answer(method: str, path: str, pass_on: Callable[[], None]) -> bool:
    """The server has done it, and the connection breaks."""
    pass_on()
    return False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: ClassVar[str]
    proxy: ClassVar[Proxy]

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        act = self.proxy.take(self.command, self.path)
        answers: list[tuple[http.client.HTTPResponse, bytes]] = []
        if act is None or act(self.command, self.path, lambda: answers.append(self._ask(body))):
            with suppress(OSError):  # a client that was killed
                self._answer(*(answers or [self._ask(body)])[0])
        else:
            self.close_connection = True

    def _ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def _answer(self, answer: http.client.HTTPResponse, body: bytes) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None: ...


@contextmanager
def run_proxy(server: str) -> Iterator[Proxy]:
    """A proxy before the server at this address."""
    handler = type("Handler", (_Handler,), {"target": urlsplit(server).netloc})
    with _Server(("127.0.0.1", 0), handler) as listening:
        proxy = Proxy(f"http://127.0.0.1:{listening.server_address[1]}")
        handler.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown()
