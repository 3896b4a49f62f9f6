"""Several models that answer as one: databases with encoders of their own, asked the same labels.

together = asif_lance.Together({"small": asif_lance.open("a"), "large": asif_lance.open("b")})
labels = together.labels(["cat", "dog"])
for p in together.classify(["photo.jpg"], labels):
print(p.label, p.score, [part.label for part in p.parts], p.attributions(10))

The joint score of a label is the mean of the models' scores, which is the score of one ASIF model
whose relative vectors are theirs side by side with equal weights. So it is in [0, 1] too, and the
pairs' contributions to it sum to it: each is its contribution in its own model, divided by the
number of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from asif_lance.arguments import COUNT, LIST, MAPPING, takes
from asif_lance.encoders import (
    ImageFile,
    PicturesInput,
    encode_each,
    expand_folders,
    iterate_pictures,
    picture_name,
    reject_picture,
    to_image_item,
)
from asif_lance.errors import ImageError, InputError
from asif_lance.model.labels import Ensemble, LabelSet, NamesInput
from asif_lance.model.model import SEARCH_BATCH, Model
from asif_lance.model.prediction_lists import Predictions
from asif_lance.model.predictions import Prediction, RankedLabels
from asif_lance.progress import track
from asif_lance.records import Attribution, EncoderPin, Float32Array, Reject


@dataclass(frozen=True, slots=True)
class JointPrediction(RankedLabels):
    """The joint prediction of several models for one image.

    Attributes:
        image: the file or id as given.
        ranking: every label with its joint score, best first; equal ones in the label set's order.
        names: of the models.
        parts: the prediction of each of them alone, in the same order.
    """

    image: str
    ranking: tuple[tuple[str, float], ...]
    names: tuple[str, ...]
    parts: tuple[Prediction, ...] = field(repr=False)

    @property
    def model(self) -> str:
        """The models' names in one word."""
        return " + ".join(self.names)

    @takes(top=COUNT.or_none)
    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """The joint answer, and in `models` what each model says alone."""
        parts = zip(self.names, self.parts, strict=True)
        alone = [{**part.answer(top), "model": name} for name, part in parts]
        return {
            "image": self.image,
            "model": self.model,
            "predictions": self.ranked(top),
            "models": alone,
        }

    @takes(n=COUNT)
    def attributions(self, n: int = 10, label: str | None = None) -> list[tuple[str, Attribution]]:
        """The n pairs of any model that add most to the joint score of `label`, and whose they are.

        By default of the best label. The contributions of all pairs sum to the joint score.

        Raises:
            InputError: the label is not in the label set, or n is below 1.
        """
        label = self.label if label is None else label
        found = [
            (name, replace(pair, contribution=pair.contribution / len(self.parts)))
            for name, part in zip(self.names, self.parts, strict=True)
            for pair in part.attributions(n, label)
        ]
        return sorted(found, key=lambda entry: -entry[1].contribution)[:n]


class Together:
    """Models that answer as one; reading is safe from several threads.

    Attributes:
        models: by name, as results tell them apart.
    """

    @takes(models=MAPPING)
    def __init__(self, models: Mapping[str, Model]) -> None:
        """Join models, each bound to its version and recipe.

        Args:
            models: what results call each, and the models.

        Raises:
            InputError: fewer than two.
        """
        if len(models) < 2:
            raise InputError(f"together takes at least two models, got {len(models)}")
        self.models = dict(models)

    def __repr__(self) -> str:
        """One line, with the models' names."""
        return f"Together({', '.join(map(repr, self.models))})"

    def labels(
        self,
        names: NamesInput,
        templates: str | Sequence[str] | None = None,
        ensemble: Ensemble | None = None,
    ) -> tuple[LabelSet, ...]:
        """Compile class names × templates against each model, in the models' order.

        Args and errors are those of `Model.labels`.
        """
        return tuple(model.labels(names, templates, ensemble) for model in self.models.values())

    @takes(rejects=LIST.or_none)
    def classify(
        self,
        images: PicturesInput,
        labels: Sequence[LabelSet],
        *,
        rejects: list[Reject] | None = None,
    ) -> Predictions[JointPrediction]:
        """Classify pictures, in order, in batches.

        Args:
            images: one or several, as `Model.classify` takes them.
            labels: from `labels`.
            rejects: gathers the pictures that some model cannot use; without it the first raises.

        Raises:
            ImageError: a picture cannot be used and `rejects` was not given.
            InputError: label sets of other models, or of different labels.
        """
        items = expand_folders(iterate_pictures(images), rejects)
        return Predictions(self._classify_chunks(items, labels, rejects))

    def _classify_chunks(
        self,
        items: Iterator[ImageFile],
        labels: Sequence[LabelSet],
        rejects: list[Reject] | None,
    ) -> Iterator[JointPrediction]:
        while chunk := list(islice(items, SEARCH_BATCH)):
            kept, vectors = self.encode(chunk, rejects=rejects)
            yield from self.classify_vectors(
                [picture_name(chunk[i]) for i in kept], vectors, labels
            )

    def encode(
        self, images: Sequence[ImageFile], *, rejects: list[Reject] | None = None
    ) -> tuple[list[int], tuple[Float32Array, ...]]:
        """Embed pictures with every model's image encoder; all must be able to use a picture.

        Returns:
            The g positions of the usable pictures, and (g, d) float32 for each model.

        Raises:
            ImageError: a picture cannot be used and `rejects` was not given.
        """
        found: dict[EncoderPin, list[Float32Array | ImageError]] = {}
        for model in self.models.values():
            if model.store.image not in found:
                items = map(to_image_item, images)
                encoded = encode_each(model.image_encoder, items)
                found[model.store.image] = list(track("encode pictures", encoded, len(images)))
        kept = []
        for i, rows in enumerate(zip(*found.values(), strict=True)):
            fault = next((row for row in rows if isinstance(row, ImageError)), None)
            if fault is None:
                kept.append(i)
            else:
                reject_picture(images[i], fault, rejects)
        pins = [model.store.image for model in self.models.values()]
        return kept, tuple(_matrix([found[pin][i] for i in kept], pin.dimension) for pin in pins)

    def classify_vectors(
        self, ids: Sequence[str], vectors: Sequence[Float32Array], labels: Sequence[LabelSet]
    ) -> Iterator[JointPrediction]:
        """Classify m image embeddings, (m, d) float32 for each model, in the models' order.

        Raises:
            DimensionError, InvalidVectorError: vectors that cannot be compared.
            InputError: label sets of other models, or of different labels.
        """
        if len({label_set.names for label_set in labels}) > 1:
            raise InputError("models answer together only over the same labels in the same order")
        answers = [
            model.classify_vectors(ids, queries, label_set)
            for model, queries, label_set in zip(self.models.values(), vectors, labels, strict=True)
        ]
        for parts in zip(*answers, strict=True):
            yield join_predictions(tuple(self.models), parts)


def join_predictions(names: tuple[str, ...], parts: tuple[Prediction, ...]) -> JointPrediction:
    """One answer of several models' predictions for one image, over the same labels."""
    labels = parts[0].evidence.labels.names
    rankings = [dict(part.ranking) for part in parts]
    scores = np.array([[ranking[label] for label in labels] for ranking in rankings]).mean(axis=0)
    order = np.argsort(-scores, kind="stable")
    ranking = tuple((labels[i], float(scores[i])) for i in order)
    return JointPrediction(parts[0].image, ranking, names, parts)


def _matrix(rows: Sequence[object], dimension: int) -> Float32Array:
    return np.array(rows, dtype=np.float32).reshape(len(rows), dimension)
