"""What stands before the service, on its own: bodies that hardly come."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from asif_lance.service import Right, ServiceSettings, protection
from asif_lance.service.rights import Guard


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await JSONResponse({"bytes": len(body)})(scope, receive, send)


def post(receive: Receive) -> int:
    """The status of a request whose body comes so."""
    settings, seen = ServiceSettings("nowhere"), []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    def observe(*_: object) -> None:
        pass

    guarded = protection.Protection(read_all, settings, Guard((), Right.READ), observe)
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "state": {}}
    scope["headers"] = [(b"host", b"localhost")]
    asyncio.run(guarded(scope, receive, send))
    return seen[0]


def test_a_client_that_sends_a_byte_now_and_then_is_sent_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protection, "BODY_SECONDS", 0.3)

    async def drip() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert post(drip) == 408


def test_a_large_body_that_keeps_coming_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "BODY_SECONDS", 1.0)
    parts = iter([True] * 60 + [False])

    async def flow() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": bytes(2**16), "more_body": next(parts)}

    assert post(flow) == 200
