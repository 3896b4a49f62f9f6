"""Approximate search through LanceDB's index: it names candidates, true similarities rank them.

Quantised indices return distances that are off, so they only name candidates, which are ranked by
what their stored vectors say, exactly as all anchors are in exact search. Rows added after the
index was built are all compared. A query that the index finds too little for (so much was
deleted where it looked) is searched exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.search_settings import INDEX, SearchSetting
from asif_lance.records import Float32Array, Int64Array, Neighbors, RelativeVectors
from asif_lance.relative import CompiledTexts, Measure, Recipe, relative_vectors


@dataclass(frozen=True, slots=True)
class IndexSearch:
    """Search through the index of the image side.

    Attributes:
        setting: how far to look.
        metric: the index's own: with another one Lance silently does without the index.
    """

    setting: SearchSetting
    metric: str

    def __call__(
        self,
        anchors: Anchors,
        recipe: Recipe,
        queries: Float32Array,
        labels: CompiledTexts,
    ) -> RelativeVectors:
        """Relative vectors of (m, d) image queries, as exact search makes them of its neighbors."""
        near = self.top_k(anchors, queries, recipe.k[0], measure=recipe.measures[0])
        return relative_vectors(near, recipe.p[0], len(anchors))

    def top_k(
        self, anchors: Anchors, queries: Float32Array, k: int, *, measure: Measure = "cosine"
    ) -> Neighbors:
        """About the k anchors most similar to each of the (m, d) queries, with true cosines.

        The index compares the raw vectors: of centred cosines it knows all but the anchor's scale.
        """
        count = min(max(round(k * self.setting.candidates), 1), len(anchors))
        turned, _ = anchors.turn("image", queries, measure=measure)
        found = []
        with anchors.stored.reading():
            later = _nearest_unindexed(anchors, queries, count, measure)
            for i in range(len(queries)):
                candidates = np.union1d(later[i], self._candidates(anchors, turned[i], count))
                found.append(_rank(anchors, queries[i : i + 1], k, candidates, measure))
        return Neighbors(
            np.concatenate([one.indices for one in found]),
            np.concatenate([one.similarities for one in found]),
        )

    def _candidates(self, anchors: Anchors, query: Float32Array, count: int) -> Int64Array:
        """Positions of about the `count` nearest rows in the index, deleted ones among them.

        Row ids are addresses here; asking for those by their own name takes three times as long.
        """
        nearest = {
            "column": "image_vector",
            "q": query,
            "k": count,
            "metric": self.metric,
            "minimum_nprobes": self.setting.nprobes,
            "maximum_nprobes": self.setting.nprobes,
        }
        found = anchors.dataset.scanner(
            columns=[],
            nearest=nearest,
            with_row_id=True,
            fast_search=True,  # the rows outside of the index are compared by `_nearest_unindexed`
            disable_scoring_autoprojection=True,
        ).to_table()
        return _positions(anchors, found["_rowid"].to_numpy())


def _rank(
    anchors: Anchors, query: Float32Array, k: int, candidates: Int64Array, measure: Measure
) -> Neighbors:
    live, k = candidates[anchors.live[candidates]], min(k, anchors.count)
    if len(live) < k:
        return anchors.top_k("image", query, k, measure=measure)
    return anchors.top_k_of("image", live[None], query, k, measure=measure)


def _nearest_unindexed(
    anchors: Anchors, queries: Float32Array, count: int, measure: Measure
) -> Int64Array:
    """Positions of the nearest rows that the index does not hold: (m, w)."""
    held = {
        fragment
        for index in anchors.dataset.describe_indices()
        if index.name == INDEX
        for segment in index.segments
        for fragment in segment.fragment_ids
    }
    fragments = anchors.stored.fragment_ids.tolist()
    new = [i for i, fragment in enumerate(fragments) if fragment not in held]
    if not new:
        return np.zeros((len(queries), 0), dtype=np.int64)
    starts = _starts(anchors)
    positions = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in new])
    blocks = [anchors.image[i] for i in new]
    return anchors.top_k_among(
        "image", positions, queries, count, measure=measure, vectors=blocks
    ).indices


def _positions(anchors: Anchors, addresses: NDArray[np.uint64]) -> Int64Array:
    """Positions of rows by their addresses: the fragment's id in the upper 32 bits."""
    which = np.searchsorted(anchors.stored.fragment_ids, addresses >> np.uint64(32))
    within = (addresses & np.uint64(2**32 - 1)).astype(np.int64)
    return _starts(anchors)[which] + within


def _starts(anchors: Anchors) -> Int64Array:
    return np.concatenate([[0], np.cumsum(anchors.stored.rows_per_fragment)]).astype(np.int64)
