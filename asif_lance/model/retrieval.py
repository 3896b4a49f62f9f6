"""Cross-modal retrieval inside one model version: text to pictures, picture to captions.

A query of one mode and an item of the other are compared by their relative vectors, so ranking
the whole table would need every item's relative vector: n searches over n anchors. Instead the
query's relative vector is mapped into the other mode as the weighted mean of its anchors' vectors
there, the items nearest to that are the candidates, and only those are scored exactly.
With `candidates` at or above the number of pairs the ranking is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asif_lance.anchors import Anchors, Side
from asif_lance.errors import InputError
from asif_lance.records import Float32Array, Float64Array, Int64Array, RelativeVectors
from asif_lance.relative import Recipe, relative_vectors, scores
from asif_lance.search import unit_queries

#: Items that are scored exactly unless more are asked for.
CANDIDATES = 1000

_OTHER: dict[Side, Side] = {"image": "text", "text": "image"}


@dataclass(frozen=True, slots=True)
class Match:
    """One pair found by retrieval; `score` in [0, 1] is the relative vectors' dot product."""

    pair_id: str
    caption: str
    image_uri: str
    score: float


def retrieve(
    anchors: Anchors,
    recipe: Recipe,
    side: Side,
    query: Float32Array,
    top: int,
    candidates: int | None = None,
) -> list[Match]:
    """The `top` pairs whose other side fits a query best, one per distinct picture or caption.

    Args:
        anchors: the model version.
        recipe: k and p of both sides.
        side: the query's own mode.
        query: (1, d) float32, unit length.
        top: matches wanted.
        candidates: items of the other mode that are scored exactly, at least `top`; by default
            1,000, or `top` of them if that is more.

    Raises:
        InputError: `top` below 1, or fewer candidates than that.
    """
    if top < 1:
        raise InputError("top must be at least 1")
    candidates = max(top, CANDIDATES) if candidates is None else candidates
    if candidates < top:
        raise InputError(f"the best {top:,} cannot be found among {candidates:,} candidates")
    relative = _relative(anchors, recipe, side, query)
    other = _OTHER[side]
    found = _find_candidates(anchors, recipe, other, relative, candidates)
    if not len(found):
        return []
    items = _relative(anchors, recipe, other, unit_queries(anchors.vectors(other, found)))
    found_scores = scores(items, relative)[:, 0]
    order = np.lexsort((anchors.tie_order(found), -found_scores))
    return _take_distinct(anchors, other, found[order], found_scores[order], top)


def score_pairs(
    anchors: Anchors, recipe: Recipe, query: Float32Array, pair_ids: Sequence[str]
) -> Float64Array:
    """How well the picture of each of m pairs fits a text, (1, d) of unit length: (m,) scores.

    0 for ids that are not in the model version.
    """
    positions, found = anchors.find(pair_ids), np.zeros(len(pair_ids))
    there = positions >= 0
    if there.any():
        vectors = anchors.vectors("image", positions[there])
        items = _relative(anchors, recipe, "image", unit_queries(vectors))
        found[there] = scores(items, _relative(anchors, recipe, "text", query))[:, 0]
    return found


def _relative(
    anchors: Anchors, recipe: Recipe, side: Side, queries: Float32Array
) -> RelativeVectors:
    which = 0 if side == "image" else 1
    neighbors = anchors.top_k(side, queries, recipe.k[which], measure=recipe.measures[which])
    return relative_vectors(neighbors, recipe.p[which], len(anchors))


def _find_candidates(
    anchors: Anchors, recipe: Recipe, side: Side, relative: RelativeVectors, count: int
) -> Int64Array:
    """Positions whose vectors on `side` are nearest to the query mapped to that side."""
    mapped = relative.values @ anchors.vectors(side, relative.indices[0])
    if not np.any(mapped):
        return np.zeros(0, dtype=np.int64)
    # A mean of vectors is compared with their mean as it is, not made longer.
    measure = recipe.measures[0 if side == "image" else 1]
    mapped = unit_queries(mapped) if measure == "cosine" else mapped / relative.values.sum()
    found: Int64Array = anchors.top_k(side, mapped, count, measure=measure).indices[0]
    return found


def _take_distinct(
    anchors: Anchors,
    side: Side,
    positions: Int64Array,
    scores: Float64Array,
    top: int,
) -> list[Match]:
    """Photos with several captions, and captions of several photos, are listed once."""
    columns = ["pair_id", "caption", "image_uri", "image_sha256"]
    matches: dict[str, Match] = {}
    for row, score in zip(anchors.rows(positions, columns), scores, strict=True):
        same = (row["image_sha256"] or row["pair_id"]) if side == "image" else row["caption"]
        if same not in matches:
            matches[same] = Match(
                row["pair_id"], row["caption"] or "", row["image_uri"] or "", float(score)
            )
        if len(matches) == top:
            break
    return list(matches.values())
