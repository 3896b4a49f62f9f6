"""Columns of somebody else's table turned into ours, and which of its rows can be pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.errors import InputError
from asif_lance.records import BoolArray, Float16Array

#: Why a row is left out, by its verdict; 0 is a pair.
REASONS = ("", "no id", "no image vector", "no text vector", "an id of an earlier row")
_NO_ID, _NO_VECTOR, DUPLICATE = 1, {"image_vector": 2, "text_vector": 3}, 4

# |a|² of unit vectors is that near to 1, as float16 rounds each number by a 2^-11th at most.
_MOST_OFF_UNIT = 2.0**-9
_LARGE = 1e30  # float32 ends at 3e38; below its inverse, it has fewer digits
_NUMBERS_AT_ONCE = 2**20


def vector_width(field: pa.Field) -> int:
    """The length of the vectors in a column.

    Raises:
        InputError: it holds no vectors of one length, as float16, float32 or float64.
    """
    kind = field.type
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise InputError(
            f"the column {field.name!r} holds {kind}: vectors are fixed-size lists of float16, "
            "float32 or float64"
        )
    return int(kind.list_size)


def convert_column(rows: Any, field: pa.Field, name: str | None) -> pa.Array:
    """A column of ours, made of the stored rows' column of this name; nulls for None."""
    if name is None:
        return pa.nulls(len(rows), field.type)
    column = rows[name]
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_fixed_size_list(field.type):
        flat = pa.array(unit_vectors(column)[0].ravel(), pa.float16())
        return pa.FixedSizeListArray.from_arrays(flat, field.type.list_size)
    column = column.cast(field.type)
    return pc.fill_null(column, "") if field.name == "caption" else column


def unit_vectors(column: pa.FixedSizeListArray) -> tuple[Float16Array, BoolArray]:
    """(n, d) vectors as a table of ours would store them, and which of the n have a direction.

    Float16 vectors of unit length stay as they are. What has no direction becomes (1, 0, …), so
    that every row has unit length.
    """
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    numbers = pc.fill_null(values, np.nan) if values.null_count else values
    matrix = numbers.to_numpy(zero_copy_only=False).reshape(len(column), width)
    units = np.empty(matrix.shape, np.float16)
    usable = column.is_valid().to_numpy(zero_copy_only=False).copy()
    step = max(_NUMBERS_AT_ONCE // max(width, 1), 1)
    for at in (slice(i, i + step) for i in range(0, len(matrix), step)):
        units[at], found = _unit(matrix[at])
        usable[at] &= found
    units[~usable] = np.eye(1, width, dtype=np.float16)
    return units, usable


def _unit(matrix: NDArray[Any]) -> tuple[Float16Array, BoolArray]:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if matrix.dtype == np.float64:
            matrix = _into_float32_range(matrix)
        rows = matrix.astype(np.float32).astype(np.float64)
        squares = np.einsum("ij,ij->i", rows, rows)
        usable: BoolArray = np.isfinite(squares) & (squares > 0)
        units = (rows / np.sqrt(squares)[:, None]).astype(np.float32).astype(np.float16)
    if matrix.dtype == np.float16:
        same = usable & (np.abs(squares - 1.0) <= _MOST_OFF_UNIT)
        units[same] = matrix[same]
    return units, usable


def _into_float32_range(matrix: NDArray[Any]) -> NDArray[Any]:
    """Rows of numbers that float32 has no room for divided by their largest; others as they are."""
    peaks = np.abs(matrix).max(axis=1, initial=0.0)
    far = (peaks > 0) & np.isfinite(peaks) & ((peaks > _LARGE) | (peaks < 1 / _LARGE))
    return np.where(far[:, None], matrix / peaks[:, None], matrix) if far.any() else matrix


def judge_rows(
    fragment: Any, columns: Mapping[str, str], held: Mapping[str, list[Float16Array]]
) -> tuple[pa.Array, NDArray[np.int8]]:
    """The id of every row ever written to a fragment, and its verdict by itself.

    Args:
        fragment: of the stored table.
        columns: what columns of ours are called there.
        held: takes the vectors of those of our columns that it has, a matrix per batch.
    """
    scanner = fragment.scanner(
        columns=list(dict.fromkeys(columns[name] for name in ("pair_id", *_NO_VECTOR))),
        include_deleted_rows=True,
        with_row_id=True,
    )
    ids, verdicts = [], []
    for batch in scanner.to_batches():
        own = batch[columns["pair_id"]].cast(pa.string())
        verdict = np.zeros(len(batch), np.int8)
        for name, reason in _NO_VECTOR.items():
            units, usable = unit_vectors(batch[columns[name]])
            verdict[~usable] = reason
            if name in held:
                held[name].append(units)
        verdict[pc.equal(pc.fill_null(own, ""), "").to_numpy(zero_copy_only=False)] = _NO_ID
        ids.append(own)
        verdicts.append(verdict)
    return pa.chunked_array(ids, pa.string()).combine_chunks(), np.concatenate(
        [np.zeros(0, np.int8), *verdicts]
    )
