"""The rows of manifests, CSV and JSON alike: fields to the columns of every source."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asif_lance.ingest.batches import Entry, UnusableFieldError, as_json, as_text, unfold
from asif_lance.ingest.columns import VECTORS, ColumnNames, Columns
from asif_lance.records import Float32Array, Reject


@dataclass(frozen=True, slots=True)
class Manifest:
    """A file of rows.

    Attributes:
        source: its name, for reasons.
        columns: those that mean something.
        known: what they may be called.
    """

    source: str
    columns: Columns
    known: ColumnNames

    def entries(self, item: str, value: Mapping[str, Any] | str) -> Iterator[Entry]:
        """What becomes of a row; a list of captions makes a pair of each.

        Args:
            item: where the row is.
            value: its fields, or why there are none.
        """
        if isinstance(value, str):
            yield Reject(self.source, item, value)
            return
        try:
            yield from self._entries(item, value)
        except UnusableFieldError as error:
            yield Reject(self.source, item, str(error))

    def _entries(self, item: str, value: Mapping[str, Any]) -> Iterator[Entry]:
        row = self._fields(value)
        texts = self._texts(value)
        for i, text in enumerate(texts, 1):
            own = f"{item}, {self.known.text} {i}" if len(texts) > 1 else item
            pair_id = row["pair_id"] and f"{row['pair_id']}#{i}" if i > 1 else row["pair_id"]
            try:
                caption = as_text(text, self.known.text)
                same = {"item": own, "row_id": row["pair_id"]}
                yield {**row, **same, "pair_id": pair_id, "caption": caption}
            except UnusableFieldError as error:
                yield Reject(self.source, own, str(error))

    def _fields(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of one row but for its texts; what has no meaning here is an attribute."""
        row: dict[str, Any] = {
            name: as_text(_get(value, getattr(self.columns, name)), name)
            for name in ("pair_id", "image_uri", "license", "source")
        }
        row["image_path"] = as_text(_get(value, self.columns.image), "image")
        row["attributes"] = as_json(unfold({key: value[key] for key in self.columns.others(value)}))
        for name in VECTORS:
            row[name] = _numbers(_get(value, getattr(self.columns, name)), name)
        return row

    def _texts(self, value: Mapping[str, Any]) -> list[Any]:
        """The texts of a row: one, or several of a list, which CSV has as JSON."""
        text = _get(value, self.columns.caption)
        if not self.known.several:
            return [text]
        if isinstance(text, str) and text.startswith("[") and text.endswith("]"):
            text = _parse_list(text, self.known.text)
        return (text or [None]) if isinstance(text, list) else [text]


def _parse_list(text: str, what: str) -> list[Any] | str:
    """A list in JSON; other words in brackets, as of `[laughter]`, are a text.

    Raises:
        UnusableFieldError: it begins with a quoted text, as a list does, and is none.
    """
    try:
        found: list[Any] = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.startswith(("['", '["')):
            raise UnusableFieldError(f"{what} is a list, but not in JSON") from error
        return text
    return found


def _get(value: Mapping[str, Any], column: str | None) -> Any:
    return None if column is None else value.get(column)


def _numbers(value: Any, what: str) -> Float32Array | None:
    """A vector, as a list or as JSON; a null in it counts as NaN."""
    try:
        if isinstance(value, str):
            value = json.loads(value or "null")
        with np.errstate(over="ignore"):  # an infinity is refused with all others
            vector = None if value is None else np.array(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnusableFieldError(f"{what} is not a list of numbers") from error
    if vector is not None and vector.ndim != 1:
        raise UnusableFieldError(f"{what} is not a list of numbers")
    return vector
