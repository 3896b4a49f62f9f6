"""Single items of a source gathered into batches with the columns of every source."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from asif_lance.encoders import PIECE_BYTES
from asif_lance.errors import SourceError, printable
from asif_lance.ingest.columns import SCHEMA, SourceBatch
from asif_lance.object_files import resolve
from asif_lance.records import Reject

_ROWS = 1024  # of a batch

# A row with the columns of SCHEMA (absent ones are null), or why there is none.
Entry: TypeAlias = dict[str, Any] | Reject


class UnusableFieldError(ValueError):
    """A field that cannot be used; the message is the reject's reason."""


def read_entry(source: str, item: str, read: Callable[..., dict[str, Any]], *args: Any) -> Entry:
    """What `read` makes of one item; a field that cannot be used becomes a rejection."""
    try:
        return {"item": item, **read(*args)}
    except UnusableFieldError as error:
        return Reject(source, item, str(error))


def batch_entries(entries: Iterator[Entry], batch_size: int | None) -> Iterator[SourceBatch]:
    """Gather rows and rejections, `batch_size` at a time; fewer where they bring large pictures."""
    while batch := list(_take(entries, batch_size or _ROWS)):
        rows = [entry for entry in batch if isinstance(entry, dict)]
        rejects = [entry for entry in batch if isinstance(entry, Reject)]
        yield SourceBatch(pl.DataFrame(rows, schema=SCHEMA), rejects)


def _take(entries: Iterator[Entry], most: int) -> Iterator[Entry]:
    size = 0
    for entry in islice(entries, most):
        yield entry
        if isinstance(entry, dict):
            size += len(entry.get("image_bytes") or b"")
            if size > PIECE_BYTES:
                return


def as_text(value: Any, what: str) -> str | None:
    """A field as text, numbers too; None stays.

    Raises:
        UnusableFieldError: it cannot be stored as text.
    """
    if value is None or isinstance(value, str):
        if value is not None and not is_text(value):
            raise UnusableFieldError(f"{what} is not valid Unicode")
        return value
    if isinstance(value, bool | list | dict):
        raise UnusableFieldError(f"{what} is not text")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnusableFieldError(f"{what} is out of range")
    return str(value)


def is_text(value: str) -> bool:
    """Whether a string can be stored; undecodable bytes and half surrogate pairs cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def archive_uri(path: Path) -> str:
    """What pictures inside a file are called before the `#`.

    Raises:
        SourceError: it cannot be stored as text.
    """
    if not is_text(found := str(resolve(path))):
        raise SourceError(f"{printable(found)} is no UTF-8 name: rename it")
    return found


def unfold(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as they were: pairs that were exported have them as JSON in one column.

    A column `attributes` that is no JSON object stays a value like any other.
    """
    inner = attributes.get("attributes")
    if isinstance(inner, str):
        with suppress(ValueError, RecursionError):
            inner = json.loads(inner)
    others = {name: value for name, value in attributes.items() if name != "attributes"}
    return {**inner, **others} if isinstance(inner, dict) else attributes


def as_json(attributes: dict[str, Any]) -> str:
    """Attributes as a JSON object.

    Raises:
        UnusableFieldError: a number is not finite.
    """
    try:
        text = json.dumps(attributes, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise UnusableFieldError("a number is out of range") from error
    return text.encode("utf-8", "replace").decode()
