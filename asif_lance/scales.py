"""Factors per anchor: near ones for all of them, exact ones for those that are proposed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scale:
    """What multiplies the products of n anchors.

    Attributes:
        near: (n,) float64.
        error: each is off by at most so much.
        exactly: gives the exact factors at (m,) indices; None if `near` is exact.
    """

    near: Doubles
    error: float = 0.0
    exactly: Callable[[Longs], Doubles] | None = None

    def at(self, indices: Longs) -> Doubles:
        """The exact factors at (m,) indices."""
        return self.near[indices] if self.exactly is None else self.exactly(indices)

    @property
    def largest(self) -> float:
        """No factor is larger in size."""
        return float(np.abs(self.near).max(initial=0.0)) + self.error
