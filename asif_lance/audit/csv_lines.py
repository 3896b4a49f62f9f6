"""Values as CSV: every one can be told from every other, as DuckDB and PostgreSQL write them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from math import isnan
from typing import Any

import pyarrow as pa

from asif_lance.audit.values import iterate_rows

# A field with one of these needs quotes.
_MARKS = frozenset(',"\r\n')

# A cell that begins like this is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_lines(table: pa.Table, spreadsheet: bool = False) -> Iterator[str]:
    """The lines of a table, the names of its columns first; see `csv_line`."""
    for row in chain([table.column_names], iterate_rows(table)):
        yield csv_line(row, spreadsheet)


def csv_line(row: Sequence[Any], spreadsheet: bool = False) -> str:
    """A row of values as `values_of` makes them.

    Args:
        row: the values. None is an empty field and an empty text is quoted; lists and structs are
            JSON, bytes base64.
        spreadsheet: whether texts that would be formulas get a `'`; numbers stay numbers.
    """
    return ",".join(_field(value, spreadsheet) for value in row) + "\n"


def name_infinities(value: Any) -> Any:
    """The same with floats that JSON lacks as texts: `NaN`, `Infinity`, `-Infinity`."""
    if isinstance(value, float) and value - value != 0:
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: name_infinities(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [name_infinities(inner) for inner in value]
    return value


def _field(value: Any, spreadsheet: bool) -> str:
    if value is None:
        return ""
    text = _text(value)
    if spreadsheet and isinstance(value, str | bytes | list | dict):
        text = _harmless(text)
    if text and _MARKS.isdisjoint(text):
        return text
    return '"' + text.replace('"', '""') + '"'


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list | dict):
        return json.dumps(name_infinities(value), ensure_ascii=False, default=_text)
    return str(value)


def _harmless(text: str) -> str:
    """A caption must not become a formula in somebody's spreadsheet."""
    return "'" + text if text.lstrip(" ").startswith(_FORMULA) else text
