"""Similarities of images and some anchors: fast, and off by a known bound at most.

To rule most labels and anchors out, float32 is enough; what is too close to tell is for an exact
search.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch

from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.relative import Centre, WhitenedSide
from asif_lance.search import ANCHOR_NORM, Blocks, float32_error

_ROUNDING = 2.0**-24  # of float32, relative
_QUERIES = 64  # turned at a time: they stay in the cache


@dataclass(frozen=True, slots=True)
class Estimates:
    """Similarities of m images and x anchors.

    Attributes:
        values: (m, x) float32.
        error: (m,) each similarity of an image is off by at most so much.
    """

    values: Float32Array
    error: Float64Array


class SimilarityEstimator:
    """Estimates how similar images are to anchors, in one state of the pairs.

    Attributes:
        away: (m,) how far the images are from the state's centre; 1 without one.
    """

    def __init__(
        self, queries: Float32Array, anchors: Blocks, centre: Centre | WhitenedSide | None
    ) -> None:
        """Turn the queries, as the recipe wants them.

        Args:
            queries: (m, d) unit vectors.
            anchors: (n, d) image vectors.
            centre: their centre or whitening in this state; None if the recipe needs none.
        """
        self._anchors, self._centre = anchors, centre
        self.away, self._offset = np.ones(len(queries)), np.zeros(len(queries))
        if isinstance(centre, WhitenedSide):
            queries, self._offset = centre.turn_queries(queries)
        elif centre is not None:
            queries, self.away, self._offset = _turn(queries, centre.mean)
        self._queries = torch.from_numpy(queries).to(anchors.blocks[0].device)

    def part(self, rows: Int64Array) -> SimilarityEstimator:
        """The same for some of the images, which count from 0 then."""
        part = copy.copy(self)
        part._queries = self._queries[torch.from_numpy(rows).to(self._queries.device)]
        part.away, part._offset = self.away[rows], self._offset[rows]
        return part

    def __call__(self, rows: slice | Int64Array, positions: Int64Array) -> Estimates:
        """Estimate the similarities of some of the images and the anchors at (x,) positions."""
        queries, offset = self._queries[rows], self._offset[rows]
        anchors = self._anchors.take(positions).float()
        shape = len(queries), len(anchors)
        # With `out`, no context of torch has them multiplied in a narrower type.
        values = torch.mm(queries, anchors.T, out=queries.new_empty(shape)).cpu().numpy()
        # Turned queries are off by three roundings, and so are the sum, offset and scale.
        rounded = float32_error(queries.shape[1], queries.device)
        error = np.full(len(values), ANCHOR_NORM * rounded)
        error += 4 * _ROUNDING * (2 * ANCHOR_NORM + np.abs(offset))
        if self._centre is not None:
            scale = self._centre.scale
            values += offset[:, None].astype(np.float32)
            values *= scale.near[positions].astype(np.float32)
            off = scale.error + scale.ratio * scale.largest
            error = error * scale.largest + (ANCHOR_NORM + np.abs(offset)) * off
        return Estimates(values, error)


def _turn(
    queries: Float32Array, mean: Float64Array
) -> tuple[Float32Array, Float64Array, Float64Array]:
    """Turn (m, d) queries as `Centre.turn` does, but for rounding.

    Returns:
        The turned ones (m, d); how far the queries are from the mean (m,); offsets (m,).
    """
    turned = np.empty_like(queries)
    away, offset = np.empty(len(queries)), np.empty(len(queries))
    for start in range(0, len(queries), _QUERIES):
        at = slice(start, start + _QUERIES)
        wide = queries[at] - mean
        away[at] = np.linalg.norm(wide, axis=1)
        wide /= np.where(away[at] > 0, away[at], 1.0)[:, None]
        turned[at], offset[at] = wide, -(wide @ mean)
    return turned, away, offset
