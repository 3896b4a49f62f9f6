"""Neighbors to relative vectors, their scores, and the shares that pairs have in them.

The formulas are the paper's (section 2, ASIF recipe); computed in float64, stored in float32.
Every result row depends on its own query alone, not on what else is in the batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from asif_lance.records import Neighbors, RelativeVectors


def relative_vectors(neighbors: Neighbors, p: float, n: int) -> RelativeVectors:
    """Cosines to relative vectors: negatives to 0, raised to p, divided by the L2 norm.

    Args:
        neighbors: (m, k) indices and cosines of the top-k anchors.
        p: the power, above 0.
        n: number of anchor positions.

    Returns:
        (m, k) sparse rows of L2 norm 1; a row without a positive cosine stays all zero.
    """
    raised = np.maximum(neighbors.similarities.astype(np.float64), 0.0) ** p
    return RelativeVectors(neighbors.indices, _unit(raised).astype(np.float32), n)


def mean_of(relative: RelativeVectors, owner: NDArray[np.int64]) -> RelativeVectors:
    """The mean relative vector of each owner's rows, normalised again.

    Args:
        relative: (t, k) rows.
        owner: (t,) ascending owner of each row, every owner from 0 on present.

    Returns:
        One row per owner, as wide as the widest needs; shorter ones are padded with zeros.
    """
    means = [_mean(relative, np.flatnonzero(owner == o)) for o in range(int(owner[-1]) + 1)]
    width = max(len(indices) for indices, _ in means)
    rows = np.zeros((len(means), width), np.int64)
    values = np.zeros((len(means), width), np.float32)
    for i, (indices, weights) in enumerate(means):
        rows[i, : len(indices)], values[i, : len(indices)] = indices, weights
    return RelativeVectors(rows, values, relative.n)


class CompiledTexts:
    """Relative vectors of t texts, laid out by anchor for scoring many images.

    Args:
        texts: (t, k) relative vectors.
    """

    def __init__(self, texts: RelativeVectors) -> None:
        self._by_anchor = csc_array(_sparse(texts).T).tocsr()

    def scores(self, images: RelativeVectors) -> NDArray[np.float64]:
        """(m, t) dot products of m images' relative vectors with the texts', each in [0, 1]."""
        products: NDArray[np.float64] = (_sparse(images) @ self._by_anchor).toarray()
        return np.clip(products, 0.0, 1.0)


def attributions(
    image: RelativeVectors, image_row: int, text: RelativeVectors, text_row: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every anchor's share of one score: image part times text part, largest first.

    Returns:
        Anchor positions and their positive contributions in float64, which sum to the score;
        equal ones in the image side's order.
    """
    shared, mine, theirs = np.intersect1d(
        image.indices[image_row], text.indices[text_row], return_indices=True
    )
    parts = image.values[image_row][mine].astype(np.float64) * text.values[text_row][theirs]
    order = np.lexsort((mine, -parts))
    order = order[parts[order] > 0]
    return shared[order], parts[order]


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    unit: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _mean(
    relative: RelativeVectors, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    indices, where = np.unique(relative.indices[rows], return_inverse=True)
    sums = np.zeros(len(indices))
    np.add.at(sums, where.ravel(), relative.values[rows].astype(np.float64).ravel())
    return indices, _unit(sums[None, :])[0]


def _sparse(relative: RelativeVectors) -> csr_array:
    m, k = relative.indices.shape
    pointers = np.arange(0, m * k + 1, k) if k else np.zeros(m + 1, np.int64)
    values = relative.values.astype(np.float64).ravel()
    return csr_array((values, relative.indices.ravel(), pointers), shape=(m, relative.n))
