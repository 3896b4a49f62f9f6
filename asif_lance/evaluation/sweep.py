"""Scores at many k and p from one search: the nearest K hold the nearest k of any smaller k.

Scores are those of `Model.classify_vectors` with the same k and p, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from asif_lance.model import (
    Ensemble,
    LabelSet,
    Model,
    Prompts,
    average_prompts,
    build_label_set,
    find_prompt_neighbors,
)
from asif_lance.records import BoolArray, Float32Array, Float64Array, Neighbors, RelativeVectors
from asif_lance.relative import Recipe, best_scores, relative_vectors, scores


@dataclass(frozen=True, slots=True)
class Sweep:
    """The neighbors that one search at the largest k found, for both sides.

    Attributes:
        n: anchor positions.
        images: (m, K) the nearest anchors of the images.
        texts: the prompts of each ensemble and their nearest captions.
        version: the model version's name.
        recipe: how both sides were compared; its own k and p do not matter.
    """

    n: int
    images: Neighbors
    texts: dict[Ensemble, tuple[Prompts, Neighbors]]
    version: str
    recipe: Recipe

    def image_side(self, k: int, p: float) -> RelativeVectors:
        """The images' relative vectors at a smaller k."""
        return relative_vectors(_cut(self.images, k), p, self.n)

    def text_side(self, k: int, p: float, ensemble: Ensemble) -> LabelSet:
        """The label set at a smaller k."""
        prompts, neighbors = self.texts[ensemble]
        recipe = replace(self.recipe, k=(self.recipe.k[0], k), p=(self.recipe.p[0], p))
        return build_label_set(prompts, _cut(neighbors, k), recipe, self.n, self.version)

    def scores(
        self, k: tuple[int, int], p: tuple[float, float], ensemble: Ensemble
    ) -> Float64Array:
        """(m, c) scores of every image with every class."""
        return score_labels(self.image_side(k[0], p[0]), self.text_side(k[1], p[1], ensemble))


def sweep(
    model: Model,
    queries: Float32Array,
    prompts: Prompts,
    k: tuple[int, int],
    ensembles: Sequence[Ensemble] = get_args(Ensemble),
    *,
    images: Neighbors | None = None,
) -> Sweep:
    """Search both sides once, at the largest k that will be asked for.

    Args:
        model: whose recipe says how to compare; its own k and p do not matter.
        queries: (m, d) float32 unit vectors of images.
        prompts: what is asked.
        k: the largest k of the image and of the text side.
        ensembles: those that will be asked for.
        images: `Sweep.images` of the same model and queries, to search for other prompts only.
    """
    if images is None:
        images = model.anchors.top_k("image", queries, k[0], measure=model.recipe.measures[0])
    searched: dict[bool, Neighbors] = {}
    texts: dict[Ensemble, tuple[Prompts, Neighbors]] = {}
    for ensemble in ensembles:
        asked = average_prompts(replace(prompts, ensemble=ensemble))
        mean = ensemble == "mean-embedding"  # the others ask for every prompt, the same ones
        if mean not in searched:
            searched[mean] = find_prompt_neighbors(
                model.anchors, asked.vectors, k[1], measure=model.recipe.measures[1]
            )
        texts[ensemble] = (asked, searched[mean])
    return Sweep(len(model.anchors), images, texts, model.version.name, model.recipe)


def score_labels(images: RelativeVectors, labels: LabelSet) -> Float64Array:
    """(m, c) scores of images with the classes of a label set."""
    return best_scores(scores(images, labels.compiled), labels.owner)


def check_scores(found: Float64Array, names: Sequence[str], truths: Sequence[str]) -> BoolArray:
    """(m,) whether the best of the (m, c) scores is the true class's; a score of 0 is no answer."""
    best = np.array(names, dtype=object)[found.argmax(axis=1)]
    correct: BoolArray = (best == np.array(truths, dtype=object)) & (found.max(axis=1) > 0)
    return correct.astype(np.bool_)


def _cut(neighbors: Neighbors, k: int) -> Neighbors:
    return Neighbors(neighbors.indices[:, :k], neighbors.similarities[:, :k])
