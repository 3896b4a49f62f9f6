"""How good a model is on labelled pictures, beside what costs nothing, and against another one.

Intervals are percentile bootstraps over pictures, with a fixed seed; versions are compared picture
by picture (paired bootstrap of the difference, exact McNemar test).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from asif_lance.errors import InputError
from asif_lance.evaluation.calibration import Bin, calibration_error, reliability, shares
from asif_lance.evaluation.labelled_pictures import Labelled
from asif_lance.evaluation.statistics import Interval, bootstrap, mcnemar
from asif_lance.model import JointPrediction, LabelSet, Model, Prediction, Prompts, Together
from asif_lance.records import BoolArray, Float64Array, Reject


class Answer(Protocol):
    """What one model, or several together, say of one image: all that accuracy depends on."""

    @property
    def image(self) -> str:
        """The file or id as given."""
        ...

    @property
    def model(self) -> str:
        """What the model is called."""
        ...

    @property
    def ranking(self) -> tuple[tuple[str, float], ...]:
        """Every label with its score, best first."""
        ...

    @property
    def label(self) -> str:
        """The best label."""
        ...

    @property
    def score(self) -> float:
        """Its score; 0 says nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Zero-shot accuracy of one way to answer; shares are in [0, 1].

    Attributes:
        model: what answered.
        pictures: how many were classified.
        labels: how many labels could be chosen from.
        top_1: share whose best label is the true one.
        interval: 95 % bootstrap interval of `top_1`.
        top_5: share with the true label among the best five.
        mean_per_class: `top_1` of each class, averaged over classes.
        chance: 1 / labels.
        most_frequent: what always answering the most frequent class would score.
        classes: (class, pictures, `top_1`) by name.
        confusions: (truth, answer, pictures) of the wrong answers, most frequent first.
        calibration_error: expected calibration error of the best score's share; see `calibration`.
        reliability: the bins that it is made of.
    """

    model: str
    pictures: int
    labels: int
    top_1: float
    interval: Interval
    top_5: float
    mean_per_class: float
    chance: float
    most_frequent: float
    classes: tuple[tuple[str, int, float], ...]
    confusions: tuple[tuple[str, str, int], ...]
    calibration_error: float
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Evaluation(Accuracy):
    """Accuracy of one model version, how it answered, and a baseline of its own.

    Attributes:
        recipe: the recipe's name.
        k: anchors kept, (image side, text side).
        p: power of similarities, likewise.
        templates: the named set or the templates; empty for brought label vectors.
        ensemble: how a class's prompts became one score.
        nearest_caption: what the label nearest to the caption of the nearest picture scores.
    """

    recipe: str
    k: tuple[int, int]
    p: tuple[float, float]
    templates: str
    ensemble: str
    nearest_caption: float


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two models on the same pictures.

    Attributes:
        first: a model version.
        second: the other one.
        difference: accuracy of the second minus that of the first.
        interval: 95 % paired bootstrap interval of the difference.
        only_first: pictures that only the first got right.
        only_second: pictures that only the second got right.
        p_value: two-sided exact McNemar test (binomial over the pictures that differ).
    """

    first: str
    second: str
    difference: float
    interval: Interval
    only_first: int
    only_second: int
    p_value: float


def predict(model: Model, labelled: Labelled, prompts: Prompts) -> list[Prediction]:
    """Classify labelled pictures, encoded before, in order.

    Raises:
        DimensionError, InvalidVectorError: vectors that cannot be compared.
    """
    names, vectors = labelled.names, labelled.embeddings
    return list(model.classify_vectors(names, vectors, model.compile(prompts)))


def predict_together(
    together: Together,
    labelled: Labelled,
    labels: Sequence[LabelSet],
    rejects: list[Reject] | None = None,
) -> tuple[list[JointPrediction], tuple[str, ...]]:
    """Classify labelled pictures with several models as one.

    Returns:
        Their answers and the true classes, in order, less the pictures that are unusable.

    Raises:
        ImageError: a picture cannot be used and `rejects` was not given.
        InputError: vectors were brought instead of pictures: they are of one encoder.
    """
    if not labelled.images:
        raise InputError("vectors are of one encoder: models answer together about pictures")
    kept, vectors = together.encode(labelled.images, rejects=rejects)
    known = labelled.take(np.array(kept, dtype=np.int64))
    return list(together.classify_vectors(known.names, vectors, labels)), known.truths


def evaluate(predictions: Sequence[Prediction], truths: Sequence[str]) -> Evaluation:
    """Score predictions of one model against the true labels, in the same order.

    Raises:
        InputError: no predictions, another number of truths, or a truth that is no label.
    """
    measured = accuracy(predictions, truths)
    nearest = [nearest_caption(p) == t for p, t in zip(predictions, truths, strict=True)]
    used, asked = predictions[0].recipe, predictions[0].evidence.labels.prompts
    return Evaluation(
        **{field.name: getattr(measured, field.name) for field in fields(Accuracy)},
        recipe=used.name,
        k=used.k,
        p=used.p,
        templates=asked.templates,
        ensemble=asked.ensemble,
        nearest_caption=float(np.mean(nearest)),
    )


def accuracy(answers: Sequence[Answer], truths: Sequence[str]) -> Accuracy:
    """Score answers of one model, or of several together, as `evaluate` does.

    Raises:
        InputError: no answers, another number of truths, or a truth that is no label.
    """
    if not answers or len(answers) != len(truths):
        raise InputError(f"{len(answers)} predictions for {len(truths)} labelled pictures")
    labels = [name for name, _ in answers[0].ranking]
    unknown = sorted(set(truths) - set(labels))
    if unknown:
        raise InputError(f"the class {unknown[0]!r} is not among the {len(labels)} labels")
    right = hits(answers, truths)
    among = [t in [n for n, _ in p.ranking[:5]] for p, t in zip(answers, truths, strict=True)]
    classes = _per_class(right, truths)
    bins = reliability(confidence(answers), right)
    return Accuracy(
        model=answers[0].model,
        pictures=len(right),
        labels=len(labels),
        top_1=float(right.mean()),
        interval=bootstrap(right),
        top_5=float(np.mean(among)),
        mean_per_class=float(np.mean([share for _, _, share in classes])),
        chance=1 / len(labels),
        most_frequent=max(Counter(truths).values()) / len(truths),
        classes=classes,
        confusions=_confusions(answers, truths),
        calibration_error=calibration_error(bins),
        reliability=bins,
    )


def compare(
    first: Sequence[Answer], second: Sequence[Answer], truths: Sequence[str]
) -> PairedComparison:
    """Compare two models that have classified the same pictures in the same order.

    Raises:
        InputError: they have not.
    """
    if [p.image for p in first] != [p.image for p in second] or len(first) != len(truths):
        raise InputError("only models that classified the same pictures can be compared")
    names = first[0].model, second[0].model
    return compare_hits(names, hits(first, truths), hits(second, truths))


def compare_hits(names: tuple[str, str], one: BoolArray, other: BoolArray) -> PairedComparison:
    """Compare two models by what each got right of the same pictures, (m,) each."""
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    gained = other.astype(np.float64) - one
    return PairedComparison(
        first=names[0],
        second=names[1],
        difference=float(gained.mean()),
        interval=bootstrap(gained),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar(only_first, only_second),
    )


def hits(answers: Sequence[Answer], truths: Sequence[str]) -> BoolArray:
    """(n,) whether each best label is the true one; a model that says nothing is not right."""
    told = zip(answers, truths, strict=True)
    return np.array([p.score > 0 and p.label == truth for p, truth in told], dtype=bool)


def confidence(answers: Sequence[Answer]) -> Float64Array:
    """(m,) each best label's share of all labels' scores; see `calibration`."""
    return shares(np.array([[score for _, score in p.ranking] for p in answers]))


def nearest_caption(prediction: Prediction) -> str:
    """The label nearest to the caption of the nearest picture: a baseline without relative vectors.

    Nothing when no picture is similar at all.
    """
    evidence = prediction.evidence
    if not evidence.relative.values[0].any():
        return ""
    text = evidence.anchors.vectors("text", evidence.relative.indices[0, :1])[0]
    prompts = evidence.labels.prompts
    return prompts.names[int(prompts.owner[int(np.argmax(prompts.vectors @ text))])]


def _per_class(right: BoolArray, truths: Sequence[str]) -> tuple[tuple[str, int, float], ...]:
    names = np.array(truths, dtype=object)
    masks = {name: names == name for name in sorted(set(truths))}
    return tuple((n, int(m.sum()), float(right[m].mean())) for n, m in masks.items())


def _confusions(
    answers: Sequence[Answer], truths: Sequence[str]
) -> tuple[tuple[str, str, int], ...]:
    told = zip(truths, (p.label for p in answers), strict=True)
    wrong = Counter((truth, answer) for truth, answer in told if truth != answer)
    ordered = sorted(wrong.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple((truth, answer, count) for (truth, answer), count in ordered)
