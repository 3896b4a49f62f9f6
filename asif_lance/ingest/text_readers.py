"""CSV and JSONL as batches with the columns of every source; values are not checked yet."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, dropwhile, islice
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import (
    Entry,
    UnusableFieldError,
    as_json,
    as_text,
    batch_entries,
    is_text,
    read_entry,
)
from asif_lance.ingest.columns import VECTORS, ColumnNames, Columns, SourceBatch, sniff_columns
from asif_lance.records import Float32Array, Reject

_HEAD_ROWS = 1024  # whose keys are the columns of JSONL


def read_csv(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """Comma-, semicolon- or tab-separated values with a header line.

    Quotes mean what RFC 4180 says; where tabs separate, only if the whole file is quoted so, since
    most programs write such files without any quoting.
    """
    name = printable(str(path))
    with _open_text(path) as stream:
        lines = _Lines(_without_blank_start(stream))
        header_line = next(lines, "")
        delimiter = max(",;\t", key=header_line.count)
        if "\0" in header_line or not is_text(header_line):
            raise SourceError(f"{name} is not UTF-8 text")
        quoted = delimiter != "\t" or _is_quoted_tsv(path)
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        header = _read_header(name, csv.reader([header_line], delimiter=delimiter, quoting=quoting))
        columns = sniff_columns(name, header, known)
        # strict: a quote that is never closed is an error instead of one enormous field.
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        yield from batch_entries(_csv_entries(name, columns, header, lines, rows), batch_size)


def _open_text(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _without_blank_start(stream: TextIO) -> Iterator[str]:
    return dropwhile(lambda line: not line.strip(), stream)


def _read_header(source: str, rows: Iterator[list[str]]) -> list[str]:
    try:
        return next(rows, [])
    except csv.Error as error:
        raise SourceError(f"{source} has no header line ({error})") from error


def _is_quoted_tsv(path: Path) -> bool:
    """Whether quotes enclose fields throughout a file with tabs, as RFC 4180 has it.

    They do if they are balanced everywhere, and no row that quotes hold together has a line in it
    that is a row of its own.
    """
    quoted = False
    with _open_text(path) as stream:
        lines = _Lines(_without_blank_start(stream))
        rows = csv.reader(lines, delimiter="\t", strict=True)
        tabs = None
        while not lines.at_end():
            try:
                row = next(rows, [])
            except csv.Error:
                return False
            first, *others = lines.taken
            tabs = first.count("\t") if tabs is None else tabs
            whole = [line for line in others if line.count("\t") == tabs]
            if whole or (len(row) <= tabs == first.count("\t")):
                return False
            quoted = quoted or first.startswith('"') or '\t"' in first
    return quoted


def _csv_entries(
    source: str, columns: Columns, header: list[str], lines: _Lines, rows: Iterator[list[str]]
) -> Iterator[Entry]:
    number = 0
    while not lines.at_end():
        number += 1
        try:
            row = next(rows, [])
        except csv.Error as error:
            lines.give_back_all_but_first()
            yield Reject(source, f"row {number}", f"malformed row ({error})")
            continue
        if row:
            yield read_entry(source, f"row {number}", _csv_row, columns, header, row)


def _csv_row(columns: Columns, header: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(header):
        raise UnusableFieldError(f"row has {len(row)} fields, the header has {len(header)}")
    if not is_text("".join(row)):
        raise UnusableFieldError("row is not UTF-8")
    return _manifest_row(columns, dict(zip(header, row, strict=True)))


class _Lines:
    """Lines for `csv.reader` that can be given back: an unclosed quote takes all that follow.

    Attributes:
        taken: the lines of the row that is being read.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._rest = iter(lines)
        self._back: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.taken.append(self._back.popleft() if self._back else next(self._rest))
        return self.taken[-1]

    def at_end(self) -> bool:
        """Whether no line is left; a new row begins here."""
        self.taken = []
        if not self._back:
            self._back.extend(islice(self._rest, 1))
        return not self._back

    def give_back_all_but_first(self) -> None:
        """Undo the reading of a malformed row, except for its first line."""
        self._back.extendleft(reversed(self.taken[1:]))


def read_jsonl(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """One JSON object per line; rows are counted by lines, keys may be in upper or lower case."""
    name = printable(str(path))
    with path.open("rb") as stream:
        numbered = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        parsed = ((number, _json_object(line)) for number, line in numbered)
        head = list(islice(parsed, _HEAD_ROWS))
        _require_object(name, head)
        keys = (key for _, value in head if isinstance(value, dict) for key in value)
        spellings: dict[str, str] = {}
        for key in filter(is_text, keys):
            spellings.setdefault(key.strip().lower(), key)
        columns = sniff_columns(name, list(spellings.values()), known)
        entries = (
            read_entry(name, f"row {number}", _json_row, columns, value)
            for number, value in chain(head, parsed)
        )
        yield from batch_entries(entries, batch_size)


def _require_object(source: str, head: list[tuple[int, dict[str, Any] | str]]) -> None:
    if head and all(isinstance(value, str) for _, value in head):
        number, reason = head[0]
        raise SourceError(f"{source} has no JSON object in a line (row {number}: {reason})")


class _RepeatedKeyError(ValueError):
    """A JSON object has a key twice."""


def _json_object(line: bytes) -> dict[str, Any] | str:
    """The object on this line, or why there is none."""
    try:
        text = line.decode("utf-8-sig")
        value = json.loads(text, parse_constant=lambda _: None, object_pairs_hook=_unique_keys)
    except UnicodeDecodeError:
        return "row is not UTF-8"
    except _RepeatedKeyError as error:
        return str(error)
    except (ValueError, RecursionError):
        return "malformed JSON"
    return value if isinstance(value, dict) else "row is not a JSON object"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(f"{printable(twice)} is given twice")
    return value


def _json_row(columns: Columns, value: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(value, str):
        raise UnusableFieldError(value)
    return _manifest_row(columns, _respelled(columns, value))


def _respelled(columns: Columns, value: dict[str, Any]) -> dict[str, Any]:
    """The same row; keys that mean something are spelled as the columns are."""
    spelled = {name.strip().lower(): name for name in columns.names}
    keys = [spelled.get(key.strip().lower(), key) for key in value]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UnusableFieldError(f"{twice} is given twice")
    return dict(zip(keys, value.values(), strict=True))


def _manifest_row(columns: Columns, value: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of one row; what has no meaning here is an attribute."""
    names = ("caption", "pair_id", "image_uri", "license", "source")
    row: dict[str, Any] = {
        name: as_text(_get(value, getattr(columns, name)), name) for name in names
    }
    row["image_path"] = as_text(_get(value, columns.image), "image")
    row["attributes"] = as_json({key: value[key] for key in columns.others(value)})
    for name in VECTORS:
        row[name] = _numbers(_get(value, getattr(columns, name)), name)
    return row


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
