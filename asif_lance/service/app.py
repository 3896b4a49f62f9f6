"""The application that a server runs: routes, errors, protection."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from asif_lance import __version__
from asif_lance.errors import AsifError
from asif_lance.service import api, login, pages
from asif_lance.service.failures import RequestError
from asif_lance.service.parameters import check_names
from asif_lance.service.problems import describe_error, tell_problem
from asif_lance.service.protection import Protection
from asif_lance.service.service import Service
from asif_lance.service.validation import describe_validation

log = logging.getLogger("asif_lance.service")


def create_app(service: Service) -> Protection:
    """The ASGI application of a service."""
    observe = service.metrics.observe_request
    return Protection(_make_routes(service), service.settings, service.guard, observe)


def _make_routes(service: Service) -> FastAPI:

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    everywhere = [Depends(check_names)]
    if not service.guard.open:
        everywhere.append(Depends(HTTPBearer(auto_error=False)))
    app = FastAPI(
        title="asif-lance",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        dependencies=everywhere,
    )
    app.state.service = service
    app.include_router(api.router)
    app.include_router(pages.router)
    app.include_router(login.router)
    static = str(files("asif_lance.service") / "static")
    app.mount("/static", StaticFiles(directory=static), name="static")
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(RequestError, _tell_refused)
    app.add_exception_handler(AsifError, _tell_failure)
    app.add_exception_handler(Exception, _tell_unexpected)
    return app


def _tell_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return tell_problem(request, 422, describe_validation(error.errors()))


def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = tell_problem(request, error.status_code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


def _tell_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return tell_problem(request, error.status, error.message, error.back)


def _tell_failure(request: Request, error: Exception) -> Response:
    assert isinstance(error, AsifError)
    status, message = describe_error(request, error)
    if status == 500:
        log.error("%s", error)
    return tell_problem(request, status, message)


def _tell_unexpected(request: Request, error: Exception) -> Response:
    return tell_problem(request, 500, "this went wrong inside the service, and its log says where")
