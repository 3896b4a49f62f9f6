"""What stands between the network and the service: hosts, rights, limits, headers, the log.

Written for ASGI directly, because a request's body has to be counted as it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asif_lance.service.problems import tell_refused
from asif_lance.service.rights import COOKIE, Guard, Right
from asif_lance.service.settings import ServiceSettings

#: Seconds that a client may take for the next part of a body, and for all of it beyond what this
#: many bytes a second take: who sends a byte now and then must not hold a place for long.
BODY_SECONDS, BODY_RATE = 30.0, 16 * 2**10

#: Of a body that was refused so many seconds and bytes are still taken, and thrown away: closing
#: at once would reset the connection, and who is still sending would never read why.
DRAIN_SECONDS, DRAIN_BYTES = 10.0, 256 * 2**20

#: Paths that need no right.
OPEN_PATHS = frozenset({"/health", "/login", "/api/openapi.json", "/api", "/favicon.ico"})
_OPEN_FOLDER = "/static/"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = _SAFE | {"POST", "PUT", "PATCH", "DELETE"}
_LONGEST_QUERY = 64 * 2**10

_ABSOLUTE = re.compile(rb"https?://(?P<host>[^/]*)(?P<path>/.*)?", re.IGNORECASE)

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

log = logging.getLogger("asif_lance.service")

#: Told of every answer: route, method, status, seconds.
Observe = Callable[[str, str, int, float], None]


class _RefusedError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class Protection:
    """Lets through what may pass; the right of whoever asks stands in the request's state."""

    def __init__(
        self, app: ASGIApp, settings: ServiceSettings, guard: Guard, observe: Observe
    ) -> None:
        """Stand before an application."""
        self._app, self._settings, self._guard, self._observe = app, settings, guard, observe
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _from_root(scope)
        began, answer, method = time.monotonic(), _Answer(send), scope["method"]
        if method == "HEAD":  # as GET, of which the server sends the head alone
            scope = {**scope, "method": "GET"}
        self._running += 1
        try:
            await self._pass(scope, receive, answer)
        finally:
            self._running -= 1
            self._note(scope, method, answer.status, time.monotonic() - began)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope=scope)
        body = _CountedBody(receive, self._settings.body_bytes)
        try:
            self._check(scope, headers)
            body.check_announced(headers)
            await self._app(scope, body, answer.unless_refused(body))
            if body.refused:
                raise body.refused
        except _RefusedError as refused:
            if not answer.status:
                await _refuse(scope, answer, refused, body)

    def _check(self, scope: Scope, headers: Headers) -> None:
        if self._running > self._settings.requests:
            raise _RefusedError(503, "too many requests at once: ask again")
        host = _without_port(headers.get("host", ""))
        if host not in self._settings.hosts:
            raise _RefusedError(400, "this service is not known by that host name")
        if not _is_own(scope["method"], headers):
            raise _RefusedError(403, "a page of another site may not ask for this")
        if len(scope["query_string"]) > _LONGEST_QUERY:
            raise _RefusedError(414, "the address is too long")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _RefusedError(415, "a body is taken as it is, without Content-Encoding")
        session = _cookie(headers)
        right = self._guard.right_of(headers.get("authorization", ""), session)
        state = scope.setdefault("state", {})
        state["right"], state["session"] = right, session
        if right < Right.READ and not _is_open(scope["path"]):
            raise _RefusedError(401, "a token is needed")

    def _note(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        """The route, never the address: that may hold captions, labels and hashes."""
        route = getattr(scope.get("route"), "path", None)
        if route is None:
            route = _OPEN_FOLDER if scope["path"].startswith(_OPEN_FOLDER) else "(no route)"
        right = scope.get("state", {}).get("right", Right.NONE)
        method = method if method in _METHODS else "(other)"  # anybody can make up more
        self._observe(route, method, status, seconds)
        log.info("%s %s %d %.0f ms %s", method, route, status, seconds * 1e3, right.name.lower())


class _Answer:
    """Sends an answer with the headers that all have; remembers its status."""

    def __init__(self, send: Send) -> None:
        self._send, self.status = send, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    def unless_refused(self, body: _CountedBody) -> Send:
        """The same, while the body is not refused: the application may take that for a fault."""

        async def send(message: Message) -> None:
            if body.refused is None:
                await self(message)

        return send


class _CountedBody:
    """Receives a body, refusing more of it than is allowed, and clients that stall."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._read, self._done = receive, most, 0, False
        self._began = time.monotonic()
        self.refused: _RefusedError | None = None

    def check_announced(self, headers: Headers) -> None:
        """Refuse early what says itself that it is too large."""
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced[:20]) > self._most:
            raise self._too_large()

    async def __call__(self) -> Message:
        if self._done:  # what comes now is that the client goes away, at any time
            return await self._receive()
        until = self._began + BODY_SECONDS + self._read / BODY_RATE
        left = min(until - time.monotonic(), BODY_SECONDS)
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError:
            raise self._refuse(408, "the request's body did not come") from None
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._done = not message.get("more_body", False)
            if self._read > self._most:
                raise self._too_large()
        return message

    async def drain(self) -> None:
        """Throw away what still comes, for a while."""
        read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._done and read < DRAIN_BYTES:
                    message = await self._receive()
                    read += len(message.get("body", b""))
                    self._done = not message.get("more_body", False)

    def _too_large(self) -> _RefusedError:
        return self._refuse(413, f"a request may send at most {self._most:,} bytes")

    def _refuse(self, status: int, message: str) -> _RefusedError:
        self.refused = _RefusedError(status, message)
        return self.refused


async def _refuse(
    scope: Scope, answer: _Answer, refused: _RefusedError, sent: _CountedBody
) -> None:
    told = tell_refused(Request(scope), refused.status, refused.message)
    body = bytes(told.body)
    start: dict[str, Any] = {"status": told.status_code, "headers": [*told.raw_headers]}
    start["headers"].append((b"connection", b"close"))
    with contextlib.suppress(OSError):  # the client may have gone
        await answer({"type": "http.response.start", **start})
        await answer({"type": "http.response.body", "body": body, "more_body": True})
        if refused.status == 413:  # who has no right to ask holds no place meanwhile
            await sent.drain()
        await answer({"type": "http.response.body"})


def _from_root(scope: Scope) -> Scope:
    """The request with a target that begins at the root, and a `Host` that is the target's.

    Proxies may ask for `http://host/path`, whose host counts, not the header (RFC 9112, 3.2.2).
    """
    found = _ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
    if found is None:
        return scope
    path = found["path"] or b"/"
    headers = [header for header in scope["headers"] if header[0] != b"host"]
    return {
        **scope,
        "headers": [*headers, (b"host", found["host"])],
        "raw_path": path,
        "path": unquote(path.decode("ascii")),
    }


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(_OPEN_FOLDER)


def _without_port(host: str) -> str:
    name, mark, port = host.lower().rpartition(":")
    return name if mark and port.isdigit() else host.lower()


def _is_own(method: str, headers: Headers) -> bool:
    """Whether a browser, if it is one, asks for a page of our own, or follows a link to one.

    Browsers say where a request comes from, by `Sec-Fetch-Site`, or older ones by `Origin`;
    other programs say neither, and have no user's cookies to misuse. A page of another site could
    not read what it asked for, but could keep the service busy.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        follows = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        is_link = method in _SAFE and follows == ("navigate", "document")
        return site in ("same-origin", "none") or is_link
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _cookie(headers: Headers) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
