"""CSV and JSONL as batches with the columns of every source; values are not checked yet."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from asif_lance.errors import SourceError
from asif_lance.ingest.batches import (
    Entry,
    UnusableFieldError,
    as_json,
    as_text,
    batch_entries,
    is_text,
    read_entry,
)
from asif_lance.ingest.columns import VECTORS, Columns, SourceBatch, sniff_columns
from asif_lance.records import Float32Array, Reject

_HEAD_ROWS = 1024  # whose keys are the columns of JSONL


def read_csv(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """Comma-, semicolon- or tab-separated values with a header line."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header_line = stream.readline()
        delimiter = max(",;\t", key=header_line.count)
        header = next(csv.reader([header_line], delimiter=delimiter), [])
        if not is_text("".join(header)) or "\0" in header_line:
            raise SourceError(f"{path} is not UTF-8 text")
        columns = sniff_columns(str(path), header)
        yield from batch_entries(_csv_entries(path, columns, header, stream, delimiter), batch_size)


def _csv_entries(
    path: Path, columns: Columns, header: list[str], stream: Iterable[str], delimiter: str
) -> Iterator[Entry]:
    lines = _Lines(stream)
    # strict: a quote that is never closed is an error instead of one enormous field.
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while not lines.at_end():
        number += 1
        try:
            row = next(rows, [])
        except csv.Error as error:
            lines.give_back_all_but_first()
            yield Reject(str(path), f"row {number}", f"malformed row ({error})")
            continue
        if row:
            yield read_entry(str(path), f"row {number}", _csv_row, columns, header, row)


def _csv_row(columns: Columns, header: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(header):
        raise UnusableFieldError(f"row has {len(row)} fields, the header has {len(header)}")
    if not is_text("".join(row)):
        raise UnusableFieldError("row is not UTF-8")
    return _manifest_row(columns, dict(zip(header, row, strict=True)))


class _Lines:
    """Lines for `csv.reader` that can be given back: an unclosed quote takes all that follow."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rest = iter(lines)
        self._back: deque[str] = deque()
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self._taken.append(self._back.popleft() if self._back else next(self._rest))
        return self._taken[-1]

    def at_end(self) -> bool:
        """Whether no line is left; a new row begins here."""
        self._taken = []
        if not self._back:
            self._back.extend(islice(self._rest, 1))
        return not self._back

    def give_back_all_but_first(self) -> None:
        """Undo the reading of a malformed row, except for its first line."""
        self._back.extendleft(reversed(self._taken[1:]))


def read_jsonl(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """One JSON object per line; rows are counted by lines."""
    with path.open("rb") as stream:
        numbered = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        parsed = ((number, _json_object(line)) for number, line in numbered)
        head = list(islice(parsed, _HEAD_ROWS))
        names = dict.fromkeys(key for _, value in head if isinstance(value, dict) for key in value)
        columns = sniff_columns(str(path), [name for name in names if is_text(name)])
        entries = (
            read_entry(str(path), f"row {number}", _json_row, columns, value)
            for number, value in chain(head, parsed)
        )
        yield from batch_entries(entries, batch_size)


def _json_object(line: bytes) -> dict[str, Any] | str:
    """The object on this line, or why there is none."""
    try:
        value = json.loads(line.decode("utf-8-sig"), parse_constant=lambda _: None)
    except UnicodeDecodeError:
        return "row is not UTF-8"
    except (ValueError, RecursionError):
        return "malformed JSON"
    return value if isinstance(value, dict) else "row is not a JSON object"


def _json_row(columns: Columns, value: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(value, str):
        raise UnusableFieldError(value)
    row = _manifest_row(columns, value)
    for name in VECTORS:
        row[name] = _numbers(_get(value, getattr(columns, name)), name)
    return row


def _manifest_row(columns: Columns, value: Mapping[str, Any]) -> dict[str, Any]:
    """The text columns of one row; what has no meaning here is an attribute."""
    names = ("caption", "pair_id", "image_uri", "license", "source")
    row: dict[str, Any] = {
        name: as_text(_get(value, getattr(columns, name)), name) for name in names
    }
    row["image_path"] = as_text(_get(value, columns.image), "image")
    row["attributes"] = as_json({key: value[key] for key in columns.others(value)})
    return row


def _get(value: Mapping[str, Any], column: str | None) -> Any:
    return None if column is None else value.get(column)


def _numbers(value: Any, what: str) -> Float32Array | None:
    """A vector; a null in it counts as NaN."""
    try:
        with np.errstate(over="ignore"):  # an infinity is refused with all others
            vector = None if value is None else np.array(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnusableFieldError(f"{what} is not a list of numbers") from error
    if vector is not None and vector.ndim != 1:
        raise UnusableFieldError(f"{what} is not a list of numbers")
    return vector
