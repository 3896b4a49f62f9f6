"""What each anchor's product is multiplied by: in float32 for all, exactly for candidates only.

The factor of an anchor a is 1 / max(|a - mean|, nearest). As

    |a - mean|² = |a|² - 2 a·mean + |mean|²

an exact one follows from |a|², which belongs to the anchor alone, and one more exact product. Under
another metric it takes more; what was computed is kept (`FactorsOnDemand`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
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

    def compute_there(self, squares: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
        """The same of (m,) squares on a device: every step is rounded as on the processor."""
        square = squares - 2.0 * products + float(self.mean @ self.mean)
        return 1.0 / torch.clamp(torch.sqrt(square), min=self.nearest)


class FactorsOnDemand:
    """Exact factors of n anchors, each computed when it is first asked for.

    Several threads may ask: they would compute the same.
    """

    def __init__(self, known: Float64Array, compute: Callable[[Int64Array], Float64Array]) -> None:
        """Begin with what is known.

        Args:
            known: (n,) factors; NaN where they are not known. Is filled in.
            compute: gives those of the anchors at (m,) distinct indices, ascending.
        """
        self._known, self._compute = known, compute

    def __call__(self, indices: Int64Array) -> Float64Array:
        """Those of the anchors at (m,) indices."""
        missing = np.unique(indices[np.isnan(self._known[indices])])
        if len(missing):
            self._known[missing] = self._compute(missing)
        return self._known[indices]

    def part(self, indices: Int64Array) -> FactorsOnDemand:
        """Those of some anchors, which count from 0 then."""
        return FactorsOnDemand(self._known[indices], lambda chosen: self(indices[chosen]))


@dataclass(frozen=True)
class Scale:
    """The factors of n anchors' similarities; one scale serves many searches.

    Attributes:
        near: (n,) float64, close to the exact ones.
        error: the most that one of them is off by.
        exact: computes exact ones; None if `near` is exact.
        ratio: the most that one of them is off by beyond that, as a share of itself.
    """

    near: Float64Array
    error: float = 0.0
    exact: ExactFactors | FactorsOnDemand | None = None
    ratio: float = 0.0

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
        return self.exact.mean if isinstance(self.exact, ExactFactors) else None

    def exact_factors_at(self, indices: Int64Array, products: Float64Array | None) -> Float64Array:
        """Those of the anchors at (m,) indices, by their exact products with `mean`."""
        if isinstance(self.exact, FactorsOnDemand):
            return self.exact(indices)
        if self.exact is None or products is None:
            return self.near[indices]
        return self.exact.compute(indices, products)

    def exact_factors_there(
        self, indices: torch.Tensor, products: torch.Tensor | None
    ) -> torch.Tensor:
        """The same by indices and products on a device."""
        if isinstance(self.exact, FactorsOnDemand):
            found = self.exact(indices.cpu().numpy())
            return torch.from_numpy(found).to(indices.device)
        if self.exact is None or products is None:
            return self._hold_on(indices.device, "near", self.near)[indices]
        squares = self._hold_on(indices.device, "squares", self.exact.squares)
        return self.exact.compute_there(squares[indices], products)

    def near_on(self, device: torch.device) -> torch.Tensor:
        """The near ones, rounded to float32, on a device."""
        return self._hold_on(device, "near_float32", self.near_float32)

    def _hold_on(
        self, device: torch.device, name: str, numbers: NDArray[np.floating]
    ) -> torch.Tensor:
        """Numbers on a device, brought there once."""
        held = self._held.get((device, name))
        if held is None:
            held = self._held[device, name] = torch.from_numpy(numbers).to(device)
        return held

    @cached_property
    def _held(self) -> dict[tuple[torch.device, str], torch.Tensor]:
        return {}

    def exact_factors(self, vectors: NDArray[np.floating], indices: Int64Array) -> Float64Array:
        """The same, by the (m, d) vectors of the anchors."""
        mean = self.mean
        products = None if mean is None else vectors.astype(np.float64) @ mean
        return self.exact_factors_at(indices, products)

    def part(self, indices: Int64Array) -> Scale:
        """The factors of some anchors, which count from 0 then."""
        exact = self.exact
        if isinstance(exact, FactorsOnDemand):
            exact = exact.part(indices)
        elif exact is not None:
            exact = replace(exact, squares=exact.squares[indices])
        return replace(self, near=self.near[indices], exact=exact)
