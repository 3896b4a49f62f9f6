"""The pages that people see; their addresses give JSON with `.json`, one file with `.html`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse

from asif_lance.audit import REPORTS
from asif_lance.errors import AsifError
from asif_lance.relative import RECIPES
from asif_lance.service import api
from asif_lance.service.api import Anybody, Forgetter, Picture, Reader, RunId, Writer
from asif_lance.service.confusions import tabulate
from asif_lance.service.failures import RequestError
from asif_lance.service.messages import FewestAnswer
from asif_lance.service.operations import FLIP_SECONDS, MOST_FLIP
from asif_lance.service.problems import describe_error
from asif_lance.service.queries import (
    AuditQuery,
    ChosenQuery,
    CompareQuery,
    EvaluationQuery,
    HomeQuery,
    PairsQuery,
    SearchQuery,
    SeveralQuery,
    ViewQuery,
)
from asif_lance.service.rendering import address, render
from asif_lance.service.requests import RUN_FORM, ChosenPairs, PairId, Sha256, Text
from asif_lance.service.scatter import place_marks
from asif_lance.service.service import Service

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

Chosen = Annotated[ChosenQuery, Query()]
ChosenForm = Annotated[list[PairId], Form(max_length=1000)]

#: Labels of a run that its pictures are asked about again with.
_RUN_LABELS = 200


@router.get("/")
def home(request: Request, service: Reader, query: Annotated[HomeQuery, Query()]) -> HTMLResponse:
    """Drop pictures, type labels."""
    return render(
        request,
        "home.html",
        query=query,
        recipes=RECIPES,
        versions=api.versions(service).versions,
        pictures=service.settings.pictures,
        bytes=service.settings.body_bytes,
    )


@router.get("/favicon.ico")
def icon(service: Anybody) -> RedirectResponse:
    """The icon, for browsers that ask for it where no page names it."""
    return RedirectResponse("/static/icon.svg", 308)


@router.post("/drop", response_model=None)
def drop(
    request: Request,
    service: Reader,
    files: Annotated[list[UploadFile], File()],
    labels: Annotated[str, Form(max_length=20_000)] = "",
    model: Annotated[str, Form(max_length=200)] = "latest",
    templates: Annotated[str, Form(max_length=20_000)] = "",
    recipe: Annotated[str, Form(max_length=200)] = "",
    pin: Annotated[Sha256 | None, Form()] = None,
) -> HTMLResponse | RedirectResponse:
    """Hold uploaded pictures and go to the address of their answer; say first what is no use."""
    held, rejected = service.operations.hold([(f.filename, f.file.read()) for f in files])
    model = service.operations.models.store.version(model).name
    template = [line.strip() for line in templates.splitlines() if line.strip()]
    asked = {"labels": labels, "model": model, "template": template, "recipe": recipe}
    if len(held) == 1:
        where = address(f"/answer/{held[0].sha256}", **asked, pin=pin)
    else:
        where = address("/answers", picture=[one.sha256 for one in held], **asked)
    if not rejected:
        return _see(where)
    home = address("/", **asked, pin=pin)
    told: dict[str, Any] = {"rejected": rejected, "held": len(held), "where": where, "home": home}
    return render(request, "rejected.html", 200 if held else 422, **told)


@router.get("/answers")
@router.get("/answers.html")
def answers(
    request: Request, service: Reader, query: Annotated[SeveralQuery, Query()]
) -> HTMLResponse:
    """The best label of each of several pictures, in every version."""
    found = service.views.several(query)
    query = query.model_copy(update={"model": found.model})
    slider = _slider(service, found.model, lambda n: several_address(query, **n))
    return render(request, "answers.html", found=found, query=query, **slider)


@router.get("/answer/{picture}")
@router.get("/answer/{picture}.html")
def answer(
    request: Request, service: Reader, picture: Picture, query: Annotated[ViewQuery, Query()]
) -> HTMLResponse:
    """One picture's answer, the pairs that decided, and the same in every version."""
    return _show_answer(request, service, picture, query)


@router.get("/fewest/{picture}")
@router.get("/fewest/{picture}.html")
def fewest(
    request: Request, service: Reader, picture: Picture, query: Annotated[ViewQuery, Query()]
) -> HTMLResponse:
    """The answer without the fewest pairs that flip it."""
    found = api.fewest(service, picture, query)
    query = query.model_copy(update={"model": found.model, "without": found.pairs})
    if not found.pairs:
        told = (
            f"in {FLIP_SECONDS:.0f} seconds no {MOST_FLIP} pairs or fewer were found without which"
        )
        back = view_address(picture, query), "Back to the answer"
        raise RequestError(404, f"{told} it is not {found.before}", back)
    return _show_answer(request, service, picture, query, found)


def _show_answer(
    request: Request,
    service: Service,
    picture: str,
    query: ViewQuery,
    flip: FewestAnswer | None = None,
) -> HTMLResponse:
    explained = api.explain(service, picture, query)
    query = query.model_copy(update={"model": explained.answer.model})
    out = service.operations.pairs(query.model, query.without).pairs if query.without else []
    return render(
        request,
        "answer.html",
        view=explained,
        flip=flip,
        left_out=[(pair, _with_again(picture, query, pair.pair_id)) for pair in out],
        unknown=[one for one in query.without if one not in {pair.pair_id for pair in out}],
        query=query,
        picture=picture,
        here=view_address(picture, query),
        json=view_address(f"{picture}.json", query),
        whole=view_address(picture, query, without=[]),
        more=view_address(picture, query, pairs=min(query.pairs * 3, 200)),
        unpinned=view_address(picture, query, pin=None),
        marks=place_marks(explained.deciding),
        **_slider(service, query.model, lambda new: view_address(picture, query, **new)),
    )


def view_address(picture: str, query: ViewQuery, **changed: Any) -> str:
    """The address of a view, or of one that differs from it."""
    values = {**query.model_dump(), **changed}
    if values["pairs"] == ViewQuery().pairs:
        del values["pairs"]
    return address(f"/answer/{picture}", **values)


def _with_again(picture: str, query: ViewQuery, pair_id: str) -> str:
    """The address of a view where one of the pairs left out is back."""
    return view_address(picture, query, without=[one for one in query.without if one != pair_id])


def several_address(query: SeveralQuery, **changed: Any) -> str:
    """The address of a view of several pictures, or of one that differs from it."""
    return address("/answers", **{**query.model_dump(), **changed})


def _slider(
    service: Service, here: str, make: Callable[[dict[str, str | None]], str]
) -> dict[str, Any]:
    """All versions with the same view's addresses there, which tell what changed since here."""
    versions = api.versions(service).versions
    names = [one.name for one in versions]
    return {
        "versions": versions,
        "place": names.index(here) if here in names else 0,
        "addresses": [
            make({"model": name, "since": None if name == here else here}) for name in names
        ],
    }


@router.get("/search")
@router.get("/search.html")
def search(
    request: Request, service: Reader, query: Annotated[SearchQuery, Query()]
) -> HTMLResponse:
    """Pictures for a text."""
    asked = bool(query.text or query.picture)
    found = api.search(service, query) if asked else None
    return render(request, "search.html", query=query, found=found)


@router.get("/pairs")
@router.get("/pairs.html")
def pairs(request: Request, service: Reader, query: Annotated[PairsQuery, Query()]) -> HTMLResponse:
    """The pairs of a version."""
    found = api.pairs(service, query)
    query = query.model_copy(update={"model": found.model})
    versions = api.versions(service).versions
    here = {**query.model_dump(), "offset": query.offset or None}
    return render(request, "pairs.html", found=found, query=query, here=here, versions=versions)


@router.get("/versions")
@router.get("/versions.html")
def versions(request: Request, service: Reader) -> HTMLResponse:
    """All versions, newest first."""
    return render(request, "versions.html", versions=api.versions(service).versions[::-1])


@router.get("/versions/compare")
@router.get("/versions/compare.html")
def compare(
    request: Request, service: Reader, query: Annotated[CompareQuery, Query()]
) -> HTMLResponse:
    """The pairs that one version has and the other has not."""
    found = api.compare_versions(service, query)
    names = [one.name for one in api.versions(service).versions]
    return render(request, "compare.html", found=found, query=query, names=names)


@router.get("/evaluations")
@router.get("/evaluations.html")
def evaluations(request: Request, service: Reader) -> HTMLResponse:
    """Recorded runs whose truth is known."""
    return render(request, "evaluations.html", runs=api.evaluations(service).runs)


@router.get("/evaluations/{run}")
@router.get("/evaluations/{run}.html")
def evaluation(
    request: Request, service: Reader, run: RunId, query: Annotated[EvaluationQuery, Query()]
) -> HTMLResponse:
    """One run: confusions, and the pictures behind them."""
    found = api.evaluation(service, run, query)
    table = tabulate(found.cells)
    return render(request, "evaluation.html", found=found, query=query, table=table)


@router.post("/evaluations/{run}/ask")
def ask_again(
    service: Reader, run: RunId, prediction: Annotated[str, Form(pattern=RUN_FORM)]
) -> RedirectResponse:
    """Hold a picture that a run judged, and go to its answer."""
    held, rejected = service.operations.hold([service.evaluations.read_picture(prediction)])
    if not held:
        raise RequestError(422, f"{rejected[0].image}: {rejected[0].reason}")
    labels = "\n".join([*service.evaluations.labels(run, _RUN_LABELS), ""])
    return _see(address(f"/answer/{held[0].sha256}", labels=labels))


@router.get("/audit")
@router.get("/audit.html")
def audit(request: Request, service: Reader, query: Annotated[AuditQuery, Query()]) -> HTMLResponse:
    """A question in SQL and its answer."""
    reports = {one.name: one for one in REPORTS}
    sql = reports[query.report].sql if query.report in reports else query.sql
    asked = sql is not None and bool(sql.strip())
    shown: dict[str, Any] = {"sql": sql or "", "query": query, "reports": reports.values()}
    try:
        found = service.changes.ask_sql(str(sql), query.model) if asked else None
    except (AsifError, RequestError) as error:
        status, message = describe_error(request, error)
        if status == 500:
            raise
        return render(request, "audit.html", status, found=None, problem=message, **shown)
    return render(request, "audit.html", found=found, problem=None, **shown)


@router.get("/delete")
def ask_delete(request: Request, service: Writer, chosen: Chosen) -> HTMLResponse:
    """What would be deleted, to be confirmed."""
    ids = _ticked(chosen)
    found = service.operations.pairs("latest", ids)
    return render(request, "delete.html", found=found, gone=len(ids) - len(found.pairs))


def _ticked(chosen: ChosenQuery) -> list[str]:
    """The pairs that were chosen on a page, each once."""
    if not chosen.without:
        raise RequestError(422, "no pair is chosen: tick some first")
    return list(dict.fromkeys(chosen.without))


@router.post("/delete")
def delete(
    service: Writer, pair: ChosenForm, message: Annotated[Text, Form()] = ""
) -> RedirectResponse:
    """Delete, and show the new version."""
    done = service.changes.delete(ChosenPairs(pairs=pair), message)
    return _see(f"/versions#{done.model}")


@router.get("/forget")
def ask_forget(request: Request, service: Forgetter, chosen: Chosen) -> HTMLResponse:
    """What forgetting would touch, to be confirmed."""
    plan = service.changes.plan(ChosenPairs(pairs=_ticked(chosen)))
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
    try:
        receipt = service.changes.forget(pair, confirm, reason)
    except RequestError as error:
        plan = address("/forget", without=pair), "Plan again"
        raise RequestError(error.status, error.message, plan) from error
    return _see(f"/receipts/{receipt.receipt_id}")


@router.get("/receipts/{receipt}")
@router.get("/receipts/{receipt}.html")
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


def _see(where: str) -> RedirectResponse:
    return RedirectResponse(where, 303)
