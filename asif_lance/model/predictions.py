"""One prediction, and the evidence that its scores are attributed to pairs from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.arguments import COUNT, takes
from asif_lance.errors import InputError
from asif_lance.model.labels import LabelSet, best_prompt
from asif_lance.model.notebook import draw_labels, draw_pairs
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
        pairs = self.anchors.rows(found.positions, ["pair_id", "caption", "captions", "role"])
        numbers = zip(
            found.image_similarities, found.text_similarities, found.contributions, strict=True
        )
        return [
            Attribution(
                pair_id=pair["pair_id"],
                caption=pair["caption"],
                captions=tuple(pair["captions"] or [pair["caption"]]),
                role=pair["role"],
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
        found = [self._shares(row) for row in rows]
        positions, shares = [p[:n] for p, _ in found], [s[:n] for _, s in found]
        alike, measures = self.anchors.similarities, self.labels.recipe.measures
        queries = np.stack([self.labels.query(row) for row in rows])
        texts = alike("text", positions, queries, measure=measures[1])
        vectors = self.vector[None].repeat(len(rows), 0)
        images = alike("image", positions, vectors, measure=measures[0])
        self._compare_examples(positions, images, texts, queries)
        names = iter(self.anchors.ids(np.concatenate(positions)))
        ids = [list(islice(names, len(p))) for p in positions]
        return list(map(Contributions, positions, ids, images, texts, shares))

    def shares(self, label: str) -> tuple[Int64Array, Float64Array]:
        """Positions and shares of the pairs that add to a label's score, largest first.

        The same as `contributions`, without what has to be read or compared for it.
        """
        return self._shares(self._best_prompt(label))

    def text(self, label: str) -> RelativeVectors:
        """The relative vector, one row, of the prompt that gave a label its score."""
        return self.labels.relative(self._best_prompt(label))

    def _shares(self, row: int) -> tuple[Int64Array, Float64Array]:
        """The pairs that add something to the score of one prompt's label, largest share first."""
        positions, shares = attributions(self.relative, self.labels.relative(row))
        taught = self.labels.taught
        if taught is None:
            return positions, shares
        teaching, label = taught.teaching, int(self.labels.owner[row])
        members, own = teaching.shares(self.vector, label)
        members, own = members[own != 0], own[own != 0]
        positions = np.concatenate([positions, taught.positions[members]])
        shares = np.concatenate([(1.0 - teaching.weight) * shares, own])
        kept = np.flatnonzero(shares)
        order = kept[np.argsort(-shares[kept], kind="stable")]
        return positions[order], shares[order]

    def _compare_examples(
        self,
        positions: Sequence[Int64Array],
        images: Sequence[Float32Array],
        texts: Sequence[Float32Array],
        queries: Float32Array,
    ) -> None:
        """Put the examples' own similarities in: the recipe measures those of ordinary pairs."""
        taught = self.labels.taught
        if taught is None:
            return
        for at, image, text, query in zip(positions, images, texts, queries, strict=True):
            there = np.flatnonzero(np.isin(at, taught.positions))
            vectors = self.anchors.vectors("image", at[there])
            image[there] = taught.teaching.cosines(self.vector, vectors)
            text[there] = self.anchors.vectors("text", at[there]) @ query

    def _best_prompt(self, label: str) -> int:
        if label not in self.labels.names:
            raise InputError(f"label {label!r} is not in the label set")
        return best_prompt(self.prompt_scores, self.labels, self.labels.names.index(label))


class RankedLabels:
    """Every label with its score, best first; the base of predictions."""

    __slots__ = ()

    image: str
    ranking: Sequence[tuple[str, float]]

    @property
    def label(self) -> str:
        """The best label."""
        return self.ranking[0][0]

    @property
    def score(self) -> float:
        """The best label's score, in [0, 1]; 0 when no pair supports any label."""
        return self.ranking[0][1]

    def ranked(self, top: int | None = None) -> list[dict[str, Any]]:
        """The `top` best labels as JSON has them, all by default."""
        return [{"label": label, "score": score} for label, score in self.ranking[:top]]

    def _repr_html_(self) -> str:
        return draw_labels(self.image, self.ranking)


@dataclass(frozen=True, slots=True, repr=False)
class Prediction(RankedLabels):
    """The prediction of one model version for one image.

    Attributes:
        image: the file or id as given.
        model: name of the model version.
        recipe: the recipe with the k and p that were used.
        ranking: every label with its score, best first; equal scores in the label set's order.
        made_of: see `evidence`; nothing after pickling, since it is the model itself.
    """

    image: str
    model: str
    recipe: Recipe
    ranking: Sequence[tuple[str, float]]
    made_of: Evidence | None = field(default=None, repr=False, compare=False)

    @property
    def evidence(self) -> Evidence:
        """What the scores were made of.

        Raises:
            InputError: the prediction was pickled, which keeps the answer but not the model.
        """
        if self.made_of is None:
            raise InputError(
                "this prediction was pickled without its model: classify the picture again"
            )
        return self.made_of

    @takes(top=COUNT.or_none)
    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """The prediction as `classify --format json` prints it, of the `top` best labels."""
        return {"image": self.image, **self.answer(top)}

    def answer(self, top: int | None = None) -> dict[str, Any]:
        """The same without the image."""
        k, p = self.recipe.k, self.recipe.p
        return {
            "model": self.model,
            "recipe": self.recipe.name,
            "k": k[0] if k[0] == k[1] else list(k),
            "p": p[0] if p[0] == p[1] else list(p),
            "predictions": self.ranked(top),
        }

    def __repr__(self) -> str:
        """One line, with the best label alone."""
        return f"Prediction({self.image!r}: {self.label!r} {self.score:.4f}, model {self.model!r})"

    def _repr_html_(self) -> str:
        return draw_labels(self.image, self.ranking) + draw_pairs(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the answer; the model stays where it is."""
        return Prediction, (self.image, self.model, self.recipe, self.ranking)

    @takes(n=COUNT)
    def attributions(self, n: int = 10, label: str | None = None) -> list[Attribution]:
        """The n pairs that add most to the score of `label`, by default the best label."""
        return self.evidence.attributions(self.label if label is None else label, n)
