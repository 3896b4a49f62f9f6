"""How pages are made: as they are served, and as one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.errors import format_count, printable
from asif_lance.service import api
from asif_lance.service.rights import Right
from asif_lance.service.service import Service

_TEMPLATES = Environment(
    loader=PackageLoader("asif_lance.service"), autoescape=True, undefined=StrictUndefined
)
_TEMPLATES.filters["shown"] = lambda text: printable(str(text))
_TEMPLATES.filters["counted"] = format_count

#: How the address of a page ends that is one file.
ONE_FILE = ".html"


def address(path: str, **query: Any) -> str:
    """An address with a query; what is None or empty is left out."""
    given = {name: value for name, value in query.items() if value not in (None, "", [], ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


_TEMPLATES.globals["address"] = address


class LinkedPictures:
    """Where a page's pictures are: at addresses of their own."""

    def picture(self, sha256: str) -> str:
        """An uploaded picture."""
        return f"/pictures/{sha256}.jpg"

    def thumbnail(self, pair_id: str, model: str) -> str:
        """A pair's picture."""
        return address("/thumbnail", id=pair_id, model=model)

    def judged(self, prediction_id: str) -> str:
        """A picture of a recorded run."""
        return f"/evaluations/pictures/{prediction_id}.jpg"


class PicturesInside(LinkedPictures):
    """The same inside the page."""

    def __init__(self, service: Service) -> None:
        """Read them from a service."""
        self._service = service

    def picture(self, sha256: str) -> str:
        """An uploaded picture."""
        return _inside(api.show_picture(self._service, sha256))

    def thumbnail(self, pair_id: str, model: str) -> str:
        """A pair's picture."""
        return _inside(api.thumbnail(self._service, pair_id, model))

    def judged(self, prediction_id: str) -> str:
        """A picture of a recorded run."""
        return _inside(api.judged_picture(self._service, prediction_id))


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page for whoever asks, with what they may do; one file if the address asks for that."""
    right = getattr(request.state, "right", Right.NONE)
    session = bool(getattr(request.state, "session", ""))
    path: str = request.scope["path"]
    export = status == 200 and path.endswith(ONE_FILE)
    if export:
        values |= {"style": _style(), "style_hash": _style_hash(), "saved_at": _now()}
        saved_from = request.url.replace(path=path.removesuffix(ONE_FILE))
        values |= {"base": str(request.base_url), "saved_from": str(saved_from)}
        right = Right.READ
    page = _TEMPLATES.get_template(template).render(
        right=right,
        Right=Right,
        session=session,
        path=path,
        export=export,
        one_file=_one_file(request),
        src=PicturesInside(request.app.state.service) if export else LinkedPictures(),
        **values,
    )
    headers = {"content-disposition": "attachment"} if export else None
    return HTMLResponse(page, status, headers)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, rather than a program for JSON."""
    path = request.scope["path"]
    a_page = not path.startswith("/api/") and not path.endswith((".json", ".csv", ".jpg"))
    return a_page and "text/html" in request.headers.get("accept", "")


def _one_file(request: Request) -> str:
    """The address of the same page as one file."""
    path, mark, query = asked_address(request).partition("?")
    return f"{path.removesuffix(ONE_FILE)}{ONE_FILE}{mark}{query}"


def asked_address(request: Request) -> str:
    """The path and the query of a request, whatever its `Host` is."""
    path, query = quote(request.scope["path"]), request.scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _inside(answer: Response) -> str:
    content = base64.b64encode(bytes(answer.body)).decode()
    return f"data:{answer.media_type};base64,{content}"


@cache
def _style() -> str:
    return (files("asif_lance.service") / "static" / "style.css").read_text(encoding="utf-8")


@cache
def _style_hash() -> str:
    digest = hashlib.sha256(_style().encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
