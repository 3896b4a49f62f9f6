"""Arrow columns as plain Python values, with moments as text: JSON, CSV and tables print these.

Python's own datetime holds neither nanoseconds nor infinity nor the year 10000; numpy's does.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def distinct_names(names: list[str]) -> list[str]:
    """Column names that are all different: `caption`, `caption_1`, as DuckDB names them."""
    taken: set[str] = set()
    found = []
    for name in names:
        new, count = name, 0
        while new in taken or (count and new in names):
            count += 1
            new = f"{name}_{count}"
        taken.add(new)
        found.append(new)
    return found


def iterate_rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """The rows of a table, as `values_of` makes their values."""
    for batch in table.to_batches(max_chunksize=10_000):
        yield from zip(*map(values_of, batch.columns), strict=True)


def values_of(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """One Python value per row; None for null.

    Timestamps and dates become ISO 8601 (`Z` where they have a zone), decimals without a fraction
    whole numbers, the others floats if these are exact; lists and structs hold such values.
    """
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in values_of(chunk)]
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _moments(column)
    if pa.types.is_time(kind):
        return [_time(ticks) for ticks in column.cast(pa.time64("us")).cast(pa.int64()).to_pylist()]
    if pa.types.is_decimal(kind):
        return [_number(value) for value in column.to_pylist()]
    if pa.types.is_map(kind):
        return _map(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(column)
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        fields = zip(*(values_of(inner) for inner in column.flatten()), strict=True)
        rows = [dict(zip(names, row, strict=True)) for row in fields]
        return [row if there else None for row, there in zip(rows, _valid(column), strict=True)]
    if pa.types.is_interval(kind):
        return [None if v is None else _interval(v) for v in column.to_pylist()]
    return list(column.to_pylist())


def _valid(column: pa.Array) -> list[bool]:
    return list(column.is_valid().to_pylist())


def _moments(column: pa.Array) -> list[str | None]:
    kind = column.type
    day = pa.types.is_date(kind)
    unit = "D" if day else kind.unit
    if pa.types.is_date64(kind):
        column = column.cast(pa.date32())
    ticks = column.cast(pa.int32() if day else pa.int64())
    ends = np.iinfo(np.int32 if day else np.int64)
    zone = "Z" if not day and kind.tz else ""
    return [None if tick is None else _moment(tick, unit, ends, zone) for tick in ticks.to_pylist()]


def _moment(tick: int, unit: Any, ends: np.iinfo[Any], zone: str) -> str:
    """DuckDB's infinities are the largest and the smallest number of ticks."""
    if tick in (ends.max, -ends.max):
        return "infinity" if tick > 0 else "-infinity"
    text = str(np.datetime64(tick, unit))
    if text.startswith("-"):  # before Christ: numpy gives the year three digits
        year, rest = text[1:].split("-", 1)
        text = f"-{year:0>4}-{rest}"
    return f"{text}{zone}"


def _time(ticks: int | None) -> str | None:
    if ticks is None:
        return None
    seconds, fraction = divmod(ticks, 10**6)
    minutes, second = divmod(seconds, 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}:{second:02}"  # DuckDB has 24:00:00, too
    return f"{text}.{fraction:06}" if fraction else text


def _interval(value: Any) -> str:
    parts = {"months": value.months, "days": value.days, "seconds": value.nanoseconds / 1e9}
    return " ".join(f"{count:g} {name}" for name, count in parts.items() if count) or "0 seconds"


def _number(value: Decimal | None) -> int | float | Decimal | None:
    if value is None:
        return None
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else value


def _lists(column: pa.Array) -> list[Any]:
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
    inner = iter(values_of(column.flatten()))
    rows = [[next(inner) for _ in range(size)] for size in sizes]
    return [row if there else None for row, there in zip(rows, _valid(column), strict=True)]


def _map(column: pa.Array) -> list[Any]:
    entry = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
    rows = _lists(column.cast(pa.list_(entry)))
    return [
        None if row is None else {str(entry["key"]): entry["value"] for entry in row}
        for row in rows
    ]
