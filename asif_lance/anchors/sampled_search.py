"""Approximate search among the anchors that count for a label set, and a sample of the others.

Only anchors that carry weight for some label can change a score. The others matter for two numbers
alone: the k-th similarity, below which nothing counts, and the norm, which is the same for all
labels. Both are estimated from a sample of them, in which each counts as several. How far off the
estimate may be follows from how many of the sample are near: where the best label is another one
at either end of that range, the picture is compared with all anchors after all.

The sample is fixed: a pair is in it if a checksum of its id says so, whatever its place in the
table, the version or the query. With all of them in it the answer is that of exact search.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import torch

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.search_settings import SearchSetting
from asif_lance.records import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    Neighbors,
    RelativeVectors,
)
from asif_lance.relative import CompiledTexts, Recipe, relative_vectors, scores

_DEVIATIONS = 2.0  # so many standard deviations of the k-th place are looked at, on either side


@dataclass(frozen=True, slots=True)
class ComparedAnchors:
    """The anchors that are compared for one label set.

    Attributes:
        anchors: what they are part of.
        labels: the label set.
        positions: (r,) int64, ascending.
        counts: (r,) float64, how many anchors each counts as.
        vectors: (r, d) float16, gathered once.
    """

    anchors: Anchors
    labels: CompiledTexts
    positions: Int64Array
    counts: Float64Array
    vectors: torch.Tensor


@dataclass(slots=True)
class SampledSearch:
    """Search among the anchors that carry weight for a label, and a sample of the others.

    Attributes:
        setting: the share of the others.
    """

    setting: SearchSetting
    _last: ComparedAnchors | None = field(default=None, repr=False)

    def __call__(
        self,
        anchors: Anchors,
        recipe: Recipe,
        queries: Float32Array,
        labels: CompiledTexts,
    ) -> RelativeVectors:
        """Relative vectors of (m, d) image queries, as far as the labels' scores depend on them."""
        part, k = self.compared(anchors, labels), recipe.k[0]
        near = anchors.top_k_among(
            "image", part.positions, queries, k, measure=recipe.measures[0], vectors=part.vectors
        )
        counts = part.counts[np.searchsorted(part.positions, near.indices)]
        first, best = _build_relative(near, counts, k, recipe, labels)
        spread = _DEVIATIONS * _deviation_of_place(counts, k)
        ends = [
            _build_relative(near, counts, at, recipe, labels)[1] for at in (k - spread, k + spread)
        ]
        doubtful = (ends[0] != best) | (ends[1] != best)
        return _replace_doubtful(first, doubtful, anchors, recipe, queries)

    def compared(self, anchors: Anchors, labels: CompiledTexts) -> ComparedAnchors:
        """The anchors that are compared, gathered once per label set."""
        last = self._last
        if last is None or last.anchors is not anchors or last.labels is not labels:
            last = self._last = _choose_anchors(anchors, labels, self.setting.fraction)
        return last


def _build_relative(
    near: Neighbors,
    counts: Float64Array,
    k: float | Float64Array,
    recipe: Recipe,
    labels: CompiledTexts,
) -> tuple[RelativeVectors, Int64Array]:
    """Relative vectors if the neighbors end where k anchors are accounted for; the best prompts."""
    limit = np.maximum(np.reshape(k, (-1, 1)), 1.0)
    within = np.clip(limit - (np.cumsum(counts, axis=1) - counts), 0.0, counts)
    relative = relative_vectors(near, recipe.p[0], labels.n, within)
    return relative, scores(relative, labels).argmax(axis=1)


def _deviation_of_place(counts: Float64Array, k: int) -> Float64Array:
    """(m,) standard deviation of the number of anchors before the k-th place, as it is estimated.

    Each of the sample before that place counts as w anchors, and is there with a chance of 1 / w.
    """
    before = (np.cumsum(counts, axis=1) - counts) < k
    each = counts.max(axis=1)
    drawn = (before & (counts > 1)).sum(axis=1) + 1
    spread: Float64Array = each * np.sqrt(drawn * (1 - 1 / each))
    return spread


def _replace_doubtful(
    found: RelativeVectors,
    doubtful: BoolArray,
    anchors: Anchors,
    recipe: Recipe,
    queries: Float32Array,
) -> RelativeVectors:
    """The same, with what exact search gives for the doubtful queries."""
    if not doubtful.any():
        return found
    near = anchors.top_k("image", queries[doubtful], recipe.k[0], measure=recipe.measures[0])
    exact = relative_vectors(near, recipe.p[0], found.n)
    wider = ((0, 0), (0, exact.indices.shape[1] - found.indices.shape[1]))
    indices, values = np.pad(found.indices, wider), np.pad(found.values, wider)
    indices[doubtful], values[doubtful] = exact.indices, exact.values
    return RelativeVectors(indices, values, found.n)


def _choose_anchors(anchors: Anchors, labels: CompiledTexts, fraction: float) -> ComparedAnchors:
    weighty = np.zeros(len(anchors), dtype=np.bool_)
    weighty[labels.anchors] = True
    weighty &= anchors.live
    others = np.flatnonzero(anchors.live & ~weighty)
    drawn = others[in_sample(anchors.ids(others), fraction)]
    drawn = drawn if len(drawn) else others  # so few that a sample of them says nothing
    counts = np.ones(len(anchors))
    counts[drawn] = len(others) / max(len(drawn), 1)
    chosen = weighty.copy()
    chosen[drawn] = True
    positions = np.flatnonzero(chosen)
    return ComparedAnchors(
        anchors, labels, positions, counts[positions], anchors.gather("image", positions)
    )


def in_sample(pair_ids: list[str], fraction: float) -> BoolArray:
    """Which pairs are in the sample: those whose id's CRC-32 is in the lowest share of all."""
    sums = np.array([zlib.crc32(pair_id.encode()) for pair_id in pair_ids], dtype=np.float64)
    chosen: BoolArray = sums < fraction * 2.0**32
    return chosen
