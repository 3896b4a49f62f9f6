"""Many k and p from one search: the nearest K hold the nearest k of every smaller k, in order.

Scores are those of `Model.classify_vectors` with the same k and p, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from asif_lance.labels import Ensemble, LabelSet, Prompts, assemble, one_embedding_per_class
from asif_lance.model import Model
from asif_lance.prompt_neighbors import prompt_neighbors
from asif_lance.records import Neighbors, RelativeVectors
from asif_lance.relative import best_scores, relative_vectors
from asif_lance.relative import scores as relative_scores


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one search at the largest k found, for both sides.

    Attributes:
        n: anchor positions.
        images: (m, K) the nearest anchors of the images.
        texts: what the prompts found, by ensemble.
        version: the model version's name.
    """

    n: int
    images: Neighbors
    texts: dict[Ensemble, tuple[Prompts, Neighbors]]
    version: str

    def image_side(self, k: int, p: float) -> RelativeVectors:
        """The images' relative vectors at a smaller k."""
        return relative_vectors(nearest(self.images, k), p, self.n)

    def text_side(self, k: int, p: float, ensemble: Ensemble) -> LabelSet:
        """The label set at a smaller k."""
        prompts, found = self.texts[ensemble]
        return assemble(prompts, nearest(found, k), p, self.n, self.version)

    def scores(
        self, k: tuple[int, int], p: tuple[float, float], ensemble: Ensemble
    ) -> NDArray[np.float64]:
        """(m, c) scores of every image with every class."""
        return scores(self.image_side(k[0], p[0]), self.text_side(k[1], p[1], ensemble))


def sweep(
    model: Model,
    queries: NDArray[np.float32],
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
        images = model.anchors.top_k("image", queries, k[0])
    searched: dict[bool, Neighbors] = {}
    texts: dict[Ensemble, tuple[Prompts, Neighbors]] = {}
    for ensemble in ensembles:
        asked = one_embedding_per_class(replace(prompts, ensemble=ensemble))
        mean = ensemble == "mean-embedding"  # the others ask for every prompt, the same ones
        if mean not in searched:
            searched[mean] = prompt_neighbors(model.anchors, asked.vectors, k[1])
        texts[ensemble] = (asked, searched[mean])
    return Sweep(len(model.anchors), images, texts, model.version.name)


def scores(images: RelativeVectors, labels: LabelSet) -> NDArray[np.float64]:
    """(m, c) scores of images with the classes of a label set."""
    return best_scores(relative_scores(images, labels.compiled), labels.owner)


def right(
    found: NDArray[np.float64], names: Sequence[str], truths: Sequence[str]
) -> NDArray[np.bool_]:
    """(m,) whether the best of the (m, c) scores is the true class's; nothing said is not right."""
    best = np.array(names, dtype=object)[found.argmax(axis=1)]
    correct: NDArray[np.bool_] = (best == np.array(truths, dtype=object)) & (found.max(axis=1) > 0)
    return correct.astype(np.bool_)


def nearest(neighbors: Neighbors, k: int) -> Neighbors:
    """The first k of each query's neighbors."""
    return Neighbors(neighbors.indices[:, :k], neighbors.similarities[:, :k])
