"""ASIF by naive float64 loops, straight from the paper: what every fast path is compared with.

Slow on purpose, and shares no code with the package. Dot products are correctly rounded
(`math.fsum`), so they do not depend on the order of summation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating]


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(left, right, strict=True))


def top_k(
    queries: Vectors,
    anchors: Vectors,
    k: int,
    *,
    offset: Sequence[float] | None = None,
    scale: Sequence[float] | None = None,
    live: Sequence[bool] | None = None,
    tie_order: Sequence[int] | None = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """Each query's best anchors and similarities, best first, ties by `tie_order`, then index."""
    rows = [[float(x) for x in anchor] for anchor in anchors]
    indices, similarities = [], []
    for i, query in enumerate(queries):
        found = []
        for j, anchor in enumerate(rows):
            if live is not None and not live[j]:
                continue
            similarity = dot([float(x) for x in query], anchor)
            similarity += 0.0 if offset is None else float(offset[i])
            similarity *= 1.0 if scale is None else float(scale[j])
            found.append((-similarity, j if tie_order is None else int(tie_order[j]), j))
        best = sorted(found)[:k]
        indices.append([j for _, _, j in best])
        similarities.append([-negative for negative, _, _ in best])
    return indices, similarities


def relative_vector(indices: Sequence[int], similarities: Sequence[float], p: float, n: int):
    """The dense (n,) relative vector of one item."""
    vector = [0.0] * n
    for index, similarity in zip(indices, similarities, strict=True):
        vector[index] = max(similarity, 0.0) ** p
    norm = math.sqrt(math.fsum(x * x for x in vector))
    return [x / norm for x in vector] if norm > 0 else vector


def centred(queries: Vectors, anchors: Vectors, live: Sequence[bool] | None = None):
    """Both sides as (unit query, anchor direction) rows about the mean of the live anchors.

    An anchor nearer to the mean than a quarter of sqrt(1 - |mean|²) is divided by that instead.
    """
    rows = [[float(x) for x in a] for i, a in enumerate(anchors) if live is None or live[i]]
    mean = [math.fsum(column) / (len(rows) + 1) for column in zip(*rows, strict=True)]
    usual = math.sqrt(max(1.0 - dot(mean, mean), 2.0**-20))

    def about(vectors: Vectors, least: float) -> NDArray[np.float64]:
        differences = [[float(x) - m for x, m in zip(row, mean, strict=True)] for row in vectors]
        sizes = [max(math.sqrt(dot(row, row)), least) for row in differences]
        return np.array([[x / size for x in r] for r, size in zip(differences, sizes, strict=True)])

    return about(queries, 1e-30), about(anchors, usual / 4)


def white(queries: Vectors, anchors: Vectors, live: Sequence[bool] | None = None):
    """Both sides as rows whose products are cosines in the metric A = r (C + r I)^(-1).

    C is the covariance of the live anchors about their mean as in `centred`, r its mean eigenvalue;
    A is rounded to multiples of 2^-18. Distances below a quarter of the usual one count as that.
    """
    rows = np.array(anchors, dtype=np.float64)[slice(None) if live is None else np.array(live)]
    mean = rows.sum(axis=0) / (len(rows) + 1)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    ridge = np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.linalg.eigh(
        np.rint((vectors * (ridge / (values + ridge))) @ vectors.T * 2**18) / 2**18
    )
    m = (vectors * np.sqrt(values)) @ vectors.T
    usual = np.sqrt(np.square((rows - mean) @ m).sum(axis=1).mean())

    def about(vectors: Vectors, least: float) -> NDArray[np.float64]:
        turned = (np.array(vectors, dtype=np.float64) - mean) @ m
        return turned / np.maximum(np.linalg.norm(turned, axis=1), least)[:, None]

    return about(queries, 1e-30), about(anchors, usual / 4)


def compared(
    recipe: str, side: int, queries: Vectors, anchors: Vectors, live: Sequence[bool] | None = None
):
    """Queries and anchors whose products are a recipe's similarities; side 0 is the images'."""
    if recipe == "white" and side == 0:
        return white(queries, anchors, live)
    return (queries, anchors) if recipe == "paper" else centred(queries, anchors, live)


def asif_scores(
    image_queries: Vectors,
    text_queries: Vectors,
    image_anchors: Vectors,
    text_anchors: Vectors,
    k: tuple[int, int],
    p: tuple[float, float],
    *,
    live: Sequence[bool] | None = None,
    tie_order: Sequence[int] | None = None,
    recipe: str = "paper",
) -> list[list[float]]:
    """Score every image (row) with every text (column); `k` and `p` are (image side, text side)."""
    sides = []
    for queries, anchors, side in (
        (image_queries, image_anchors, 0),
        (text_queries, text_anchors, 1),
    ):
        queries, anchors = compared(recipe, side, queries, anchors, live)
        found = top_k(queries, anchors, k[side], live=live, tie_order=tie_order)
        sides.append(
            [relative_vector(i, s, p[side], len(anchors)) for i, s in zip(*found, strict=True)]
        )
    return [[dot(image, text) for text in sides[1]] for image in sides[0]]
