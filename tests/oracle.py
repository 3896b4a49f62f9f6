"""ASIF in float64 by naive loops: the definition that everything else is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def relative(
    query: ArrayLike, anchors: ArrayLike, ids: Sequence[str], k: int, p: float
) -> dict[str, float]:
    """One item's relative vector: pair id -> value, for the anchors among its top k."""
    q = np.asarray(query, dtype=np.float64)
    q = q / np.sqrt(sum(x * x for x in q.tolist()))
    cosines = [
        (sum(x * y for x, y in zip(q.tolist(), row, strict=True)), pair_id)
        for row, pair_id in zip(np.asarray(anchors, np.float64).tolist(), ids, strict=True)
    ]
    kept = sorted(cosines, key=lambda both: (-both[0], both[1]))[:k]
    raised = {pair_id: max(cosine, 0.0) ** p for cosine, pair_id in kept}
    norm = np.sqrt(sum(v * v for v in raised.values()))
    return {i: (v / norm if norm else 0.0) for i, v in raised.items()}


def score(image: dict[str, float], text: dict[str, float]) -> float:
    """Dot product of two relative vectors."""
    return sum(value * text.get(pair_id, 0.0) for pair_id, value in image.items())


def classify(
    images: ArrayLike,
    texts: ArrayLike,
    image_anchors: ArrayLike,
    text_anchors: ArrayLike,
    ids: Sequence[str],
    *,
    k: int,
    p: float,
) -> list[list[float]]:
    """Scores of every image for every text."""
    compiled = [relative(t, text_anchors, ids, k, p) for t in np.asarray(texts)]
    relatives = [relative(i, image_anchors, ids, k, p) for i in np.asarray(images)]
    return [[score(i, t) for t in compiled] for i in relatives]
