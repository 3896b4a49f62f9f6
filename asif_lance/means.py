"""The mean of a version's vectors and each anchor's distance from it, without rounding.

Stored vectors crowd around their mean (all photos look like photos), so raw cosines are nearly the
same for all anchors. Centred ones tell more: the cosine of `q - mean` and `a - mean`. As

    cos = (q'·a - q'·mean) / |a - mean|    with q' = (q - mean) / |q - mean|

it is a product with the raw anchors, an offset per query and a scale per anchor: the anchors stay
as they are stored, for all recipes and versions.

The mean is that of the live vectors and one more at zero: with many pairs that changes nothing, and
a few do not lie on their own mean.

The usual distance is about the root of their mean square, sqrt(1 - |mean|²) for unit vectors.

All of it is a function of the live rows alone, bit by bit, whatever the order, the fragments, the
history, the threads or the device. A float16 number of size at most 1 is a multiple of 2^-24, so
float64 sums up to 2^29 rows without rounding. The mean is rounded to the same grid, once. Then
a - mean is on it too, its squares are multiples of 2^-48 that sum up to less than 5, and q'·mean is
exact for the same reason as q'·a (see `products`). Only the root, the division by it and the mean
itself are rounded, each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.products import Doubles
from asif_lance.search import unit_queries

#: Anchors nearer to the mean than this share of the usual distance count as so far away: their
#: directions say little, and one next to the mean must not loosen the search's error bound.
NEAREST = 0.25

_GRID = 2.0**-24
_SAME = 2.0**-20  # a variance below it is that of rounding to float16
_TAKEN = 2**17  # numbers widened at a time: they stay in the cache


@dataclass(frozen=True, slots=True)
class Centre:
    """The centre of one side of one model version.

    Attributes:
        mean: (d,) float64, multiples of 2^-24.
        scale: (n,) float64, 1 / max(|a - mean|, `NEAREST` of the usual distance), so that
            similarities fade to 0 at the mean itself; 0 for dead anchors.
    """

    mean: Doubles
    scale: Doubles

    def turn(self, queries: NDArray[np.floating]) -> tuple[NDArray[np.float32], Doubles]:
        """Turn (m, d) queries into q' (float32, on the grid of `unit_queries`) and offsets (m,).

        A query that is the mean becomes zero: all its similarities are 0.
        """
        wide = queries.astype(np.float64) - self.mean
        far = np.any(wide, axis=1)
        turned = np.zeros(wide.shape, dtype=np.float32)
        turned[far] = unit_queries(wide[far])
        return turned, -(turned.astype(np.float64) @ self.mean)


def total(rows: torch.Tensor) -> Doubles:
    """Sum (n, d) float16 rows up exactly: (d,)."""
    sums = torch.zeros(rows.shape[1], dtype=torch.float64)
    for part in _wide(rows):
        sums += part.sum(dim=0).cpu()
    return sums.numpy()


def centre_of(
    blocks: Sequence[torch.Tensor],
    totals: Sequence[Doubles],
    live: NDArray[np.bool_],
    release: Callable[[int], None],
) -> Centre:
    """Find the centre of the live rows of one side.

    Args:
        blocks: (n_i, d) float16 each.
        totals: the `total` of each block, dead rows included.
        live: (n,) bool over all blocks.
        release: told the number of each block that is not needed any more.
    """
    masks = np.split(live, np.cumsum([len(block) for block in blocks])[:-1])
    sums = np.zeros(blocks[0].shape[1])
    for block, whole, mask in zip(blocks, totals, masks, strict=True):
        sums += whole - total(_where(block, ~mask))
    mean = np.rint(sums / (int(live.sum()) + 1) / _GRID) * _GRID
    distance = [np.zeros(0)]
    for i, block in enumerate(blocks):
        distance.append(_distances(block, mean))
        release(i)
    usual = np.sqrt(max(1.0 - float(mean @ mean), _SAME))
    return Centre(mean, live / np.maximum(np.concatenate(distance), NEAREST * usual))


def _where(block: torch.Tensor, mask: NDArray[np.bool_]) -> torch.Tensor:
    return block[torch.from_numpy(np.flatnonzero(mask)).to(block.device)]


def _distances(block: torch.Tensor, mean: Doubles) -> Doubles:
    parts = [np.zeros(0)]
    for part in _wide(block):
        part -= torch.from_numpy(mean).to(part.device)
        parts.append(torch.linalg.vecdot(part, part).cpu().numpy())
    distances: Doubles = np.sqrt(np.concatenate(parts))
    return distances


def _wide(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Copy rows to float64, a few at a time, where they lie; the next part overwrites the last."""
    step = max(_TAKEN // max(rows.shape[1], 1), 1)
    home = "cpu" if rows.device.type == "mps" else rows.device  # MPS has no float64
    # By way of float32 is faster than at one go, and new memory costs as much as converting.
    kinds = (torch.float32, torch.float64)
    buffers = [torch.empty((step, rows.shape[1]), dtype=kind, device=home) for kind in kinds]
    for part in torch.split(rows, step):
        for buffer in buffers:
            part = buffer[: part.shape[0]].copy_(part)
        yield part
