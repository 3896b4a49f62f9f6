"""The mean of a version's vectors and each anchor's distance from it, without rounding.

Stored vectors crowd around their mean (all photos look like photos), so raw cosines are nearly the
same for all anchors. Centred ones tell more: the cosine of `q - mean` and `a - mean`. As

    cos = (q'·a - q'·mean) / |a - mean|    with q' = (q - mean) / |q - mean|

it is a product with the raw anchors, an offset per query and a scale per anchor: the anchors stay
as they are stored, for all recipes and versions.

The mean is that of the live vectors and one more at zero: with many pairs that changes nothing, and
a few do not lie on their own mean. The root mean square of the distances from it is about
sqrt(1 - |mean|²), as vectors have length 1; that is called the usual distance here.

All of it is a function of the live rows alone, bit by bit, whatever the order, the fragments, the
history, the threads or the device. A float16 number of size at most 1 is a multiple of 2^-24, so
float64 sums up to 2^29 rows of a block without rounding, and integers of 64 bits the blocks' totals
up to 2^38 rows, a block being a fragment: in a table of 2^34 rows, once it is optimized, one of
2^22. The mean is rounded to the same grid, once, and in integers. Then
|a|², a·mean and |mean|² are multiples of 2^-48 that sum up to less than 8, and q'·mean is exact for
the same reason as q'·a (see `search.exact_products`). Only the root of |a - mean|², the division by
it and the mean itself are rounded, each once.

Distances take a pass over all vectors; those from a point nearby, such as the mean of the version
before, differ by no more than that point lies away from the mean. So they serve the next versions
too: a search takes them for what its error bound allows, and computes the exact ones of the
candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.devices import float64_device, limit_torch
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array
from asif_lance.search import ExactFactors, Scale, unit_queries
from asif_lance.search.parallel import share_work, thread_count, torch_threads

#: Anchors nearer to the mean than this share of the usual distance count as so far away: their
#: directions say little, and one next to the mean must not loosen the search's error bound.
NEAREST = 0.25

#: Stored numbers and means are multiples of it.
MEAN_GRID = 2.0**-24

_LEAST_VARIANCE = 2.0**-20  # what is below it comes from rounding to float16
_WIDENED_NUMBERS = 2**16  # at a time: they stay in the cache
_MOST_SCALE_ERROR = 2.0**-11  # that distances from elsewhere may cause
_SIMILARITY_ROUNDING = 2e-6  # centred queries are on a grid, and what is kept is float32


@dataclass(frozen=True, slots=True)
class BlockSums:
    """Exact sums over the rows of one block.

    Attributes:
        total: (d,) float64, the sum of all rows.
        squares: (n,) float64, |a|² of each row.
    """

    total: Float64Array
    squares: Float64Array

    @staticmethod
    def of(rows: torch.Tensor) -> BlockSums:
        """Sum (n, d) float16 rows up."""
        totals, squares = [np.zeros(rows.shape[1])], np.empty(len(rows))

        def add(at: slice, part: torch.Tensor) -> None:
            totals.append(part.sum(dim=0).cpu().numpy())
            squares[at] = torch.linalg.vecdot(part, part).cpu().numpy()

        widen_parts(rows, add)
        return BlockSums(np.sum(totals, axis=0), squares)


@dataclass(frozen=True)
class BlockDistances:
    """How far the rows of one block are from a point at or near the mean.

    Attributes:
        point: (d,) float64, on the grid of 2^-24.
        inverses: (n,) float64, 1 / distance; infinite at the point itself.
    """

    point: Float64Array
    inverses: Float64Array

    @staticmethod
    def of(rows: torch.Tensor, sums: BlockSums, point: Float64Array) -> BlockDistances:
        """Measure (n, d) float16 rows, whose sums are known."""
        square = sums.squares - 2.0 * _multiply_point(rows, point) + float(point @ point)
        with np.errstate(divide="ignore"):
            return BlockDistances(point, 1.0 / np.sqrt(square))

    @cached_property
    def largest(self) -> float:
        """The largest of the inverses."""
        return float(self.inverses.max(initial=0.0))

    def factors(self, most: float) -> Float64Array:
        """(n,) 1 / distance, but at most `most`."""
        return self.inverses if self.largest <= most else np.minimum(self.inverses, most)

    def error(self, mean: Float64Array) -> float:
        """How far off the factors of another mean may be."""
        largest = min(self.largest, 1.0 / least_distance(mean))
        apart = self.point - mean
        # 1/a - 1/b = (b - a) / ab, where the exact distance is at least b - apart.
        off = math.sqrt(float(apart @ apart)) * largest  # many times as fast as `np.linalg.norm`
        return off * largest / (1 - off) if off < 1 else np.inf

    def serve(self, mean: Float64Array) -> bool:
        """Whether they are near enough to those from a mean."""
        return self.error(mean) <= _MOST_SCALE_ERROR


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """What a pass over the rows of one block finds out, dead ones included.

    Attributes:
        sums: exact ones.
        distances: from a point that was once their version's mean; None if not needed so far.
        kept: whether it is on disk, or was to be.
    """

    sums: BlockSums
    distances: BlockDistances | None = None
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Centre:
    """The centre of one side of one model version.

    Attributes:
        mean: (d,) float64, multiples of 2^-24.
        scale: of n anchors: 1 / max(|a - mean|, `NEAREST` of the usual distance), so that
            similarities fade to 0 at the mean itself; 0 for dead anchors.
    """

    mean: Float64Array
    scale: Scale

    def turn_queries(self, queries: NDArray[np.floating]) -> tuple[Float32Array, Float64Array]:
        """Make q' (float32, on the grid of `unit_queries`) and offsets (m,) of (m, d) queries.

        A query that is the mean becomes zero: all its similarities are 0.
        """
        return turn_centred(queries, self.mean)

    def bound_drift(self, queries: NDArray[np.floating], mean: Float64Array) -> Float64Array:
        """Bound how far the similarity of each query and any anchor is from that at another mean.

        Scaling a vector to length 1 where it is longer than r, and by 1/r where it is not, moves
        no two vectors further apart than 1/r times their distance (it is a projection on a ball).

        Args:
            queries: (m, d) unit vectors.
            mean: another mean, such as that of the version before.

        Returns:
            (m,), with float32 rounding of both similarities; infinite for a query that is one of
            the means.
        """
        wide = queries.astype(np.float64)
        away = np.minimum(*(np.linalg.norm(wide - m, axis=1) for m in (self.mean, mean)))
        return self.bound_drift_at(away, mean)

    def bound_drift_at(self, away: Float64Array, mean: Float64Array) -> Float64Array:
        """The same, by the (m,) distances of the queries from the nearer mean."""
        apart = float(np.linalg.norm(self.mean - mean))
        if not apart:
            return np.zeros(len(away))
        clipped = abs(least_distance(self.mean) - least_distance(mean))
        # The other mean's anchors are not nearer to it than this, nor is what stands for nearness.
        least = 1 / self.scale.largest - apart - clipped
        if least <= 0:
            return np.full(len(away), np.inf)
        anchor = (apart + clipped) / least
        with np.errstate(divide="ignore"):
            bound: Float64Array = apart / away + anchor + _SIMILARITY_ROUNDING
        return bound


def turn_centred(
    queries: NDArray[np.floating], mean: Float64Array
) -> tuple[Float32Array, Float64Array]:
    """See `Centre.turn_queries`."""
    wide = queries.astype(np.float64) - mean
    far = np.any(wide, axis=1)
    centred = np.zeros(wide.shape, dtype=np.float32)
    centred[far] = unit_queries(wide[far])
    return centred, -multiply_wide(centred.astype(np.float64), mean)


def mean_of(
    blocks: Sequence[torch.Tensor], sums: Sequence[BlockSums], live: BoolArray
) -> Float64Array:
    """The mean of the live rows of one side, on the grid: (d,).

    Args:
        blocks: (n_i, d) float16 each.
        sums: of each block, dead rows included.
        live: (n,) bool over all blocks.
    """
    return mean_at(total_of(blocks, sums, live), int(live.sum()))


def mean_at(total: Int64Array, count: int) -> Float64Array:
    """The mean of so many rows that add up to this (d,) total, see `add_totals`."""
    steps, left = np.divmod(total, count + 1)  # integers: float64 would round large totals
    twice = 2 * left
    steps += (twice > count + 1) | ((twice == count + 1) & (steps % 2 == 1))
    mean: Float64Array = steps * MEAN_GRID
    return mean


def total_of(
    blocks: Sequence[torch.Tensor], sums: Sequence[BlockSums], live: BoolArray
) -> Int64Array:
    """The exact total of the live rows of one side, see `mean_of` and `add_totals`: (d,)."""
    masks = np.split(live, np.cumsum([len(block) for block in blocks])[:-1])
    total = add_totals([one.total for one in sums])
    for block, mask in zip(blocks, masks, strict=True):
        if not mask.all():
            dead = torch.from_numpy(np.flatnonzero(~mask)).to(block.device)
            total -= add_totals([BlockSums.of(block[dead]).total])
    return total


def add_totals(totals: Sequence[Float64Array]) -> Int64Array:
    """The sum of blocks' exact (d,) totals, in steps of the grid of 2^-24, exact as well."""
    added: Int64Array = np.zeros(totals[0].shape, np.int64)
    for total in totals:
        added += (total / MEAN_GRID).astype(np.int64)
    return added


def least_distance(mean: Float64Array) -> float:
    """The smallest distance from a mean that counts: `NEAREST` of the usual one."""
    return NEAREST * math.sqrt(max(1.0 - float(mean @ mean), _LEAST_VARIANCE))


def make_centre(
    mean: Float64Array,
    sums: Sequence[BlockSums],
    distances: Sequence[BlockDistances],
    live: BoolArray,
) -> Centre:
    """The centre at the mean of the live anchors, by what is known of each block's rows."""
    least = least_distance(mean)
    parts = [of_block.factors(1.0 / least) for of_block in distances]
    near = np.concatenate([np.zeros(0), *parts])
    if not live.all():
        near *= live
    error = max((of_block.error(mean) for of_block in distances), default=0.0)
    if not error:
        return Centre(mean, Scale(near))
    squares = np.concatenate([of_block.squares for of_block in sums])
    return Centre(mean, Scale(near, error, ExactFactors(mean, squares, least)))


def _multiply_point(rows: torch.Tensor, point: Float64Array) -> Float64Array:
    """Exact products of (n, d) rows and a point on the grid: (n,)."""
    products = np.empty(len(rows))
    vector = torch.from_numpy(point).to(float64_device(rows.device))

    def multiply(at: slice, part: torch.Tensor) -> None:
        products[at] = torch.mv(part, vector).cpu().numpy()

    widen_parts(rows, multiply)
    return products


def multiply_wide(vectors: Float64Array, by: Float64Array) -> Float64Array:
    """(m, d) vectors times a (d,) or (d, e) array.

    By torch, on as many threads as are worth it: those of NumPy's BLAS keep cores busy for a while
    afterwards, and the search that follows would take a third longer.
    """
    with limit_torch(torch_threads(vectors.size * by[0].size)):
        found: Float64Array = torch.matmul(torch.from_numpy(vectors), torch.from_numpy(by)).numpy()
    return found


def widen_parts(
    rows: torch.Tensor,
    use: Callable[[slice, torch.Tensor], None],
    numbers: int = _WIDENED_NUMBERS,
    work: int | None = None,
) -> None:
    """Copy rows to float64, so many numbers at a time, where they lie, and have each part used.

    Several threads do, if there is enough work; one overwrites its last part with the next.
    """
    step = max(numbers // max(rows.shape[1], 1), 1)
    parts = [slice(i, i + step) for i in range(0, len(rows), step)]
    home = float64_device(rows.device)

    def widen(parts: Iterator[slice]) -> None:
        # By way of float32 is faster than at one go, and new memory costs as much as converting.
        kinds = (torch.float32, torch.float64)
        buffers = [torch.empty((step, rows.shape[1]), dtype=kind, device=home) for kind in kinds]
        for at in parts:
            part = rows[at]
            for buffer in buffers:
                part = buffer[: part.shape[0]].copy_(part)
            use(at, part)

    work = 4 * rows.numel() if work is None else work
    share_work(parts, widen, thread_count(work) if rows.device.type == "cpu" else 1)
