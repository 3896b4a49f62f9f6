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

Distances take a pass over all vectors; those from a point nearby, such as the mean of the version
before, differ by no more than that point lies away from the mean. So they serve the next versions
too: a search takes them for what its error bound allows, and finds the exact ones of the anchors
that it proposes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.blocks import Blocks
from asif_lance.scales import Doubles, Longs, Scale
from asif_lance.search import unit_queries

#: Anchors nearer to the mean than this share of the usual distance count as so far away: their
#: directions say little, and one next to the mean must not loosen the search's error bound.
NEAREST = 0.25

_GRID = 2.0**-24
_SAME = 2.0**-20  # a variance below it is that of rounding to float16
_TAKEN = 2**17  # numbers widened at a time: they stay in the cache
_GATHERED = 2**16  # rows gathered at a time
_LOOSEST = 2.0**-11  # what distances from elsewhere may do to a scale
_TURN_ROUNDING = 2e-6  # of similarities: turned queries are on a grid, and what is kept is float32


@dataclass(frozen=True, slots=True)
class Distances:
    """How far the rows of one block are from a point at or near the mean.

    Attributes:
        point: (d,) float64, on the grid of 2^-24.
        values: (n,) float64, rounded once.
    """

    point: Doubles
    values: Doubles

    @staticmethod
    def of(rows: torch.Tensor, point: Doubles) -> Distances:
        """Measure (n, d) float16 rows."""
        return Distances(point, _distances(rows, point))

    def factors(self, mean: Doubles) -> Scale:
        """The scale for a mean, and how far off it is."""
        near = 1.0 / np.maximum(self.values, nearest(mean))
        apart, largest = float(np.linalg.norm(self.point - mean)), float(near.max(initial=0.0))
        # 1/a - 1/b = (b - a) / ab, where the exact distance is at least b - apart.
        off = apart * largest
        return Scale(near, off * largest / (1 - off) if off < 1 else np.inf)

    def serve(self, mean: Doubles) -> bool:
        """Whether they are near enough to those from a mean."""
        return self.factors(mean).error <= _LOOSEST


@dataclass(frozen=True, slots=True)
class Centre:
    """The centre of one side of one model version.

    Attributes:
        mean: (d,) float64, multiples of 2^-24.
        scale: of n anchors: 1 / max(|a - mean|, `NEAREST` of the usual distance), so that
            similarities fade to 0 at the mean itself; 0 for dead anchors.
    """

    mean: Doubles
    scale: Scale

    def turn(self, queries: NDArray[np.floating]) -> tuple[NDArray[np.float32], Doubles]:
        """Turn (m, d) queries into q' (float32, on the grid of `unit_queries`) and offsets (m,).

        A query that is the mean becomes zero: all its similarities are 0.
        """
        wide = queries.astype(np.float64) - self.mean
        far = np.any(wide, axis=1)
        turned = np.zeros(wide.shape, dtype=np.float32)
        turned[far] = unit_queries(wide[far])
        return turned, -(turned.astype(np.float64) @ self.mean)

    def moved(self, queries: NDArray[np.floating], mean: Doubles) -> Doubles:
        """By how much, at most, the similarity of each query and any anchor differs at `mean`.

        Scaling a vector to length 1 where it is longer than r, and by 1/r where it is not, moves
        no two vectors further apart than 1/r times their distance (it is a projection on a ball).

        Args:
            queries: (m, d) unit vectors.
            mean: another mean, such as that of the version before.

        Returns:
            (m,), with float32 rounding of both similarities; infinite for a query that is one of
            the means.
        """
        apart = float(np.linalg.norm(self.mean - mean))
        if not apart:
            return np.zeros(len(queries))
        wide = queries.astype(np.float64)
        away = np.minimum(*(np.linalg.norm(wide - m, axis=1) for m in (self.mean, mean)))
        # The other mean's anchors are not nearer to it than this, nor is what stands for nearness.
        least = 1 / self.scale.largest - apart - abs(nearest(self.mean) - nearest(mean))
        if least <= 0:
            return np.full(len(queries), np.inf)
        anchor = (apart + abs(nearest(self.mean) - nearest(mean))) / least
        with np.errstate(divide="ignore"):
            bound: Doubles = apart / away + anchor + _TURN_ROUNDING
        return bound


def total(rows: torch.Tensor) -> Doubles:
    """Sum (n, d) float16 rows up exactly: (d,)."""
    sums = torch.zeros(rows.shape[1], dtype=torch.float64)
    for part in _wide(rows):
        sums += part.sum(dim=0).cpu()
    return sums.numpy()


def mean_of(
    blocks: Sequence[torch.Tensor], totals: Sequence[Doubles], live: NDArray[np.bool_]
) -> Doubles:
    """The mean of the live rows of one side, on the grid: (d,).

    Args:
        blocks: (n_i, d) float16 each.
        totals: the `total` of each block, dead rows included.
        live: (n,) bool over all blocks.
    """
    masks = np.split(live, np.cumsum([len(block) for block in blocks])[:-1])
    sums = np.zeros(blocks[0].shape[1])
    for block, whole, mask in zip(blocks, totals, masks, strict=True):
        sums += whole - total(_where(block, ~mask))
    mean: Doubles = np.rint(sums / (int(live.sum()) + 1) / _GRID) * _GRID
    return mean


def nearest(mean: Doubles) -> float:
    """Anchors nearer to a mean than this count as so far away."""
    return NEAREST * float(np.sqrt(max(1.0 - float(mean @ mean), _SAME)))


def centre_at(
    mean: Doubles, anchors: Blocks, distances: Sequence[Distances], live: NDArray[np.bool_]
) -> Centre:
    """The centre at the mean of the live anchors, by the distances of each block's rows."""
    each = [of_block.factors(mean) for of_block in distances]
    near = np.concatenate([np.zeros(0), *(scale.near for scale in each)]) * live
    error = max((scale.error for scale in each), default=0.0)
    if not error:
        return Centre(mean, Scale(near))
    exact = [s.near if not s.error else np.full(len(s.near), np.nan) for s in each]
    known = np.where(live, np.concatenate(exact), 0.0)
    return Centre(mean, Scale(near, error, _Exact(anchors, mean, known)))


class _Exact:
    """Exact factors, found when they are asked for the first time."""

    def __init__(self, anchors: Blocks, mean: Doubles, known: Doubles) -> None:
        """`known` are (n,) factors, NaN where they are not known yet."""
        self._anchors, self._mean, self._known = anchors, mean, known

    def __call__(self, indices: Longs) -> Doubles:
        found = self._known[indices]
        unknown = np.isnan(found)
        if not unknown.any():
            return found
        seen = np.zeros(len(self._known), dtype=np.bool_)
        seen[indices[unknown]] = True
        missing = np.flatnonzero(seen)
        for start in range(0, len(missing), _GATHERED):
            part = missing[start : start + _GATHERED]
            distances = Distances.of(self._anchors.take(part), self._mean)
            self._known[part] = distances.factors(self._mean).near
        return self._known[indices]


def _where(block: torch.Tensor, mask: NDArray[np.bool_]) -> torch.Tensor:
    return block[torch.from_numpy(np.flatnonzero(mask)).to(block.device)]


def _distances(rows: torch.Tensor, point: Doubles) -> Doubles:
    parts = [np.zeros(0)]
    for part in _wide(rows):
        part -= torch.from_numpy(point).to(part.device)
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
