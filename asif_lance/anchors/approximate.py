"""Approximate search: relative vectors of pictures without comparing all anchors."""

from __future__ import annotations

from typing import Protocol

import lance

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.index_search import IndexSearch
from asif_lance.anchors.sampled_search import SampledSearch
from asif_lance.anchors.search_settings import (
    SEARCH_KINDS,
    SearchKind,
    SearchSetting,
    require_choice,
)
from asif_lance.errors import InputError
from asif_lance.records import Float32Array, RelativeVectors
from asif_lance.relative import CompiledTexts, Recipe


class Approximation(Protocol):
    """Relative vectors of pictures, about as exact search makes them.

    Similarities are true ones; which anchors are found, and the norm, may be off.
    """

    @property
    def setting(self) -> SearchSetting:
        """How far it looks."""
        ...

    def __call__(
        self,
        anchors: Anchors,
        recipe: Recipe,
        queries: Float32Array,
        labels: CompiledTexts,
    ) -> RelativeVectors:
        """Relative vectors of (m, d) unit queries, to be scored with these labels."""
        ...


def choose_approximation(
    search: SearchKind, state: lance.LanceDataset, version: str, recipe: Recipe
) -> Approximation:
    """The approximate search that was chosen for a model version.

    Raises:
        InputError: there is no such kind of search.
        SearchUnavailableError: the version has no choice for it, or for another recipe.
    """
    if search not in SEARCH_KINDS[1:]:
        raise InputError(f"no search {search!r}; there are: {', '.join(SEARCH_KINDS)}")
    choice = require_choice(state, search, version, recipe)
    if search == "index":
        return IndexSearch(choice.setting, choice.metric)
    return SampledSearch(choice.setting)
