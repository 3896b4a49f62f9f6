"""Ways to compare pictures with fewer than all anchors; which of them, a choice says."""

from __future__ import annotations

from typing import Protocol

import lance
import numpy as np
from numpy.typing import NDArray

from asif_lance.anchors import Anchors
from asif_lance.choices import SEARCHES, Search, Setting, required
from asif_lance.errors import InputError
from asif_lance.indexed import Indexed
from asif_lance.recipes import Recipe
from asif_lance.records import RelativeVectors
from asif_lance.relative import CompiledTexts
from asif_lance.sampled import Sampled


class Approximation(Protocol):
    """Relative vectors of pictures, about as exact search makes them.

    Similarities are true ones; which anchors there are, and the norm, may be off.
    """

    @property
    def setting(self) -> Setting:
        """How far it looks."""
        ...

    def __call__(
        self,
        anchors: Anchors,
        recipe: Recipe,
        queries: NDArray[np.float32],
        labels: CompiledTexts,
    ) -> RelativeVectors:
        """Relative vectors of (m, d) unit queries, to be scored with these labels."""
        ...


def approximation(
    search: Search, state: lance.LanceDataset, version: str, recipe: Recipe
) -> Approximation:
    """What a model version's choice says.

    Raises:
        InputError: there is no such kind of search.
        SearchUnavailableError: the version has no choice for it, or for another recipe.
    """
    if search not in SEARCHES[1:]:
        raise InputError(f"no search {search!r}; there are: {', '.join(SEARCHES)}")
    choice = required(state, search, version, recipe)
    if search == "index":
        return Indexed(choice.setting, choice.metric)
    return Sampled(choice.setting)
