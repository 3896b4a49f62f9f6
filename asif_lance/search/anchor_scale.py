"""Factors per anchor: near ones for all of them, exact ones for candidates only.

The factor of an anchor a is 1 / max(|a - mean|, nearest). As

    |a - mean|² = |a|² - 2 a·mean + |mean|²

an exact one follows from |a|², which belongs to the anchor alone, and one more exact product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asif_lance.records import Float32Array, Float64Array, Int64Array


@dataclass(frozen=True, slots=True)
class ExactFactors:
    """What the exact factors of anchors are computed from.

    Attributes:
        mean: (d,), on the grid of 2^-24.
        squares: (n,) exact |a|².
        nearest: smaller distances count as this.
    """

    mean: Float64Array
    squares: Float64Array
    nearest: float

    def compute(self, indices: Int64Array, products: Float64Array) -> Float64Array:
        """Of the anchors at (m,) indices, by their exact products a·mean."""
        square = self.squares[indices] - 2.0 * products + float(self.mean @ self.mean)
        found: Float64Array = 1.0 / np.maximum(np.sqrt(square), self.nearest)
        return found


@dataclass(frozen=True)
class Scale:
    """The factors of n anchors' similarities; one scale serves many searches.

    Attributes:
        near: (n,) float64, close to the exact ones.
        error: the most that one of them is off by.
        exact: computes exact ones; None if `near` is exact.
    """

    near: Float64Array
    error: float = 0.0
    exact: ExactFactors | None = None

    @cached_property
    def near_float32(self) -> Float32Array:
        """(n,) the near ones, rounded."""
        return self.near.astype(np.float32)

    @cached_property
    def peak(self) -> float:
        """The largest of the near ones in size; NaN if one of them is."""
        return float(np.maximum(self.near.max(initial=0.0), -self.near.min(initial=0.0)))

    @property
    def largest(self) -> float:
        """No factor is larger in size."""
        return self.peak + self.error

    @property
    def mean(self) -> Float64Array | None:
        """The (d,) vector whose exact products with anchors `exact_factors_at` needs; or None."""
        return None if self.exact is None else self.exact.mean

    def exact_factors_at(self, indices: Int64Array, products: Float64Array | None) -> Float64Array:
        """Those of the anchors at (m,) indices, by their exact products with `mean`."""
        if self.exact is None or products is None:
            return self.near[indices]
        return self.exact.compute(indices, products)

    def exact_factors(self, vectors: NDArray[np.floating], indices: Int64Array) -> Float64Array:
        """The same, by the (m, d) vectors of the anchors."""
        mean = self.mean
        products = None if mean is None else vectors.astype(np.float64) @ mean
        return self.exact_factors_at(indices, products)

    def part(self, indices: Int64Array) -> Scale:
        """The factors of some anchors, which count from 0 then."""
        exact = self.exact
        if exact is not None:
            exact = replace(exact, squares=exact.squares[indices])
        return replace(self, near=self.near[indices], exact=exact)
