"""Names of parameters and fields: what an operation does not know, or has twice, is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, get_origin

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from asif_lance.errors import suggest
from asif_lance.service.failures import RequestError
from asif_lance.service.validation import RepeatedNameError, parse_json

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


async def check_names(request: Request) -> None:
    """Refuse parameters and form fields that would be passed over in silence.

    Raises:
        RequestError: one that the operation does not have, or several of what takes one value.
    """
    route = getattr(request.scope["route"], "dependant", None)
    if route is None:
        return
    given = [name for name, _ in request.query_params.multi_items()]
    _check(given, dict(_fields_of(route.query_params)))
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        form = await request.form()  # kept: it is read once
        _check([name for name, _ in form.multi_items()], dict(_fields_of(route.body_params)))


def _check(given: Iterable[str], takes_several: dict[str, bool]) -> None:
    counts = Counter(given)
    for name, count in counts.items():
        if name not in takes_several:
            known = f"; there are: {', '.join(takes_several)}" if takes_several else ""
            told = f"there is no parameter {name[:100]!r} here"
            raise RequestError(422, f"{told}{suggest(name[:100], takes_several) or known}")
        if count > 1 and not takes_several[name]:
            raise RequestError(422, f"{name} is given more than once, and takes one value")


def _fields_of(parameters: Sequence[Any]) -> Iterator[tuple[str, bool]]:
    """The names, and whether each may be given several times."""
    for parameter in parameters:
        kind = parameter.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                yield name, get_origin(field.annotation) is list
        else:
            yield parameter.alias, get_origin(kind) is list


class _StrictRequest(Request):
    """A request whose JSON has each name once."""

    async def json(self) -> Any:
        """The body's value, or that it is refused."""
        try:
            return parse_json(await self.body())
        except RepeatedNameError as error:
            raise HTTPException(422, str(error)) from error


class StrictRoute(APIRoute):
    """A route that reads such requests."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which is given such a request."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return answer
