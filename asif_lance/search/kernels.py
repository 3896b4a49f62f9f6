"""Compiled loops over stored rows and scores, where they lie, at the speed of memory.

numba has no float16 on CPUs, so arrays of it are passed as the uint16 that they are in memory
(`array.view(np.uint16)`), and `_widened` turns one number into a float32. Importing this module
compiles the loops for the processor at hand or reads them from numba's cache; `kernel_loading`
does so once it is worth the time. Loops run on the calling thread and let other threads run
meanwhile; sums may be added in any order, NaN and infinity keep their meaning.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import carray, njit, types
from numba.extending import intrinsic

if not (
    binding.get_host_cpu_features().get("f16c")
    or platform.machine().lower() in ("arm64", "aarch64")
):
    raise ImportError("this processor has no instruction that widens float16")


def _compile(*signatures: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for contiguous arrays of the given types; others are refused.

    The machine code is kept in `__pycache__` or the user's cache folder. It is compiled anew in
    each process (2 s) where neither can be written.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    options["fastmath"] = {"reassoc", "contract"}
    kinds = list(signatures)

    def compile_function(function: Callable[..., None]) -> Callable[..., None]:
        try:
            compiled: Callable[..., None] = njit(kinds, cache=True, **options)(function)
        except (OSError, RuntimeError, EOFError):  # nowhere to write; a file that was cut short
            compiled = njit(kinds, **options)(function)
        return compiled

    return compile_function


@intrinsic  # type: ignore[untyped-decorator]  # numba leaves it untyped
def _widened(context: Any, bits: Any) -> Any:
    """The float32 of a float16 that is given as uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba leaves it untyped
def _pointer_to(context: Any, address: Any) -> Any:
    """An int64 address as a pointer to uint16 numbers."""
    pointer = types.CPointer(types.uint16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64), generate


@_compile("void(uint16[:, ::1], float32[::1], float32[::1])")
def row_products(rows: Any, vector: Any, out: Any) -> None:
    """out[i] = rows[i] @ vector, in float32; rows are float16."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            total += _widened(rows[i, j]) * vector[j]
        out[i] = total


@_compile("void(uint16[:, ::1], uint16[:, ::1], float32[::1])")
def narrow_rows(rows: Any, out: Any, squares: Any) -> None:
    """out[i] = rows[i] in bfloat16, rounded to nearest; squares[i] = |rows[i] - out[i]|²."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            number = _widened(rows[i, j])
            bits = np.float32(number).view(np.uint32)
            is_odd = (bits >> np.uint32(16)) & np.uint32(1)  # of two that are as near, the even one
            upper = (bits + np.uint32(0x7FFF) + is_odd) >> np.uint32(16)
            out[i, j] = np.uint16(upper)
            lost = number - np.uint32(upper << np.uint32(16)).view(np.float32)
            total += lost * lost
        squares[i] = total


@_compile("void(int64[::1], int64[::1], float64[:, ::1], float64[::1])")
def pair_products(addresses: Any, owners: Any, vectors: Any, out: Any) -> None:
    """out[i] = (row at addresses[i]) @ vectors[owners[i]]; nothing guards against wrong addresses.

    Rows are float16. Each sum is exact where the vectors are on the grid of `exact_products`.
    """
    d = vectors.shape[1]
    for i in range(len(addresses)):
        row, vector = carray(_pointer_to(addresses[i]), (d,)), vectors[owners[i]]
        total = 0.0
        for j in range(d):
            total += np.float64(_widened(row[j])) * vector[j]
        out[i] = total


def _read_only(kind: Any, dimensions: int = 1) -> Any:
    """An array that is not written to, mapped perhaps."""
    return types.Array(kind, dimensions, "C", readonly=True)


_SCORES = types.float64[:, ::1]
_PLACES = _read_only(types.int64, 2)


@_compile(
    *(
        types.void(
            *(_read_only(types.float32, 2), _PLACES, _PLACES),
            *(_read_only(types.float32), _read_only(columns), _SCORES),
        )
        for columns in (types.uint8, types.uint16, types.uint32)
    )
)
def add_weighted_rows(
    weights: Any, begins: Any, ends: Any, values: Any, columns: Any, out: Any
) -> None:
    """out[i] += weights[i, j] * row j, for each j in turn; a sparse row lies from begin to end.

    Products of two float32 numbers are exact in float64.
    """
    for i in range(weights.shape[0]):
        for j in range(weights.shape[1]):
            weight = np.float64(weights[i, j])
            if weight != 0:
                for at in range(begins[i, j], ends[i, j]):
                    out[i, columns[at]] += weight * np.float64(values[at])
