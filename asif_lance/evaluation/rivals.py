"""Rivals: other ways to answer from the same pairs and vectors, to measure a model beside.

- `paper`: the authors' recipe.
- `CSA`: canonical similarity analysis (Li et al., "CSA: Data-efficient Mapping of Unimodal Features
  to Multimodal Features", ICLR 2025): both sides are mapped to their canonical variables, and
  compared by the cosine of the first of these, each weighted by its correlation.
- `Procrustes`: the rotation that brings the centred images nearest to their centred captions
  (Schönemann 1966), then the cosine.

Both maps mix all pairs into one matrix. They cannot say which pairs an answer rests on, and to
forget a pair exactly they have to be fitted again from all the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.evaluation.labelled_pictures import Labelled
from asif_lance.evaluation.sweep import check_scores, sweep
from asif_lance.model import Model, Prompts, average_prompts
from asif_lance.records import BoolArray, Float32Array, Float64Array
from asif_lance.relative import best_scores, make_recipe
from asif_lance.relative.recipes import PAPER

#: Canonical variables that are compared, as in the authors' code unless told otherwise.
VARIABLES = 150

_ROWS = 2**14  # pairs summed at once
_LEAST_VARIANCE = 1e-6  # of the largest; directions with less are noise of rounding to float16


@dataclass(frozen=True, slots=True)
class Moments:
    """Means and covariances of n pairs, d image and e caption dimensions.

    Attributes:
        image_mean: (d,).
        text_mean: (e,).
        image: (d, d) covariance of the images.
        text: (e, e) that of the captions.
        cross: (d, e) that of images and captions.
    """

    image_mean: Float64Array
    text_mean: Float64Array
    image: Float64Array
    text: Float64Array
    cross: Float64Array


@dataclass(frozen=True, slots=True)
class LinearMap:
    """A space that both sides are mapped into.

    Attributes:
        moments: whose means are taken off first.
        image: (d, s) maps images.
        text: (e, s) maps texts.
        weights: (s,) of the dimensions in the product of unit vectors.
    """

    moments: Moments
    image: Float64Array
    text: Float64Array
    weights: Float64Array

    def compare(self, images: Float32Array, texts: Float32Array) -> Float64Array:
        """(m, t) similarities of images and texts."""
        left = _unit((images - self.moments.image_mean) @ self.image)
        right = _unit((texts - self.moments.text_mean) @ self.text)
        return np.asarray((left * self.weights) @ right.T, dtype=np.float64)


def check_rivals(model: Model, labelled: Labelled, prompts: Prompts) -> dict[str, BoolArray]:
    """(m,) which labelled pictures each rival gets right, on the version's own pairs.

    Several prompts of a class are asked as the model asks them; of `mean-relative`, which needs
    relative vectors, the best prompt counts.
    """
    moments = measure_moments(model.anchors)
    asked = average_prompts(prompts)
    found = {PAPER.name: _check_paper(model, labelled, prompts)}
    for name, fitted in (("CSA", fit_csa(moments)), ("Procrustes", fit_procrustes(moments))):
        scores = best_scores(fitted.compare(labelled.queries, asked.vectors), asked.owner)
        answered = scores - scores.min() + 1  # these similarities may be negative and yet answer
        found[name] = check_scores(answered, asked.names, labelled.truths)
    return found


def _check_paper(model: Model, labelled: Labelled, prompts: Prompts) -> BoolArray:
    recipe = make_recipe(PAPER.name)
    found = sweep(model.under(recipe), labelled.queries, prompts, recipe.k, (prompts.ensemble,))
    scores = found.scores(recipe.k, recipe.p, prompts.ensemble)
    return check_scores(scores, prompts.names, labelled.truths)


def fit_csa(moments: Moments, variables: int = VARIABLES) -> LinearMap:
    """The canonical variables of both sides and their correlations, in closed form."""
    image, text = _inverse_root(moments.image), _inverse_root(moments.text)
    left, correlations, right = np.linalg.svd(image @ moments.cross @ text, full_matrices=False)
    kept = slice(min(variables, len(correlations)))
    return LinearMap(
        moments, image @ left[:, kept], text @ right[kept].T, np.clip(correlations[kept], 0, 1)
    )


def fit_procrustes(moments: Moments) -> LinearMap:
    """The orthogonal map between both sides; the narrower one is as if padded with zeros."""
    left, _, right = np.linalg.svd(moments.cross, full_matrices=False)
    return LinearMap(moments, left, right.T, np.ones(left.shape[1]))


def measure_moments(anchors: Anchors) -> Moments:
    """Means and covariances of a version's pairs, a block of them at a time."""
    count, sums, products = 0, [np.zeros(())] * 2, [np.zeros(())] * 3
    for image, text in _blocks(anchors):
        count += len(image)
        sums = [total + side.sum(axis=0) for total, side in zip(sums, (image, text), strict=True)]
        new = image.T @ image, text.T @ text, image.T @ text
        products = [total + part for total, part in zip(products, new, strict=True)]
    image_mean, text_mean = (total / count for total in sums)
    outer = (
        np.outer(one, other)
        for one, other in (
            (image_mean, image_mean),
            (text_mean, text_mean),
            (image_mean, text_mean),
        )
    )
    covariances = (p / count - o for p, o in zip(products, outer, strict=True))
    return Moments(image_mean, text_mean, *covariances)


def _blocks(anchors: Anchors) -> Iterator[tuple[Float64Array, Float64Array]]:
    live = np.flatnonzero(anchors.live)
    for start in range(0, len(live), _ROWS):
        at = live[start : start + _ROWS]
        image, text = (anchors.vectors(side, at).astype(np.float64) for side in ("image", "text"))
        yield image, text


def _inverse_root(covariance: Float64Array) -> Float64Array:
    """C^(-1/2) where C has variance, 0 elsewhere."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > _LEAST_VARIANCE * max(values[-1], 0.0)
    return np.asarray((vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T)


def _unit(vectors: Float64Array) -> Float64Array:
    sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(sizes > 0, sizes, 1.0))
