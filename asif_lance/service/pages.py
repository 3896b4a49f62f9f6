"""The pages that people see; each has an address, and as JSON the same with `.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Path, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.audit import REPORTS
from asif_lance.errors import format_count, printable
from asif_lance.service import api
from asif_lance.service.api import Anybody, Forgetter, Picture, Reader, Writer
from asif_lance.service.failures import RequestError
from asif_lance.service.messages import (
    ChosenPairs,
    PairId,
    Sha256,
    Text,
)
from asif_lance.service.operations import SHOWN_LABELS, to_classified
from asif_lance.service.queries import AuditQuery, PairsQuery, SearchQuery, ViewQuery
from asif_lance.service.rights import COOKIE, SESSION_SECONDS, Right
from asif_lance.service.scatter import place_marks

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

_TEMPLATES = Environment(
    loader=PackageLoader("asif_lance.service"), autoescape=True, undefined=StrictUndefined
)
_TEMPLATES.filters["shown"] = lambda text: printable(str(text))
_TEMPLATES.filters["counted"] = format_count

Chosen = Annotated[list[PairId], Query(max_length=1000)]
ChosenForm = Annotated[list[PairId], Form(max_length=1000)]


def address(path: str, **query: Any) -> str:
    """An address with a query; what is None or empty is left out."""
    given = {name: value for name, value in query.items() if value not in (None, "", [], ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


_TEMPLATES.globals["address"] = address


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page for whoever asks, with what they may do."""
    right = getattr(request.state, "right", Right.NONE)
    session = bool(getattr(request.state, "session", ""))
    page = _TEMPLATES.get_template(template).render(
        right=right, Right=Right, session=session, path=request.url.path, **values
    )
    return HTMLResponse(page, status)


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, rather than a program for JSON."""
    path = request.url.path
    a_page = not path.startswith("/api/") and not path.endswith(".json")
    return a_page and "text/html" in request.headers.get("accept", "")


@router.get("/")
def home(
    request: Request, service: Reader, labels: str = "", model: str = "latest"
) -> HTMLResponse:
    """Drop pictures, type labels."""
    return render(
        request,
        "home.html",
        labels=labels[:20_000],
        model=model,
        versions=api.versions(service).versions,
        pictures=service.settings.pictures,
        megabytes=service.settings.body_bytes // 10**6,
    )


@router.post("/drop")
def drop(
    service: Reader,
    files: Annotated[list[UploadFile], File()],
    labels: Annotated[str, Form(max_length=20_000)] = "",
    model: Annotated[str, Form(max_length=200)] = "latest",
) -> RedirectResponse:
    """Hold uploaded pictures, and go to the address of their answer."""
    held, rejected = service.operations.hold([(f.filename, f.file.read()) for f in files])
    if not held:
        raise RequestError(422, "; ".join(f"{one.image}: {one.reason}" for one in rejected))
    if len(held) == 1:
        return _see(address(f"/answer/{held[0].sha256}", labels=labels, model=model))
    hashes = [one.sha256 for one in held]
    return _see(address("/answers", picture=hashes, labels=labels, model=model))


@router.get("/answers")
def answers(
    request: Request,
    service: Reader,
    picture: Annotated[list[Sha256], Query(min_length=1, max_length=64)],
    labels: Annotated[str, Query(max_length=20_000)] = "",
    model: Annotated[str, Query(max_length=200)] = "latest",
) -> HTMLResponse:
    """The best label of each of several pictures."""
    question = ViewQuery(labels=labels, model=model).question()
    names, vectors = service.operations.vectors_of(picture, [])
    found = service.operations.classify(
        question, names, vectors, lambda p: to_classified(p, SHOWN_LABELS)
    )
    for answer, sha256 in zip(found, picture, strict=True):
        answer.sha256 = sha256
    return render(request, "answers.html", answers=found, labels=labels)


@router.get("/answer/{picture}")
def answer(
    request: Request, service: Reader, picture: Picture, query: Annotated[ViewQuery, Query()]
) -> HTMLResponse:
    """One picture's answer, the pairs that decided, and the same in every version."""
    explained = api.explain(service, picture, query)
    versions = api.versions(service).versions
    here = explained.answer.model
    query = query.model_copy(update={"model": here})
    return render(
        request,
        "answer.html",
        view=explained,
        query=query,
        picture=picture,
        versions=versions,
        place=next((i for i, one in enumerate(versions) if one.name == here), 0),
        addresses=[view_address(picture, query, model=one.name) for one in versions],
        here=view_address(picture, query),
        json=view_address(f"{picture}.json", query),
        whole=view_address(picture, query, without=[]),
        marks=place_marks(explained.deciding),
    )


@router.get("/fewest/{picture}")
def fewest(
    service: Reader, picture: Picture, query: Annotated[ViewQuery, Query()]
) -> RedirectResponse:
    """The answer without the fewest pairs that flip it."""
    found = api.fewest(service, picture, query)
    if not found.pairs:
        raise RequestError(404, f"no few pairs were found without which it is not {found.before}")
    return _see(view_address(picture, query, model=found.model, without=found.pairs))


def view_address(picture: str, query: ViewQuery, **changed: Any) -> str:
    """The address of a view, or of one that differs from it."""
    values = {**query.model_dump(), **changed}
    if values["pairs"] == ViewQuery().pairs:
        del values["pairs"]
    return address(f"/answer/{picture}", **values)


@router.get("/search")
def search(
    request: Request, service: Reader, query: Annotated[SearchQuery, Query()]
) -> HTMLResponse:
    """Pictures for a text."""
    asked = bool(query.text or query.picture)
    found = api.search(service, query) if asked else None
    return render(request, "search.html", query=query, found=found)


@router.get("/pairs")
def pairs(request: Request, service: Reader, query: Annotated[PairsQuery, Query()]) -> HTMLResponse:
    """The pairs of a version."""
    found = api.pairs(service, query)
    return render(request, "pairs.html", found=found, query=query)


@router.get("/versions")
def versions(request: Request, service: Reader) -> HTMLResponse:
    """All versions, newest first."""
    return render(request, "versions.html", versions=api.versions(service).versions[::-1])


@router.get("/audit")
def audit(request: Request, service: Reader, query: Annotated[AuditQuery, Query()]) -> HTMLResponse:
    """A question in SQL and its answer."""
    reports = {one.name: one for one in REPORTS}
    sql = reports[query.report].sql if query.report in reports else query.sql
    asked = sql is not None and bool(sql.strip())
    found = service.changes.ask_sql(str(sql), query.model) if asked else None
    return render(
        request, "audit.html", sql=sql or "", found=found, query=query, reports=reports.values()
    )


@router.get("/delete")
def ask_delete(request: Request, service: Writer, without: Chosen) -> HTMLResponse:
    """What would be deleted, to be confirmed."""
    found = service.operations.pairs("latest", without)
    return render(request, "delete.html", found=found)


@router.post("/delete")
def delete(
    service: Writer, pair: ChosenForm, message: Annotated[Text, Form()] = ""
) -> RedirectResponse:
    """Delete, and show the new version."""
    done = service.changes.delete(ChosenPairs(pairs=pair), message)
    return _see(f"/versions#{done.model}")


@router.get("/forget")
def ask_forget(request: Request, service: Forgetter, without: Chosen) -> HTMLResponse:
    """What forgetting would touch, to be confirmed."""
    plan = service.changes.plan(ChosenPairs(pairs=without))
    if not plan.pairs:
        raise RequestError(404, "none of these pairs is in any version")
    return render(request, "forget.html", plan=plan)


@router.post("/forget")
def forget(
    service: Forgetter,
    pair: ChosenForm,
    confirm: Annotated[str, Form(max_length=64)],
    reason: Annotated[Text, Form()] = "",
) -> RedirectResponse:
    """Forget, and show the receipt."""
    receipt = service.changes.forget(pair, confirm, reason)
    return _see(f"/receipts/{receipt.receipt_id}")


@router.get("/receipts/{receipt}")
def receipt(
    request: Request, service: Reader, receipt: Annotated[str, Path(max_length=100)]
) -> HTMLResponse:
    """A receipt of forgetting."""
    return render(request, "receipt.html", receipt=service.changes.receipt(receipt))


@router.get("/api")
def describe_api(request: Request, service: Anybody) -> HTMLResponse:
    """The OpenAPI document for people."""
    document = request.app.openapi()
    return render(request, "api.html", operations=list_operations(document))


def list_operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Operations of an OpenAPI document with what a person asks first."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "told": said.get("description", ""),
            "parameters": [one["name"] for one in said.get("parameters", [])],
            "sends": _names(said.get("requestBody", {}), document),
            "answers": _names(said["responses"]["200"], document),
        }
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]


def _names(part: dict[str, Any], document: dict[str, Any]) -> Sequence[str]:
    """The fields of a JSON object that is sent or answered."""
    for content in part.get("content", {}).values():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        return list(document["components"]["schemas"].get(name, {}).get("properties", {}))
    return []


@router.get("/login")
def ask_login(request: Request, service: Anybody) -> HTMLResponse:
    """Ask for a token."""
    return render(request, "login.html", wrong=False, free=service.guard.open)


@router.post("/login", response_model=None)
def login(
    request: Request, service: Anybody, token: Annotated[str, Form(max_length=1000)]
) -> HTMLResponse | RedirectResponse:
    """Trade a token for a session, whose name a cookie holds."""
    right = service.guard.right_of_token(token.strip())
    if not right:
        return render(request, "login.html", 403, wrong=True, free=service.guard.open)
    answer = _see("/")
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
    answer = _see("/login")
    answer.delete_cookie(COOKIE)
    return answer


def _see(where: str) -> RedirectResponse:
    return RedirectResponse(where, 303)
