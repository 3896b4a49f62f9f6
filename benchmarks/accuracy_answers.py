"""What each way of answering gets right on each test set, beside the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from accuracy_sets import Part, TestSet
from numpy.typing import NDArray

from asif_lance.evaluation import bootstrap_mean, share_interval
from asif_lance.evaluation.sweep import check_scores, sweep
from asif_lance.model import Ensemble, Prompts
from asif_lance.records import BoolArray, Neighbors
from asif_lance.relative import Recipe
from asif_lance.relative.recipes import PAPER


@dataclass(frozen=True)
class Way:
    """One way to answer."""

    recipe: Recipe
    templates: str = "single"
    ensemble: Ensemble = "max"


@dataclass(frozen=True)
class Cell:
    """One way on one test set, beside the reference on the same pictures."""

    top_1: float
    interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]


REFERENCE = Way(PAPER)


class Answers:
    """What each way gets right on each set; images are searched once per model and recipe."""

    def __init__(self) -> None:
        self._images: dict[tuple[Part, str], Neighbors] = {}
        self._prompts: dict[tuple[tuple[str, ...], str], Prompts] = {}
        self._correct: dict[tuple[str, Way], BoolArray] = {}

    def prompts(self, part: Part, templates: str) -> Prompts:
        """The classes × templates, embedded once."""
        key = part.labels, templates
        if key not in self._prompts:
            self._prompts[key] = part.model.prompts(part.labels, templates)
        return self._prompts[key]

    def scores(self, part: Part, way: Way) -> NDArray[np.float64]:
        """(m, c) scores of a part's pictures."""
        model, key = part.model.under(way.recipe), (part, way.recipe.name)
        found = sweep(
            model,
            part.labelled.queries,
            self.prompts(part, way.templates),
            way.recipe.k,
            (way.ensemble,),
            images=self._images.get(key),
        )
        self._images[key] = found.images
        return found.scores(way.recipe.k, way.recipe.p, way.ensemble)

    def check(self, test: TestSet, way: Way) -> BoolArray:
        """Which pictures of a set are right, all parts in order."""
        if (test.name, way) not in self._correct:
            self._correct[test.name, way] = np.concatenate(
                [check_scores(self.scores(p, way), p.labels, p.labelled.truths) for p in test.parts]
            )
        return self._correct[test.name, way]

    def cell(self, test: TestSet, way: Way) -> Cell:
        """A way beside the reference."""
        return beside(self.check(test, way), self.check(test, REFERENCE))


def beside(correct: BoolArray, reference: BoolArray) -> Cell:
    """Accuracy with its interval, and the difference with its paired one."""
    gains = correct.astype(np.int64) - reference
    return Cell(
        float(correct.mean()), share_interval(correct), float(gains.mean()), bootstrap_mean(gains)
    )
