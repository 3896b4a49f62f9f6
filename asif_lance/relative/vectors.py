"""Relative vectors, scores and attributions: the arithmetic of ASIF, over plain arrays.

An item is described by its similarities to the k anchors most like it (paper, section 2). Images
are compared with the anchors' images and captions with their captions, so both descriptions run
over the same anchors and their dot product compares an image with a caption.

Sums are float64 and run in an order fixed by the items alone (an image's neighbors, best first),
so a score does not depend on the batch that it was computed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asif_lance.errors import DimensionError, InputError
from asif_lance.records import Float32Array, Float64Array, Int64Array, Neighbors, RelativeVectors
from asif_lance.search import going_without, loaded_kernels

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


def densify(vectors: RelativeVectors) -> Float32Array:
    """Relative vectors as a (m, n) matrix."""
    dense = np.zeros((len(vectors.values), vectors.n), dtype=np.float32)
    np.add.at(dense, (np.arange(len(dense))[:, None], vectors.indices), vectors.values)
    return dense


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Relative vectors of some consecutive texts, sorted by anchor.

    Attributes:
        anchors: (a,) int64, those that carry weight for any of the texts, ascending.
        starts: (a + 1,) int64, where each anchor's entries begin.
        values: (e,) float32, positive.
        texts: (e,) unsigned, as narrow as the count allows: the text of each entry, counted from
            the block's first, ascending within an anchor.
        count: of texts.
    """

    anchors: Int64Array
    starts: Int64Array
    values: Float32Array
    texts: NDArray[np.unsignedinteger]
    count: int

    def rows(self) -> Iterator[tuple[Int64Array, Float32Array]]:
        """Each text's anchors, ascending, and their values."""
        order = np.argsort(self.texts, kind="stable")
        anchors = np.repeat(self.anchors, np.diff(self.starts))[order]
        ends = np.cumsum(np.bincount(self.texts, minlength=self.count))[:-1]
        return zip(np.split(anchors, ends), np.split(self.values[order], ends), strict=True)


@dataclass(frozen=True, slots=True)
class CompiledTexts:
    """Relative vectors of t texts, laid out for scoring many images.

    An image touches only the entries of its own anchors. Nothing is as long as there are anchors.

    Attributes:
        blocks: the texts in order; they can be gone through again and again.
        n: number of anchor positions that they refer to.
    """

    blocks: Iterable[TextBlock]
    n: int

    @property
    def count(self) -> int:
        """The number of texts."""
        return sum(block.count for block in self.blocks)

    @property
    def anchors(self) -> Int64Array:
        """(a,) int64, the anchors that carry weight for any text, ascending."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(b.anchors for b in self.blocks)]))

    def vector(self, row: int) -> RelativeVectors:
        """One text's relative vector, one row, by ascending anchor and without zeros."""
        for block in self.blocks:
            if row < block.count:
                entries = np.flatnonzero(block.texts == row)
                anchors = block.anchors[np.searchsorted(block.starts, entries, side="right") - 1]
                return RelativeVectors(anchors[None], block.values[entries][None], self.n)
            row -= block.count
        raise IndexError("there are fewer texts")

    def vectors(self) -> RelativeVectors:
        """All texts' relative vectors, by ascending anchor; padded with index 0 and value 0."""
        rows = [row for block in self.blocks for row in block.rows()]
        width = max((len(values) for _, values in rows), default=0)
        indices = np.zeros((len(rows), width), dtype=np.int64)
        values = np.zeros((len(rows), width), dtype=np.float32)
        for i, (anchors, weights) in enumerate(rows):
            indices[i, : len(anchors)], values[i, : len(weights)] = anchors, weights
        return RelativeVectors(indices, values, self.n)


def compile_texts(texts: RelativeVectors) -> CompiledTexts:
    """Sort relative vectors by anchor, as one block."""
    return CompiledTexts([compile_block(texts)], texts.n)


def compile_block(texts: RelativeVectors) -> TextBlock:
    """Sort relative vectors by anchor."""
    rows, columns = np.nonzero(texts.values)
    anchors = texts.indices[rows, columns]
    order = np.argsort(anchors, kind="stable")
    used, starts = np.unique(anchors[order], return_index=True)
    return TextBlock(
        anchors=used,
        starts=np.append(starts, len(order)).astype(np.int64),
        values=texts.values[rows, columns][order],
        texts=rows[order].astype(np.min_scalar_type(len(texts.values))),
        count=len(texts.values),
    )


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
    if images.n != texts.n:
        raise DimensionError("relative vectors", texts.n, images.n)
    compiled = texts if isinstance(texts, CompiledTexts) else compile_texts(texts)
    order = np.argsort(images.indices, axis=None)
    parts = [_score_block(images, order, block) for block in compiled.blocks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _score_block(
    images: RelativeVectors, order: NDArray[np.intp], block: TextBlock
) -> Float64Array:
    """Score every image with the texts of one block: (m, count); `order` sorts the anchors."""
    place = np.empty(images.indices.shape, dtype=np.int64)
    # One after another they are found several times as fast.
    place.ravel()[order] = np.searchsorted(block.anchors, images.indices.ravel()[order])
    there = np.append(block.anchors, -1)[place] == images.indices
    starts, ends = block.starts[place], block.starts[place + there]
    result = np.zeros((len(images.values), block.count))
    kernels = loaded_kernels()
    if kernels is not None:
        values = np.ascontiguousarray(images.values)
        kernels.add_weighted_rows(values, starts, ends, block.values, block.texts, result)
        return result
    with going_without():
        sizes = ends - starts
        sizes[images.values == 0] = 0
        for start, stop in cut_runs(sizes.sum(axis=1), _CHUNK_PRODUCTS):
            at = slice(start, stop)
            result[at] = _sum_products(images.values[at], starts[at], sizes[at], block)
    return result


def cut_runs(sizes: Int64Array, most: int) -> list[tuple[int, int]]:
    """Cut items of these sizes into runs of at most `most` together, or of a single item."""
    cuts, total = [0], 0
    for i, size in enumerate(sizes.tolist()):
        total += size
        if total > most and i > cuts[-1]:
            cuts.append(i)
            total = size
    return list(zip(cuts, [*cuts[1:], len(sizes)], strict=True))


def _sum_products(
    values: Float32Array, starts: Int64Array, sizes: Int64Array, block: TextBlock
) -> Float64Array:
    flat = sizes.ravel()
    ends = np.cumsum(flat)
    within = np.arange(flat.sum()) - np.repeat(ends - flat, flat)
    entries = np.repeat(starts.ravel(), flat) + within
    products = np.repeat(values.ravel().astype(np.float64), flat) * block.values[entries]
    image = np.repeat(np.arange(len(values)), sizes.sum(axis=1))
    cells = image * block.count + block.texts[entries]
    # bincount adds one after another: per cell, in the order of the image's neighbors. So does the
    # compiled loop, and no product of two float32 numbers is rounded in float64.
    sums = np.bincount(cells, weights=products, minlength=len(values) * block.count)
    return sums.reshape(len(values), block.count).astype(np.float64, copy=False)


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
    # Added one after another: the norm does not depend on how wide the widest row is.
    norms = np.sqrt(np.bincount(owner, weights=np.square(sums[order]), minlength=count))
    values /= _or_one(norms)
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
