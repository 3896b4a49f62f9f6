"""How a browser is told what went wrong, and a program: a page with a way on, or JSON."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from asif_lance.errors import AsifError
from asif_lance.service import api
from asif_lance.service.failures import RequestError, describe_failure
from asif_lance.service.queries import AskedQuery
from asif_lance.service.rendering import address, asked_address, render, wants_page

#: An address of this service, and what a link to it says.
Link = tuple[str, str]


def tell_problem(request: Request, status: int, message: str, back: Link | None = None) -> Response:
    """An error as a page for a browser, else as JSON."""
    if not wants_page(request):
        return api.problem(status, message)
    back = back or find_way_back(request, status)
    return render(request, "problem.html", status, message=message, back=back)


def tell_refused(request: Request, status: int, message: str) -> Response:
    """The same of a request that goes no further; a browser is asked for the token it lacks."""
    if status == 401 and request.method == "GET" and wants_page(request):
        return RedirectResponse(_to_login(local_part(asked_address(request))), 303)
    answer = tell_problem(request, status, message)
    if status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    return answer


def describe_error(request: Request, error: RequestError | AsifError) -> tuple[int, str]:
    """The status of an error, and one line for a person."""
    if isinstance(error, RequestError):
        return error.status, error.message
    return describe_failure(error, request.app.state.service.settings.uri)


def find_way_back(request: Request, status: int) -> Link | None:
    """Where a person goes on from an error: to the form with what was asked, or where they were."""
    where = came_from(request)
    if status == 401:
        return _to_login(where or "/"), "Enter a token"
    if request.scope["path"].startswith(("/answer", "/fewest")):
        asked = request.query_params
        fields = {name: asked.getlist(name) for name in AskedQuery.model_fields if name != "since"}
        form = address("/", **fields)
        return (form, "Ask something else") if len(form) < 60_000 else None
    return (where, "Back") if where and where != local_part(asked_address(request)) else None


def came_from(request: Request) -> str | None:
    """The page of this service that a request was made from."""
    page = request.headers.get("referer", "")
    try:
        own = urlsplit(page).netloc == request.headers.get("host")
    except ValueError:
        return None
    return local_part(page) if own else None


def local_part(page: str) -> str:
    """The path and the query of an address; the start where they lead to another service."""
    try:
        parts = urlsplit(page)
    except ValueError:
        return "/"
    where = parts.path + (f"?{parts.query}" if parts.query else "")
    is_local = where.startswith("/") and where[1:2] not in ("/", "\\") and where.isprintable()
    return where if is_local else "/"


def _to_login(where: str) -> str:
    return address("/login", next=None if where == "/" else where)
