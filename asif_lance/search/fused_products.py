"""One Triton kernel that multiplies anchors with queries, compares with floors, and appends.

Similarities stay in registers: of n·m of them only those that reach their query's floor are
written, and one count comes back. Tests run it in Triton's interpreter and compile it for GPUs; on
one it was not measured yet, so its sizes are modest ones that fit every GPU with matrix units.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from triton.runtime.errors import TritonError

_ROWS, _COLUMNS, _DEPTH = 128, 64, 32  # anchors, queries and numbers that are multiplied at a time
_WARPS = 8

Reaching = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@triton.jit  # type: ignore[untyped-decorator]  # triton leaves it untyped
def _append_reaching(  # type: ignore[no-untyped-def]  # Triton would look the types up
    anchors,
    weights,
    offset,
    scale,
    live,
    floors,
    count,
    places,
    values,
    n,
    m,
    d,
    row_stride,
    number_stride,
    width,
    first,
    most,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Each program takes some anchors and queries; those of the same anchors follow one another."""
    program, across = tl.program_id(0), tl.cdiv(m, columns)
    row = (program // across).to(tl.int64) * rows + tl.arange(0, rows)
    column = program % across * columns + tl.arange(0, columns)
    sums, rest = tl.zeros((rows, columns), tl.float32), tl.zeros((rows, columns), tl.float32)
    for start in range(0, d, depth):
        at = start + tl.arange(0, depth)
        part = anchors + row[:, None] * row_stride + at[None, :] * number_stride
        numbers = tl.load(part, (row < n)[:, None] & (at < d)[None, :], 0.0)
        high = weights + at[:, None] * (2 * width) + column[None, :]
        there = (at < d)[:, None] & (column < m)[None, :]
        sums = tl.dot(numbers, tl.load(high, there, 0.0), sums)
        rest = tl.dot(numbers, tl.load(high + width, there, 0.0), rest)
    found = sums + rest
    if offset is not None:
        found += tl.load(offset + column, column < m, 0.0)[None, :]
    if scale is not None:
        found *= tl.load(scale + row, row < n, 0.0)[:, None]
    floor = tl.load(floors + column, column < m, 0.0)
    reaching = (found >= floor[None, :]) & (row < n)[:, None] & (column < m)[None, :]
    if live is not None:
        reaching &= (tl.load(live + row, row < n, 0) != 0)[:, None]
    hits = reaching.to(tl.int32)
    of_rows = tl.sum(hits, 1)
    begin = tl.atomic_add(count, tl.sum(of_rows, 0).to(tl.int64))
    to = (tl.cumsum(of_rows, 0) - of_rows)[:, None] + tl.cumsum(hits, 1) - hits
    fits = reaching & (to < most - begin)
    tl.store(places + begin + to, column[None, :].to(tl.int64), fits)
    tl.store(places + most + begin + to, (first + row)[:, None], fits)
    tl.store(values + begin + to, found, fits)


def find_reaching(
    blocks: Sequence[torch.Tensor],
    weights: torch.Tensor,
    floors: torch.Tensor,
    most: int,
    *,
    offset: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    live: torch.Tensor | None = None,
) -> Reaching | None:
    """Find all similarities (q·a + offset) * scale that reach their query's floor.

    All arguments are on one device. Sums are float32.

    Args:
        blocks: (n_i, d) float16 anchors; their rows count through.
        weights: (d, 2w) float16, contiguous: m queries and w - m columns that mean nothing, then
            what rounding took off these.
        floors: (m,) float32.
        most: how many are expected at most.
        offset: (m,) float32 or None.
        scale: (n,) float32 or None.
        live: (n,) bool or None: which anchors count.

    Returns:
        The query, the anchor (int64) and the similarity of each, in any order; None if there are
        more than `most`.
    """
    places = torch.empty((2, most), dtype=torch.int64, device=weights.device)
    values, count = floors.new_empty(most), places.new_zeros(1)
    (d, width), m, first = weights.shape, len(floors), 0
    there = torch.cuda.device_of(weights)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with there:  # Triton launches on the current GPU
        for block in blocks:
            at = slice(first, first + len(block))
            grid = triton.cdiv(len(block), _ROWS) * triton.cdiv(m, _COLUMNS)
            _append_reaching[(grid,)](
                block,
                weights,
                offset,
                None if scale is None else scale[at],
                None if live is None else live[at].view(torch.uint8),
                *(floors, count, places, values),
                *(len(block), m, d, *block.stride(), width // 2, first, most),
                *(_ROWS, _COLUMNS, _DEPTH),
                num_warps=_WARPS,
            )
            first += len(block)
    found = int(count)
    return None if found > most else (places[0, :found], places[1, :found], values[:found])


def try_kernel(device: torch.device) -> None:
    """Compile the kernel for a device and run it once.

    Raises:
        ImportError: it cannot be used there; Triton needs a C compiler, for one.
    """
    anchor = torch.ones((1, 16), dtype=torch.float16, device=device)
    weights = torch.ones((16, 32), dtype=torch.float16, device=device)
    try:
        find_reaching([anchor], weights, weights.new_zeros(1, dtype=torch.float32), 16)
    except (TritonError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        reason = str(error).partition("\n")[0]
        raise ImportError(f"Triton cannot compile for {device}: {reason}") from error
