"""The page that asks for a token, and what comes of it: a session, and the page that was asked."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from asif_lance.service.api import Anybody, Reader
from asif_lance.service.problems import local_part
from asif_lance.service.rendering import render
from asif_lance.service.rights import COOKIE, SESSION_SECONDS

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/login")
def ask_login(
    request: Request, service: Anybody, next: Annotated[str, Query()] = "/"
) -> HTMLResponse:
    """Ask for a token."""
    values: dict[str, Any] = {"next": local_part(next), "free": service.guard.open}
    return render(request, "login.html", wrong=False, **values)


@router.post("/login", response_model=None)
def login(
    request: Request,
    service: Anybody,
    token: Annotated[str, Form(max_length=1000)],
    next: Annotated[str, Form()] = "/",
) -> HTMLResponse | RedirectResponse:
    """Trade a token for a session, whose name a cookie holds, and go to what was asked for."""
    where = local_part(next)
    right = service.guard.right_of_token(token.strip())
    if not right:
        values: dict[str, Any] = {"next": where, "free": service.guard.open}
        return render(request, "login.html", 403, wrong=True, **values)
    answer = RedirectResponse(where, 303)
    answer.set_cookie(
        COOKIE,
        service.guard.begin_session(right),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logout")
def logout(request: Request, service: Reader) -> RedirectResponse:
    """End the session."""
    service.guard.end_session(request.state.session)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer
