"""Pictures of anchors, compared as if these anchors had never been there.

A search can pass over a picture's own anchors, but their mean and metric still know them. Where
anchors are few that decides everything: their differences from the mean sum up to nearly nothing,
so each is the opposite of all the others together, and a metric that is fitted on fewer vectors
than dimensions takes it for that. So a query is turned here by the mean and the metric of all
vectors but its own.

Nothing is fitted again. With m of the sample's s + 1 vectors left (one of them at zero, see
`centring`), x the differences of the others from the mean and e = sum of x / m, the mean moves to
mean - e and C + r I, times the number of vectors, by

    mean mean^T - (mean - e)(mean - e)^T - m e e^T - sum of x x^T

A few directions, whose inverse follows from the one that is known (Woodbury). The ridge r stays,
and so do the anchors' own distances: both change by about one part in s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from asif_lance.devices import limit_torch
from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.relative.centring import MEAN_GRID
from asif_lance.relative.whitening import finish_queries, invert_ridged, mean_of_sample
from asif_lance.search import unit_queries

Turned = tuple[Float32Array, Float64Array]


def turn_centred_without(
    mean: Float64Array,
    count: int,
    queries: NDArray[np.floating],
    own: Sequence[NDArray[np.floating]],
) -> Turned:
    """Queries and offsets as `Centre.turn_queries` makes them, by means without their own vectors.

    Args:
        mean: (d,) of all vectors.
        count: how many these are.
        queries: (m, d).
        own: of each query, its own vectors: (c, d) stored numbers.
    """
    wide = queries.astype(np.float64)
    means = np.array([_mean_without(mean, count, vectors) for vectors in own])
    far = np.any(wide != means, axis=1)
    centred = np.zeros(wide.shape, dtype=np.float32)
    centred[far] = unit_queries(wide[far] - means[far])
    return centred, -(centred.astype(np.float64) * means).sum(axis=1)


def turn_whitened_without(
    sample: torch.Tensor, queries: NDArray[np.floating], own: Sequence[Int64Array]
) -> Turned:
    """Queries and offsets as `Whitening.turn_queries` makes them, without their own vectors.

    Args:
        sample: (s, d) float16, what the whitening was fitted on.
        queries: (m, d).
        own: of each query, the places of its own vectors in the sample.
    """
    mean = mean_of_sample(sample)
    wide = sample.cpu().double().numpy() - mean
    inverse, spread = invert_ridged(wide)
    asked, place = np.unique(np.concatenate([*own, np.zeros(0, np.int64)]), return_inverse=True)
    apart = np.concatenate([mean[None], queries - mean, wide[asked]])
    with limit_torch(1):  # so that the last bits do not depend on the number of threads
        turned = torch.mm(torch.from_numpy(apart), torch.from_numpy(inverse)).numpy()
    count, found, means = len(queries), np.empty(queries.shape), np.empty(queries.shape)
    places = np.split(place + 1 + count, np.cumsum([len(rows) for rows in own])[:-1])
    for i, rows in enumerate(places):
        left = len(sample) + 1 - len(rows)
        pair = (np.stack([side[0], side[1 + i], *side[rows]]) for side in (apart, turned))
        means[i] = mean - apart[rows].sum(axis=0) / left
        found[i] = _turn_one(*pair, left=left, spread=spread)
    means = np.rint(means / MEAN_GRID) * MEAN_GRID
    return finish_queries(queries - means, found, means)


def _mean_without(mean: Float64Array, count: int, vectors: NDArray[np.floating]) -> Float64Array:
    total = mean * (count + 1) - vectors.astype(np.float64).sum(axis=0)
    found: Float64Array = np.rint(total / (count + 1 - len(vectors)) / MEAN_GRID) * MEAN_GRID
    return found


def _turn_one(
    apart: Float64Array, turned: Float64Array, *, left: int, spread: float
) -> Float64Array:
    """A query's difference from the moved mean times the moved metric: (d,).

    Args:
        apart: (2 + c, d): the mean, the query's difference from it, those of its own vectors.
        turned: these times the metric of all.
        left: m above.
        spread: the ridge that the metric was made with.
    """
    step, turned_step = (side[2:].sum(axis=0) / left for side in (apart, turned))

    def directions(side: Float64Array, moved: Float64Array) -> Float64Array:
        return np.concatenate([side[:1], (side[0] - moved)[None], moved[None], side[2:]])

    weights = np.array([1.0, -1.0, -1.0 / left, *-np.ones(len(apart) - 2)])
    u, turned_u = directions(apart, step), directions(turned, turned_step)
    query, turned_query = apart[1] + step, turned[1] + turned_step
    small = u @ turned_u.T + np.diag(spread * weights)
    found: Float64Array = turned_query - np.linalg.solve(small, turned_u @ query) @ turned_u
    return found
