"""What is wrong with a request, in a plain sentence: for pages, the API and tools alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from asif_lance.service.failures import RequestError
from asif_lance.service.requests import BASE64_FORM, RUN_FORM, SHA256_FORM, PackedVectors

_Made = TypeVar("_Made", bound=BaseModel)

_LONGEST = 500

# What a value has to be, by the beginning of the kind of its error; the first that fits counts.
_EXPECTED = (
    ("missing", "is missing"),
    ("finite_number", "has to be a finite number"),
    ("string_too_long", "may have at most {max_length:,} characters"),
    ("string_too_short", "may not be empty"),
    ("too_long", "takes at most {max_length:,}, not {actual_length}"),
    ("too_short", "takes at least {min_length:,}"),
    ("greater_than_equal", "has to be at least {ge}"),
    ("greater_than", "has to be above {gt}"),
    ("less_than_equal", "has to be at most {le}"),
    ("less_than", "has to be below {lt}"),
    ("literal_error", "has to be {expected}"),
    ("string_pattern_mismatch", "has to be {form}"),
    ("value_error", "{error}"),
    ("int_", "has to be a whole number"),
    ("float_", "has to be a number"),
    ("bool_", "has to be true or false"),
    ("string_", "has to be a text"),
    ("list_", "has to be a list"),
    ("dict_", "has to be a JSON object"),
    ("model_", "has to be a JSON object"),
)

# What patterns stand for.
_FORMS = {
    SHA256_FORM: "the SHA-256 of a picture, in 64 hexadecimal digits",
    BASE64_FORM: "base64 of float32",
    RUN_FORM: "an id from a list of them",
}

_KIND = re.compile(rf"int|float|str|constrained-.*|.*\[.*\].*|{PackedVectors.__name__}")

_OF_NO_FIELD = ("body", "query", "path", "header")


def build(kind: type[_Made], values: Any) -> _Made:
    """A message of values that came from outside.

    Raises:
        RequestError: they are not such a message.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RequestError(422, describe_validation(error.errors())) from error


def parse_json(content: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or has a name twice in an object.
    """
    return json.loads(content, object_pairs_hook=_only_once)


class RepeatedNameError(ValueError):
    """A JSON object that has a name twice, of which others would take either."""


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedNameError(f"{twice[:100]!r} is given more than once in a JSON object")
    return found


def describe_validation(errors: Sequence[Any]) -> str:
    """Where a request is not as it has to be, and why; what was sent is not repeated."""
    first = _choose(errors)
    if first["type"] == "json_invalid":
        return "the body is no JSON"
    if first["loc"] == ("body",):
        return "the body has to be a JSON object, with the content type application/json"
    place = _place(first["loc"])
    if first["type"] == "extra_forbidden":
        return f"there is no field {place[:100]!r} here"
    return f"{place} {_expected(first)}".strip()[:_LONGEST]


def _choose(errors: Sequence[Any]) -> Any:
    """Of the first value's errors the one that says most.

    A value of several possible kinds has errors of each: what is wrong within one kind says more
    than that it is not another.
    """
    field = _names(errors[0]["loc"])[:1]
    same = [one for one in errors if _names(one["loc"])[:1] == field]
    return max(same, key=lambda one: (len(_names(one["loc"])), not one["type"].endswith("_type")))


def _names(place: Sequence[str | int]) -> list[str]:
    """The names and numbers that lead to a value, without kinds of Python."""
    parts = list(map(str, place))
    if parts and parts[0] in _OF_NO_FIELD:
        del parts[0]
    return [part for part in parts if not _KIND.fullmatch(part)]


def _place(place: Sequence[str | int]) -> str:
    """A value as a person names it: `label_vectors.a`, `vectors 3`."""
    first, *others = _names(place) or [""]
    return first + "".join(f" {int(x) + 1}" if x.isdigit() else f".{x[:100]}" for x in others)


def _expected(error: Mapping[str, Any]) -> str:
    context = dict(error.get("ctx") or {})
    if "UploadFile" in str(context.get("error")):  # FastAPI's own, which names kinds of Python
        return "has to be a file"
    context["form"] = _FORMS.get(context.get("pattern", ""), "of another form")
    for kind, told in _EXPECTED:
        if error["type"].startswith(kind):
            return told.format_map(context)
    return f"cannot be used: {error['msg']}"
