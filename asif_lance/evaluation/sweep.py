"""Many k and p from one search: the nearest K hold the nearest k of every smaller k, in order.

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
from asif_lance.relative import Recipe, best_scores, relative_vectors
from asif_lance.relative import scores as relative_scores


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one search at the largest k found, for both sides.

    Attributes:
        n: anchor positions.
        images: (m, K) the nearest anchors of the images.
        texts: what the prompts found, by ensemble.
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
        return relative_vectors(nearest(self.images, k), p, self.n)

    def text_side(self, k: int, p: float, ensemble: Ensemble) -> LabelSet:
        """The label set at a smaller k."""
        prompts, found = self.texts[ensemble]
        own = replace(self.recipe, k=(self.recipe.k[0], k), p=(self.recipe.p[0], p))
        return build_label_set(prompts, nearest(found, k), own, self.n, self.version)

    def scores(
        self, k: tuple[int, int], p: tuple[float, float], ensemble: Ensemble
    ) -> Float64Array:
        """(m, c) scores of every image with every class."""
        return scores(self.image_side(k[0], p[0]), self.text_side(k[1], p[1], ensemble))


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
        images: what an earlier sweep with the same model and queries found; asked other prompts.
    """
    if images is None:
        images = model.anchors.top_k("image", queries, k[0], centred=model.recipe.centred)
    searched: dict[bool, Neighbors] = {}
    texts: dict[Ensemble, tuple[Prompts, Neighbors]] = {}
    for ensemble in ensembles:
        asked = average_prompts(replace(prompts, ensemble=ensemble))
        mean = ensemble == "mean-embedding"  # the others ask for every prompt, the same ones
        if mean not in searched:
            searched[mean] = find_prompt_neighbors(
                model.anchors, asked.vectors, k[1], centred=model.recipe.centred
            )
        texts[ensemble] = (asked, searched[mean])
    return Sweep(len(model.anchors), images, texts, model.version.name, model.recipe)


def scores(images: RelativeVectors, labels: LabelSet) -> Float64Array:
    """(m, c) scores of images with the classes of a label set."""
    return best_scores(relative_scores(images, labels.compiled), labels.owner)


def right(found: Float64Array, names: Sequence[str], truths: Sequence[str]) -> BoolArray:
    """(m,) whether the best of the (m, c) scores is the true class's; nothing said is not right."""
    best = np.array(names, dtype=object)[found.argmax(axis=1)]
    correct: BoolArray = (best == np.array(truths, dtype=object)) & (found.max(axis=1) > 0)
    return correct.astype(np.bool_)


def nearest(neighbors: Neighbors, k: int) -> Neighbors:
    """The first k of each query's neighbors."""
    return Neighbors(neighbors.indices[:, :k], neighbors.similarities[:, :k])
