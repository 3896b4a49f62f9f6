"""The HTTP API. What only reads is a page's address with `.json`; the rest is below `/api`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, Path, Query, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from pydantic import StringConstraints

from asif_lance.audit import REPORTS
from asif_lance.audit.csv_lines import csv_lines
from asif_lance.errors import ImageError, InputError, VersionNotFoundError
from asif_lance.records import Float32Array
from asif_lance.service.answers import to_classified
from asif_lance.service.failures import RequestError
from asif_lance.service.messages import (
    Change,
    Classified,
    ClassifyAnswer,
    ComparedVersions,
    DeleteAnswer,
    EvaluationAnswer,
    EvaluationsAnswer,
    Explained,
    FewestAnswer,
    ForgetPlanAnswer,
    Health,
    PairsAnswer,
    Problem,
    ReceiptAnswer,
    SearchAnswer,
    SeveralAnswer,
    SqlAnswer,
    UploadAnswer,
    Uploaded,
    Version,
    VersionsAnswer,
    WhatIfAnswer,
)
from asif_lance.service.operations import PICTURE, THUMBNAIL, small_jpeg
from asif_lance.service.parameters import StrictRoute
from asif_lance.service.queries import (
    AuditQuery,
    CompareQuery,
    EvaluationQuery,
    PairsQuery,
    SearchQuery,
    SeveralQuery,
    ViewQuery,
    distinct_labels,
)
from asif_lance.service.question import ChosenRecipe
from asif_lance.service.requests import (
    RUN_FORM,
    ChosenPairs,
    ClassifyRequest,
    DeleteRequest,
    ForgetRequest,
    PairId,
    Sha256,
    WhatIfRequest,
)
from asif_lance.service.rights import Right
from asif_lance.service.service import Service
from asif_lance.service.validation import RepeatedNameError, build, parse_json


def need(right: Right) -> Callable[[Request], Service]:
    """What gives an operation the service, if whoever asks has the right."""

    def check(request: Request) -> Service:
        if request.state.right < right:
            raise RequestError(403, f"this needs the right to {right.name.lower()}")
        service: Service = request.app.state.service
        return service

    return check


Anybody = Annotated[Service, Depends(need(Right.NONE))]
Reader = Annotated[Service, Depends(need(Right.READ))]
Writer = Annotated[Service, Depends(need(Right.WRITE))]
Forgetter = Annotated[Service, Depends(need(Right.FORGET))]

Model = Annotated[str, Query(max_length=200, description="A version (v3) or an alias.")]
RunId = Annotated[str, Path(pattern=RUN_FORM, description="From a list of them.")]
Picture = Annotated[Sha256, Path(description="The SHA-256 of an uploaded picture.")]

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "What is asked cannot be answered, and why."},
    "503": {"model": Problem, "description": "Busy: ask again."},
}

_NO_PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 80 80">
<path d="M20 24h40v32H20zM20 50l12-12 8 8 8-10 12 14" fill="none" stroke="#8a8480"/></svg>
"""

router = APIRouter(responses=_PROBLEMS, route_class=StrictRoute)


@router.get("/health", tags=["service"])
def health(service: Anybody) -> Health:
    """Whether the service answers, and what the newest version is."""
    try:
        newest = service.operations.models.store.version().name
    except VersionNotFoundError:
        newest = None
    return Health(status="ok", model=newest)


@router.get("/metrics", tags=["service"], response_class=Response)
def metrics(service: Reader) -> Response:
    """Figures for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/versions.json", tags=["versions"])
def versions(service: Reader) -> VersionsAnswer:
    """All model versions, oldest first."""
    found = service.operations.models.store.versions()
    return VersionsAnswer(
        versions=[
            Version(
                **{name: getattr(one, name) for name in Version.model_fields if name != "aliases"},
                aliases=list(one.aliases),
            )
            for one in found
        ]
    )


@router.get("/versions/compare.json", tags=["versions"])
def compare_versions(service: Reader, query: Annotated[CompareQuery, Query()]) -> ComparedVersions:
    """The pairs that one version has and the other has not, or has otherwise."""
    return service.version_changes.compare(query.old, query.new, query.limit)


@router.get("/evaluations.json", tags=["evaluations"])
def evaluations(service: Reader) -> EvaluationsAnswer:
    """Recorded runs whose truth is known (`classify --record --truth-is-folder`), newest first."""
    return service.evaluations.list_runs()


@router.get("/evaluations/{run}.json", tags=["evaluations"])
def evaluation(
    service: Reader, run: RunId, query: Annotated[EvaluationQuery, Query()]
) -> EvaluationAnswer:
    """One such run: which label was taken for which, and pictures, by default the wrong ones."""
    return service.evaluations.find(run, query)


@router.get(
    "/evaluations/pictures/{prediction}.jpg",
    tags=["evaluations"],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/svg+xml": {}}}},
)
def judged_picture(service: Reader, prediction: RunId) -> Response:
    """A picture that a run judged, small; an empty one where it cannot be read here any more."""
    try:
        _, content = service.evaluations.read_picture(prediction)
        return Response(small_jpeg(content, THUMBNAIL), media_type="image/jpeg")
    except (ImageError, RequestError):
        return Response(_NO_PICTURE, media_type="image/svg+xml")


@router.post("/api/pictures", tags=["pictures"])
def upload(service: Reader, files: Annotated[list[UploadFile], File()]) -> UploadAnswer:
    """Hold pictures for a while; other operations name them by the SHA-256 of their bytes."""
    held, rejected = service.operations.hold([(f.filename, f.file.read()) for f in files])
    pictures = [Uploaded(image=one.name, sha256=one.sha256) for one in held]
    return UploadAnswer(pictures=pictures, rejected=rejected)


@router.get(
    "/pictures/{picture}.jpg",
    tags=["pictures"],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def show_picture(service: Reader, picture: Picture) -> Response:
    """An uploaded picture, small."""
    content = service.operations.pictures.get(picture).content
    return Response(small_jpeg(content, PICTURE), media_type="image/jpeg")


@router.post("/api/classify", tags=["answers"])
def classify(service: Reader, request: ClassifyRequest) -> ClassifyAnswer:
    """Say which labels fit pictures or vectors best, and on request which pairs decided."""
    asked = service.operations.vectors_of(request.pictures, request.vectors)
    return _classify(service, request, asked, request.pictures)


@router.post("/api/classify/files", tags=["answers"])
def classify_files(
    service: Reader,
    files: Annotated[list[UploadFile], File()],
    labels: Annotated[
        list[Annotated[str, StringConstraints(max_length=20_000)]],
        Form(max_length=1000, description='By commas, "a, b" being one; or one at a time.'),
    ] = [],  # noqa: B006  # FastAPI copies it
    question: Annotated[
        str, Form(max_length=2**20, description="More of a question, as JSON for /api/classify.")
    ] = "{}",
) -> ClassifyAnswer:
    """The same of files; those that cannot be used are told, and the others answered."""
    request = _parse_question(question, [name for text in labels for name in distinct_labels(text)])
    held, rejected = service.operations.hold([(f.filename, f.file.read()) for f in files])
    if not held:
        newest = service.operations.models.store.version(request.model)
        return ClassifyAnswer(model=newest.name, answers=[], rejected=rejected)
    asked = [one.name for one in held], np.stack([one.vector for one in held])
    answer = _classify(service, request, asked, [one.sha256 for one in held])
    return answer.model_copy(update={"rejected": rejected})


def _parse_question(text: str, labels: list[str]) -> ClassifyRequest:
    named = {"labels": labels} if labels else {}
    try:
        value = {**parse_json(text), **named}
    except RepeatedNameError as error:
        raise RequestError(422, f"question: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(422, "question is no JSON object") from error
    return build(ClassifyRequest, value)


def _classify(
    service: Service,
    request: ClassifyRequest,
    asked: tuple[list[str], Float32Array],
    hashes: Sequence[str],
) -> ClassifyAnswer:
    answers: list[Classified] = service.operations.classify(
        request,
        *asked,
        lambda p, calibration: to_classified(p, request.top, None, request.explain, calibration),
        confidence=request.confidence,
    )
    for answer, sha256 in zip(answers, hashes, strict=False):
        answer.sha256 = sha256
    return ClassifyAnswer(model=answers[0].model, answers=answers)


@router.get("/answer/{picture}.json", tags=["answers"])
def explain(service: Reader, picture: Picture, query: Annotated[ViewQuery, Query()]) -> Explained:
    """One picture's answer taken apart, on request as it would be without some pairs."""
    held = service.operations.pictures.get(picture)
    return service.views.explain(held, query)


@router.get("/answers.json", tags=["answers"])
def several(service: Reader, query: Annotated[SeveralQuery, Query()]) -> SeveralAnswer:
    """Answers of several uploaded pictures, on request beside those of another version."""
    return service.views.several(query)


@router.get("/fewest/{picture}.json", tags=["answers"])
def fewest(service: Reader, picture: Picture, query: Annotated[ViewQuery, Query()]) -> FewestAnswer:
    """The fewest pairs found without which the picture has another label; `exact` if it is sure."""
    held = service.operations.pictures.get(picture)
    return service.operations.fewest(query.question(), held)


@router.post("/api/what-if/delete", tags=["answers"])
def what_if_delete(service: Reader, request: WhatIfRequest) -> WhatIfAnswer:
    """What leaving pairs out would change of answers; changes nothing."""
    operations = service.operations
    names, vectors = operations.vectors_of(request.pictures, request.vectors)
    model, removed, changes = operations.compare_without(
        request,
        request.without,
        names,
        vectors,
        lambda change, calibration: Change(
            before=to_classified(change.before, request.top, None, request.explain, calibration),
            after=to_classified(change.after, request.top, None, request.explain, calibration),
            flips=change.flips,
        ),
        confidence=request.confidence,
    )
    return WhatIfAnswer(model=model, removed=removed, changes=changes)


@router.get("/search.json", tags=["pairs"])
def search(service: Reader, query: Annotated[SearchQuery, Query()]) -> SearchAnswer:
    """Pairs whose pictures fit a text, or whose captions fit an uploaded picture."""
    how, operations = ChosenRecipe(query.recipe), service.operations
    if query.text is not None and query.picture is None:
        return operations.search_text(query.model, how, query.text, query.top)
    if query.picture is not None and query.text is None:
        held = operations.pictures.get(query.picture)
        return operations.search_picture(query.model, how, held, query.top)
    raise InputError("give a text or a picture, one of the two")


@router.get("/pairs.json", tags=["pairs"])
def pairs(service: Reader, query: Annotated[PairsQuery, Query()]) -> PairsAnswer:
    """Pairs of a version, some at a time, or those of some ids."""
    if query.id:
        return service.operations.pairs(query.model, query.id)
    return service.gallery.find(query)


@router.get(
    "/thumbnail",
    tags=["pairs"],
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}, "image/svg+xml": {}}}},
)
def thumbnail(service: Reader, id: Annotated[PairId, Query()], model: Model = "latest") -> Response:
    """A pair's picture, small; an empty one where there is none that can be read here."""
    jpeg = service.operations.thumbnail(model, id)
    if jpeg is None:
        return Response(_NO_PICTURE, media_type="image/svg+xml")
    return Response(jpeg, media_type="image/jpeg")


@router.post("/api/delete", tags=["changes"])
def delete(service: Writer, request: DeleteRequest) -> DeleteAnswer:
    """Take pairs out of the newest model, which makes a new version; older ones keep them."""
    return service.changes.delete(request, request.message)


@router.post("/api/forget/plan", tags=["changes"])
def plan_forget(service: Forgetter, request: ChosenPairs) -> ForgetPlanAnswer:
    """Say what forgetting pairs would touch; changes nothing."""
    return service.changes.plan(request)


@router.post("/api/forget", tags=["changes"])
def forget(service: Forgetter, request: ForgetRequest) -> ReceiptAnswer:
    """Take pairs out of every version, physically; the receipt proves it. Cannot be undone."""
    return service.changes.forget(request.pairs, request.confirm, request.reason)


@router.get("/receipts/{receipt}.json", tags=["changes"])
def receipt(service: Reader, receipt: Annotated[str, Path(max_length=100)]) -> ReceiptAnswer:
    """A receipt of forgetting."""
    return service.changes.receipt(receipt)


@router.get(
    "/audit.csv",
    tags=["audit"],
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}},
)
def audit_csv(service: Reader, query: Annotated[AuditQuery, Query()]) -> Response:
    """The same with all rows as CSV, in which no text is a formula to a spreadsheet."""
    table = service.changes.query(chosen_sql(query.sql, query.report), query.model)
    headers = {"content-disposition": f'attachment; filename="{query.report or "audit"}.csv"'}
    text = "".join(csv_lines(table, spreadsheet=True))
    return Response(text, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/audit.json", tags=["audit"])
def audit(service: Reader, query: Annotated[AuditQuery, Query()]) -> SqlAnswer:
    """Ask the database in SQL: one SELECT, read-only, in a process of its own."""
    return service.changes.ask_sql(chosen_sql(query.sql, query.report), query.model)


def chosen_sql(sql: str | None, report: str | None) -> str:
    """The SQL that is asked, or that of a canned report."""
    if (sql is None) == (report is None):
        raise InputError("give sql or report, one of the two")
    known = {one.name: one.sql for one in REPORTS}
    if sql is not None:
        return sql
    if report not in known:
        raise RequestError(404, f"no such report; there are: {', '.join(known)}")
    return known[str(report)]


def problem(status: int, message: str) -> JSONResponse:
    """An error as the API answers it."""
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse({"error": message}, status, headers)
