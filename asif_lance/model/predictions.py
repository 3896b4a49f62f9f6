"""One prediction, and the evidence that its scores are attributed to pairs from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.errors import InputError
from asif_lance.model.labels import LabelSet, best_prompt
from asif_lance.records import Attribution, Float32Array, Float64Array, Int64Array, RelativeVectors
from asif_lance.relative import Recipe, attributions


@dataclass(frozen=True, slots=True)
class Contributions:
    """The n pairs that add most to one label's score, largest first.

    Attributes:
        positions: (n,) int64, the pairs' positions among the anchors.
        pair_ids: n ids.
        image_similarities: (n,) float32, with the classified image, as the recipe measures them.
        text_similarities: (n,) float32, with the label's prompt, likewise.
        contributions: (n,) float64; all of them sum to the score.
    """

    positions: Int64Array
    pair_ids: list[str]
    image_similarities: Float32Array
    text_similarities: Float32Array
    contributions: Float64Array


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a prediction was computed from: enough to attribute any label's score to pairs.

    Attributes:
        anchors: the model version's anchors.
        labels: the label set that was scored.
        vector: (d,) float32, the image's embedding.
        similarities: (k or more,) float32, those with the nearest anchors, best first; none if they
            were not found by exact search.
        relative: the image's relative vector, one row.
        prompt_scores: (t,) score of each relative vector of the label set.
    """

    anchors: Anchors
    labels: LabelSet
    vector: Float32Array
    similarities: Float32Array
    relative: RelativeVectors
    prompt_scores: Float64Array

    def attributions(self, label: str, n: int) -> list[Attribution]:
        """The n pairs that add most to a label's score, largest first.

        Raises:
            InputError: the label is not in the label set, or n is below 1.
        """
        if n < 1:
            raise InputError(f"attributions: n must be at least 1, got {n}")
        found = self.contributions(label, n)
        pairs = self.anchors.rows(found.positions, ["pair_id", "caption", "captions"])
        numbers = zip(
            found.image_similarities, found.text_similarities, found.contributions, strict=True
        )
        return [
            Attribution(
                pair_id=pair["pair_id"],
                caption=pair["caption"],
                captions=tuple(pair["captions"] or [pair["caption"]]),
                label=label,
                image_similarity=float(image),
                text_similarity=float(text),
                contribution=float(share),
            )
            for pair, (image, text, share) in zip(pairs, numbers, strict=True)
        ]

    def contributions(self, label: str, n: int | None = None) -> Contributions:
        """The same as arrays, without captions; all pairs that add something when n is None.

        Raises:
            InputError: the label is not in the label set.
        """
        return self.contributions_of([label], n)[0]

    def contributions_of(self, labels: Sequence[str], n: int | None = None) -> list[Contributions]:
        """The same of several labels; pairs that they have in common are read once.

        Raises:
            InputError: a label is not in the label set.
        """
        rows = [self._best_prompt(label) for label in labels]
        compiled = map(self.labels.relative, rows)
        found = [attributions(self.relative, text) for text in compiled]
        positions, shares = [p[:n] for p, _ in found], [s[:n] for _, s in found]
        alike, measures = self.anchors.similarities, self.labels.recipe.measures
        queries = np.stack([self.labels.query(row) for row in rows])
        texts = alike("text", positions, queries, measure=measures[1])
        vectors = self.vector[None].repeat(len(rows), 0)
        images = alike("image", positions, vectors, measure=measures[0])
        names = iter(self.anchors.ids(np.concatenate(positions)))
        ids = [list(islice(names, len(p))) for p in positions]
        return list(map(Contributions, positions, ids, images, texts, shares))

    def _best_prompt(self, label: str) -> int:
        if label not in self.labels.names:
            raise InputError(f"label {label!r} is not in the label set")
        return best_prompt(self.prompt_scores, self.labels, self.labels.names.index(label))


class RankedLabels:
    """Every label with its score, best first; the base of predictions."""

    __slots__ = ()

    ranking: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The best label."""
        return self.ranking[0][0]

    @property
    def score(self) -> float:
        """The best label's score, in [0, 1]; 0 when no pair supports any label."""
        return self.ranking[0][1]


@dataclass(frozen=True, slots=True)
class Prediction(RankedLabels):
    """The prediction of one model version for one image.

    Attributes:
        image: the file or id as given.
        model: name of the model version.
        recipe: the recipe with the k and p that were used.
        ranking: every label with its score, best first; equal scores in the label set's order.
        evidence: what the scores were made of.
    """

    image: str
    model: str
    recipe: Recipe
    ranking: tuple[tuple[str, float], ...]
    evidence: Evidence = field(repr=False, compare=False)

    def attributions(self, n: int = 10, label: str | None = None) -> list[Attribution]:
        """The n pairs that add most to the score of `label`, by default the best label."""
        return self.evidence.attributions(self.label if label is None else label, n)
