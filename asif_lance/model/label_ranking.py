"""Labels with their scores, best first, ordered once somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from asif_lance.records import Float64Array


class LabelRanking(Sequence[tuple[str, float]]):
    """Every label of a set with its score, best first; equal scores in the set's order.

    As a tuple of (label, score), and equal to one; pickled it is one. The best is found without
    ordering the others.
    """

    def __init__(self, names: Sequence[str], scores: Float64Array) -> None:
        """Keep (t,) scores of t names; nobody may change them."""
        self._names, self._scores = names, scores

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        return np.argsort(-self._scores, kind="stable")

    @overload
    def __getitem__(self, at: int) -> tuple[str, float]: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[tuple[str, float], ...]: ...
    def __getitem__(self, at: int | slice) -> Any:
        """One of them, or some as a tuple."""
        if isinstance(at, slice):
            return tuple(map(self._pair, self._order[at].tolist()))
        return self._pair(int(self._scores.argmax()) if at == 0 else int(self._order[at]))

    def __len__(self) -> int:
        """Count the labels."""
        return len(self._names)

    def __eq__(self, other: object) -> bool:
        """Whether the same labels have the same scores in the same order."""
        if not isinstance(other, LabelRanking | tuple):
            return NotImplemented
        return self[:] == tuple(other)

    def __hash__(self) -> int:
        """That of the tuple."""
        return hash(self[:])

    def __repr__(self) -> str:
        """As the tuple is written."""
        return repr(self[:])

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the tuple."""
        return tuple, (self[:],)

    def _pair(self, label: int) -> tuple[str, float]:
        return self._names[label], float(self._scores[label])
