"""Relative vectors, scores and attributions: the arithmetic of ASIF, over plain arrays.

An item is described by its similarities to the k anchors most like it (paper, section 2). Images
are compared with the anchors' images and captions with their captions, so both descriptions run
over the same anchors and their dot product compares an image with a caption.

Sums are float64 and run in an order fixed by the items alone (an image's neighbors, best first),
so a score does not depend on the batch that it was computed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asif_lance.errors import DimensionError, InputError
from asif_lance.records import Float32Array, Float64Array, Int64Array, Neighbors, RelativeVectors

_CHUNK_PRODUCTS = 2**22  # held at a time


def relative_vectors(
    neighbors: Neighbors, p: float, n: int, counts: Float64Array | None = None
) -> RelativeVectors:
    """Turn similarities to the k nearest anchors into relative vectors (paper, definition 2.1).

    Negative similarities become 0, the others are raised to p, and each row is divided by its L2
    norm. A row without positive similarities stays zero.

    Args:
        neighbors: (m, k) indices and similarities.
        p: exponent, above 0.
        n: number of anchors that the indices refer to.
        counts: (m, k) how many anchors each neighbor stands for in the norm, where neighbors are a
            sample; one that stands for none is left out. None for one each.

    Returns:
        (m, k) values in the neighbors' order, computed in float64, stored as float32.

    Raises:
        InputError: p is not above 0 and finite.
    """
    if not (math.isfinite(p) and p > 0):
        raise InputError(f"p must be above 0 and finite, got {p}")
    values = np.maximum(neighbors.similarities.astype(np.float64), 0.0)
    values /= _or_one(values.max(axis=1, initial=0.0))  # so that no power underflows as a whole
    values **= p
    squares = np.square(values)
    if counts is not None:
        squares *= counts
        values[counts == 0] = 0.0
    values /= _or_one(np.sqrt(squares.sum(axis=1)))
    return RelativeVectors(neighbors.indices, values.astype(np.float32), n)


def _or_one(sizes: Float64Array) -> Float64Array:
    """Make divisors of sizes, as a column: dividing by 1 leaves an all-zero row alone."""
    return np.where(sizes > 0, sizes, 1.0)[:, None]


@dataclass(frozen=True, slots=True)
class CompiledTexts:
    """Relative vectors of t texts, sorted by anchor: the sparse (n, t) matrix, row by row.

    Attributes:
        starts: (n + 1,) int64, where each anchor's entries begin.
        texts: (e,) int32, the text of each entry, ascending within an anchor.
        values: (e,) float32, positive.
        count: t.
    """

    starts: Int64Array
    texts: NDArray[np.int32]
    values: Float32Array
    count: int


def compile_texts(texts: RelativeVectors) -> CompiledTexts:
    """Sort relative vectors by anchor, so that an image touches only its own anchors' entries."""
    rows, columns = np.nonzero(texts.values)
    anchors = texts.indices[rows, columns]
    order = np.argsort(anchors, kind="stable")
    apart = np.diff(anchors[order], prepend=-1, append=texts.n)
    starts = np.repeat(np.arange(len(order) + 1), apart)
    values = texts.values[rows, columns][order]
    return CompiledTexts(starts, rows[order].astype(np.int32), values, len(texts.values))


def scores(images: RelativeVectors, texts: RelativeVectors | CompiledTexts) -> Float64Array:
    """Score every image with every text: the dot products of their relative vectors.

    Args:
        images: m relative vectors over the anchors' images.
        texts: t relative vectors over the same anchors' texts; compile them once if they are
            used often.

    Returns:
        (m, t) float64 in [0, 1].

    Raises:
        DimensionError: images and texts refer to different numbers of anchors.
    """
    compiled = texts if isinstance(texts, CompiledTexts) else compile_texts(texts)
    if images.n != len(compiled.starts) - 1:
        raise DimensionError("relative vectors", len(compiled.starts) - 1, images.n)
    sizes = compiled.starts[images.indices + 1] - compiled.starts[images.indices]
    sizes[images.values == 0] = 0
    result = np.empty((len(images.values), compiled.count))
    for start, stop in _chunks(sizes.sum(axis=1)):
        at = slice(start, stop)
        result[at] = _scores(images.indices[at], images.values[at], sizes[at], compiled)
    return result


def _chunks(sizes: Int64Array) -> list[tuple[int, int]]:
    """Cut images into runs of at most `_CHUNK_PRODUCTS` products (or a single image)."""
    cuts, total = [0], 0
    for i, size in enumerate(sizes.tolist()):
        total += size
        if total > _CHUNK_PRODUCTS and i > cuts[-1]:
            cuts.append(i)
            total = size
    return list(zip(cuts, [*cuts[1:], len(sizes)], strict=True))


def _scores(
    indices: Int64Array,
    values: Float32Array,
    sizes: Int64Array,
    compiled: CompiledTexts,
) -> Float64Array:
    flat = sizes.ravel()
    ends = np.cumsum(flat)
    within = np.arange(flat.sum()) - np.repeat(ends - flat, flat)
    entries = np.repeat(compiled.starts[indices.ravel()], flat) + within
    products = np.repeat(values.ravel().astype(np.float64), flat) * compiled.values[entries]
    image = np.repeat(np.arange(len(indices)), sizes.sum(axis=1))
    cells = image * compiled.count + compiled.texts[entries]
    # bincount adds one after another: per cell, in the order of the image's neighbors.
    sums = np.bincount(cells, weights=products, minlength=len(indices) * compiled.count)
    return sums.reshape(len(indices), compiled.count).astype(np.float64, copy=False)


def best_scores(scores: Float64Array, classes: Int64Array) -> Float64Array:
    """Give each class the best score of its prompts: the ensemble `max`, as the authors' code.

    Args:
        scores: (m, t) of t prompts.
        classes: (t,) the class of each prompt, ascending from 0 without gaps.

    Returns:
        (m, c).
    """
    best: Float64Array = np.maximum.reduceat(scores, _first_of_each(classes), axis=1)
    return best


def mean_vectors(texts: RelativeVectors, classes: Int64Array) -> RelativeVectors:
    """Average the relative vectors of each class's prompts, and L2-normalise the means.

    Normalised like any relative vector, so that scores stay cosines: otherwise classes whose
    prompts disagree would score lower for that alone.

    Args:
        texts: t relative vectors.
        classes: (t,) the class of each, ascending from 0 without gaps.

    Returns:
        One row per class over all anchors of its prompts, heaviest first; narrower rows are
        padded with index 0 and value 0.
    """
    count = len(_first_of_each(classes))
    rows, columns = np.nonzero(texts.values)
    cells = classes[rows] * texts.n + texts.indices[rows, columns]
    kept, place = np.unique(cells, return_inverse=True)
    sums = np.bincount(place, weights=texts.values[rows, columns], minlength=len(kept))
    owner, anchor = kept // texts.n, kept % texts.n
    order = np.lexsort((anchor, -sums, owner))
    sizes = np.bincount(owner, minlength=count)
    column = np.arange(len(kept)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    indices = np.zeros((count, sizes.max(initial=0)), dtype=np.int64)
    values = np.zeros(indices.shape)
    indices[owner, column], values[owner, column] = anchor[order], sums[order]
    values /= _or_one(np.sqrt(np.square(values).sum(axis=1)))
    return RelativeVectors(indices, values.astype(np.float32), texts.n)


def _first_of_each(classes: Int64Array) -> NDArray[np.intp]:
    steps = np.diff(classes, prepend=-1)
    if not np.isin(steps, (0, 1)).all() or (len(classes) and classes[0] != 0):
        raise InputError("classes of prompts must ascend from 0 without gaps")
    return np.flatnonzero(steps)


def single_vector(vectors: RelativeVectors, row: int) -> RelativeVectors:
    """Give one of m relative vectors."""
    at = slice(row, row + 1)
    return RelativeVectors(vectors.indices[at], vectors.values[at], vectors.n)


def attributions(image: RelativeVectors, text: RelativeVectors) -> tuple[Int64Array, Float64Array]:
    """Give each anchor's share of the score of one image and one text.

    Args:
        image: one relative vector over the anchors' images.
        text: one over the same anchors' texts.

    Returns:
        Anchors with a positive share and the shares, largest first (equal ones: the image's
        nearer neighbor first). The shares sum to the score.

    Raises:
        InputError: not exactly one of each.
        DimensionError: they refer to different numbers of anchors.
    """
    if len(image.values) != 1 or len(text.values) != 1:
        given = f"{len(image.values)} images and {len(text.values)} texts"
        raise InputError(f"attributions: expected one image and one text, got {given}")
    if image.n != text.n:
        raise DimensionError("relative vectors", text.n, image.n)
    mine, yours = image.values[0] > 0, text.values[0] > 0
    anchors, left, right = np.intersect1d(
        image.indices[0][mine], text.indices[0][yours], assume_unique=True, return_indices=True
    )
    shares = image.values[0][mine][left].astype(np.float64) * text.values[0][yours][right]
    order = np.lexsort((left, -shares))
    return anchors[order], shares[order]
