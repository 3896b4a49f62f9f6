"""Whitening: a fixed metric in which every direction that vectors differ in counts about equally.

Differences from the mean still vary far more in some directions than in others, and these decide
nearly alone which pictures are alike. The whitened similarity is the cosine of M (q - mean) and
M (a - mean) with

    M M = A = r (C + r I)^(-1),    r = trace(C) / d,

C being the covariance of a sample of the vectors. Directions of less variance than the average r
stay about as they are, larger ones shrink. As

    cos = (q'·a - q'·mean) / |a - mean|_A    with q' = A (q - mean) / |q - mean|_A

and |x|_A the root of x·A x, it is a product with the raw anchors, an offset per query and a scale
per anchor, as that of `centring` is; the scale of an anchor holds for as long as A and the mean do.

What is exact. The mean is on the grid of 2^-24 and A on that of 2^-18. A stored number is a
multiple of 2^-24, so A (a - mean) is one of 2^-42 and below 4 in size: float64 makes no error,
whatever the order of summation. Rounded to 2^-24 its product with a - mean, a sum of multiples of
2^-48, has none either; the root and the division are rounded once each. Queries are multiples of
2^-28, for which the same holds. So similarities are functions of the anchor, the query, the mean
and A alone, bit by bit. The sample's differences from the mean are rounded to 2^-18, so that sums
of the products of up to 2^13 of them are exact: C does not depend on the order of the sample. A is
its inverse as LAPACK computes it, on one thread. Another LAPACK or processor may be off in the last
bits of float64, which the rounding of A takes away unless a number of A lies that near to the
middle between two multiples of 2^-18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.devices import limit_torch
from asif_lance.records import Float32Array, Float64Array
from asif_lance.relative.centring import (
    MEAN_GRID,
    NEAREST,
    BlockSums,
    multiply_wide,
    widen_parts,
)
from asif_lance.search import Scale
from asif_lance.search.parallel import torch_threads
from asif_lance.search.query_grid import on_grid

#: The sample that a whitening is fitted on has about so many vectors.
SAMPLE = 2**12

_METRIC_GRID = 2.0**-18
_SAMPLE_GRID = 2.0**-18
_QUERY_GRID = 2.0**-28
_ROUNDING = 2.0**-20  # of distances' squares to their grid, and of what bounds them
_LEAST_DISTANCE = 2.0**-20  # what is below it comes from rounding
_DIRECTIONS = 48  # in which metrics may differ much
_SPARED = 2.0  # times what these leave out, as a square, may be left out beside it
_WIDENED_NUMBERS = 2**19  # at a time: the matrix is read once for so many


@dataclass(frozen=True)
class Whitening:
    """A mean and a metric, fitted on a sample of one side's vectors.

    Attributes:
        mean: (d,) float64, multiples of 2^-24.
        metric: (d, d) float64, symmetric, multiples of 2^-18 with eigenvalues in (0, 1]; A above.
        least: smaller distances |a - mean|_A count as this: `NEAREST` of the sample's root mean
            square.
    """

    mean: Float64Array
    metric: Float64Array
    least: float

    @staticmethod
    def of(rows: torch.Tensor) -> Whitening:
        """Fit it on (s, d) float16 rows, at most 2^13, in whatever order."""
        mean = mean_of_sample(rows)
        apart = rows.cpu().double().numpy() - mean
        metric = np.rint(invert_ridged(apart)[0] / _METRIC_GRID) * _METRIC_GRID
        squares = _square_distances(torch.from_numpy(apart), torch.from_numpy(metric))
        usual = math.sqrt(math.fsum(squares.tolist()) / max(len(rows), 1))
        return Whitening(mean, metric, NEAREST * max(usual, _LEAST_DISTANCE))

    def turn_queries(self, queries: NDArray[np.floating]) -> tuple[Float32Array, Float64Array]:
        """Make q' (float32, on the grid of searches) and offsets (m,) of (m, d) queries.

        A query that is the mean becomes zero: all its similarities are 0.
        """
        wide = np.rint(queries.astype(np.float64) / _QUERY_GRID) * _QUERY_GRID - self.mean
        return finish_queries(wide, multiply_wide(wide, self.metric), self.mean)

    def inverse_distances(self, rows: torch.Tensor) -> Float64Array:
        """1 / |a - mean|_A of (n, d) float16 rows, at most 1 / `least`: (n,)."""
        found = np.empty(len(rows))
        mean, metric = torch.from_numpy(self.mean), torch.from_numpy(self.metric)

        def measure(at: slice, part: torch.Tensor) -> None:
            home = part.device
            found[at] = _square_distances(part - mean.to(home), metric.to(home))

        widen_parts(rows, measure, _WIDENED_NUMBERS, rows.numel() * rows.shape[1])
        inverses: Float64Array = 1.0 / np.sqrt(np.maximum(found, self.least**2))
        return inverses


@dataclass(frozen=True)
class WhiteningStep:
    """From distances under one whitening to nearly those under another, many times as fast.

    A sample that changed by a few vectors changes A in a few directions, and hardly in others. With
    A = L L^T, E = L^-1 (A' - A) L^-T and e the way between the means,

        |a - mean'|_A'² = |a - mean|_A² + z·E z - 2 (A' e)·(a - mean) + |e|_A'²,  z = L^T (a - mean)

    where E is taken for Q (Q^T E Q) Q^T, Q spanning its largest directions. What the rest does to a
    square is at most its norm, as a share of |a - mean|_A².

    Attributes:
        old: the whitening whose distances are known.
        new: the other one.
        directions: (d, r + 1) L Q, and A' e.
        core: (r,) the diagonal of Q^T E Q, which has nothing else.
        shift: |e|_A'².
        off: how far inverse distances that are stepped to may be off, as shares of themselves;
            infinite where there is no bound.
    """

    old: Whitening
    new: Whitening
    directions: Float64Array
    core: Float64Array
    shift: float
    off: float

    @staticmethod
    def between(old: Whitening, new: Whitening) -> WhiteningStep:
        """Find the directions that the metrics differ in most."""
        with limit_torch(torch_threads(len(old.mean) ** 3)):
            root, failed = torch.linalg.cholesky_ex(torch.from_numpy(old.metric))
            root = torch.eye(len(root), dtype=root.dtype) if failed else root  # no bound then
            apart = torch.from_numpy(new.metric - old.metric)
            half = torch.linalg.solve_triangular(root, apart, upper=False)
            change = torch.linalg.solve_triangular(root, half.T.contiguous(), upper=False)
            span, core = _find_directions(change)
            rest = float(torch.linalg.norm(change - (span * core) @ span.T)) + _ROUNDING
            whole = float(torch.linalg.norm(change)) + _ROUNDING
        away = new.mean - old.mean
        turned = new.metric @ away
        shift = max(float(away @ turned), 0.0)
        directions = np.column_stack([(root @ span).numpy(), turned])
        # No distance shrinks by more than to this share of the old one.
        least = math.sqrt(max(1.0 - whole, 0.0)) - math.sqrt(shift) / old.least
        off = rest / least**2 if least > 0 and not failed else math.inf
        off = off / (1.0 - off) if off < 1 else math.inf
        return WhiteningStep(old, new, directions, core.numpy(), shift, off)

    def step(self, rows: torch.Tensor, inverses: Float64Array) -> Float64Array:
        """Nearly 1 / |a - mean'|_A' of (n, d) float16 rows, by (n,) exact ones of before."""
        found = np.square(1.0 / inverses)
        mean, directions = torch.from_numpy(self.old.mean), torch.from_numpy(self.directions)
        core = torch.from_numpy(self.core)

        def add(at: slice, part: torch.Tensor) -> None:
            home = part.device
            along = torch.mm(part.sub_(mean.to(home)), directions.to(home))
            within = along[:, :-1]
            more = torch.mv(within.square(), core.to(home))
            found[at] += (more - 2.0 * along[:, -1]).cpu().numpy() + self.shift

        widen_parts(rows, add, _WIDENED_NUMBERS, rows.numel() * directions.shape[1])
        near: Float64Array = 1.0 / np.sqrt(np.maximum(found, self.new.least**2))
        # Those nearer than counts are not known themselves.
        hidden = np.flatnonzero(inverses * self.old.least > 1.0 - _ROUNDING)
        near[hidden] = self.new.inverse_distances(rows[torch.from_numpy(hidden)])
        return near


def _find_directions(change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest directions that leave out little more of a (d, d) change than many would do.

    Each costs a product with every anchor, and of a change by a few vectors the rest is rounding.

    Returns:
        (d, r) directions of length 1, and how much changes in them: (r,).
    """
    many = torch.linalg.qr(change @ (change @ change[:, : min(len(change), _DIRECTIONS)])).Q
    core, turn = torch.linalg.eigh(many.T @ change @ many)
    order = torch.argsort(core.abs())
    core, turn = core[order], turn[:, order]
    rest = torch.linalg.norm(change) ** 2 - torch.linalg.norm(core) ** 2
    spare = int((core.square().cumsum(0) <= _SPARED * max(float(rest), _ROUNDING**2)).sum())
    return many @ turn[:, spare:], core[spare:]


@dataclass(frozen=True)
class WhitenedSide:
    """One side of one model version, whitened; see `centring.Centre`.

    Attributes:
        whitening: fitted on a sample of the version's pairs.
        scale: of n anchors, dead ones too: 1 / |a - mean|_A.
    """

    whitening: Whitening
    scale: Scale

    def turn_queries(self, queries: NDArray[np.floating]) -> tuple[Float32Array, Float64Array]:
        """See `Whitening.turn_queries`."""
        return self.whitening.turn_queries(queries)

    def equals(self, other: WhitenedSide) -> bool:
        """Whether the other side's whitening says the same of everything."""
        mine, its = self.whitening, other.whitening
        same = mine is its or (
            np.array_equal(mine.mean, its.mean) and np.array_equal(mine.metric, its.metric)
        )
        return same and mine.least == its.least


def mean_of_sample(rows: torch.Tensor) -> Float64Array:
    """The mean of (s, d) float16 rows and one more at zero, on the grid, as in `centring`."""
    total = BlockSums.of(rows).total
    mean: Float64Array = np.rint(total / (len(rows) + 1) / MEAN_GRID) * MEAN_GRID
    return mean


def finish_queries(
    apart: Float64Array, turned: Float64Array, mean: Float64Array
) -> tuple[Float32Array, Float64Array]:
    """Make q' and offsets of (m, d) queries, of which differences from a mean are known.

    Args:
        apart: (m, d), zero for a query that is the mean.
        turned: (m, d), these times A; of length 1 under it afterwards.
        mean: (d,) of all queries, or (m, d).
    """
    square = (apart * turned).sum(axis=1)
    far = square > 0
    scaled = np.zeros(turned.shape)
    scaled[far] = turned[far] / np.sqrt(square[far])[:, None]
    grid, size = on_grid(scaled)
    offset = -(grid.astype(np.float64) * mean).sum(axis=1) * size
    return grid * size[:, None].astype(np.float32), offset  # by powers of two: exactly


def invert_ridged(apart: Float64Array) -> tuple[Float64Array, float]:
    """A of (s, d) differences from the mean, and s r; the identity if they do not differ.

    With fewer vectors than dimensions it follows from their products with one another (Woodbury).
    """
    apart = np.rint(apart / _SAMPLE_GRID) * _SAMPLE_GRID
    count, d = apart.shape
    spread = float(np.square(apart).sum()) / d
    if not spread:
        return np.eye(d), 0.0
    x = torch.from_numpy(apart)
    with limit_torch(1):  # so that the last bits do not depend on the number of threads
        products = x @ x.T if count < d else x.T @ x
        products.diagonal().add_(spread)
        if count < d:
            inverse = np.eye(d) - (x.T @ torch.linalg.solve(products, x)).numpy()
        else:
            inverse = spread * torch.linalg.inv(products).numpy()
    return (inverse + inverse.T) / 2, spread


def _square_distances(apart: torch.Tensor, metric: torch.Tensor) -> Float64Array:
    """|a - mean|_A² of (n, d) float64 differences: (n,)."""
    turned = torch.mm(apart, metric).div_(MEAN_GRID).round_().mul_(MEAN_GRID)
    squares: Float64Array = torch.linalg.vecdot(apart, turned).cpu().numpy()
    return squares
