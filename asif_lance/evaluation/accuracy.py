"""How good a model is on labelled pictures, beside what costs nothing, and against another one.

The interval of a share is Wilson's. Models are compared picture by picture: a paired bootstrap of
the difference with a fixed seed, and an exact McNemar test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.anchors import Anchors
from asif_lance.encoders import sha256_of
from asif_lance.errors import InputError, format_count
from asif_lance.evaluation.calibration import (
    Bin,
    bin_by_confidence,
    calibration_error,
    measure_confidence,
)
from asif_lance.evaluation.labelled_pictures import Labelled, check_classes
from asif_lance.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    mcnemar_test,
    share_interval,
)
from asif_lance.ingest import unit_float16
from asif_lance.model import JointPrediction, LabelSet, Model, Prediction, Prompts, Together
from asif_lance.records import BoolArray, Reject

#: What one model, or several together, say of one picture.
Answer: TypeAlias = Prediction | JointPrediction

#: With so few labels or fewer, the true one is always among the best five.
TOP = 5

_ROWS = 2**16  # stored vectors compared at once


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Zero-shot accuracy of one way to answer; shares are in [0, 1].

    Attributes:
        model: what answered.
        pictures: how many were classified.
        labels: how many labels could be chosen from.
        top_1: share whose best label is the true one.
        interval: 95 % Wilson interval of `top_1`.
        top_5: share with the true label among the best five; None for five labels or fewer.
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
    top_5: float | None
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
        templates: the named set or the templates; empty for label vectors.
        ensemble: how a class's prompts became one score.
        nearest_caption: what the label nearest to the caption of the nearest picture scores.
        pictures_in_model: pictures that are pairs of the version too; see `count_overlap`.
    """

    recipe: str
    k: tuple[int, int]
    p: tuple[float, float]
    templates: str
    ensemble: str
    nearest_caption: float
    pictures_in_model: int


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two models on the same pictures.

    Attributes:
        first: a model version.
        second: the other one.
        difference: accuracy of the second minus that of the first.
        interval: 95 % paired bootstrap interval of the difference; None for a single picture.
        only_first: pictures that only the first got right.
        only_second: pictures that only the second got right.
        p_value: two-sided exact McNemar test (binomial over the pictures that differ).
    """

    first: str
    second: str
    difference: float
    interval: Interval | None
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
) -> tuple[list[JointPrediction], Labelled]:
    """Classify labelled pictures with several models as one.

    Returns:
        Their answers and what was classified, in order: the usable ones of `labelled`.

    Raises:
        ImageError: a picture cannot be used and `rejects` was not given.
        InputError: there are vectors instead of pictures: they are of one encoder.
    """
    if not labelled.images:
        raise InputError("vectors are of one encoder: models answer together about pictures")
    usable, vectors = together.encode(labelled.images, rejects=rejects)
    known = labelled.take(np.array(usable, dtype=np.int64))
    known = replace(known, digests=tuple(map(sha256_of, known.images)))  # once for all models
    return list(together.classify_vectors(known.names, vectors, labels)), known


def evaluate(predictions: Sequence[Prediction], labelled: Labelled) -> Evaluation:
    """Score predictions of one model for labelled pictures, in the same order.

    Raises:
        InputError: no predictions, another number of pictures, or a class that is no label.
    """
    measured = measure_accuracy(predictions, labelled.truths)
    answers = zip(map(nearest_caption, predictions), labelled.truths, strict=True)
    recipe, evidence = predictions[0].recipe, predictions[0].evidence
    return Evaluation(
        **{field.name: getattr(measured, field.name) for field in fields(Accuracy)},
        recipe=recipe.name,
        k=recipe.k,
        p=recipe.p,
        templates=evidence.labels.prompts.templates,
        ensemble=evidence.labels.prompts.ensemble,
        nearest_caption=float(np.mean([answer == truth for answer, truth in answers])),
        pictures_in_model=count_overlap(evidence.anchors, labelled),
    )


def measure_accuracy(answers: Sequence[Answer], truths: Sequence[str]) -> Accuracy:
    """Score answers of one model, or of several together, against the true labels.

    Raises:
        InputError: no answers, another number of truths, or a truth that is no label.
    """
    if not answers or len(answers) != len(truths):
        raise InputError(
            f"{format_count(len(answers), 'prediction')} for "
            f"{format_count(len(truths), 'labelled picture')}"
        )
    labels = [name for name, _ in answers[0].ranking]
    check_classes(truths, labels)
    correct = check_answers(answers, truths)
    classes = _per_class(correct, truths)
    scores = np.array([[score for _, score in answer.ranking] for answer in answers])
    bins = bin_by_confidence(measure_confidence(scores), correct)
    return Accuracy(
        model=answers[0].model,
        pictures=len(correct),
        labels=len(labels),
        top_1=float(correct.mean()),
        interval=share_interval(correct),
        top_5=_top_5(answers, truths) if len(labels) > TOP else None,
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
    return compare_correct(names, check_answers(first, truths), check_answers(second, truths))


def compare_correct(
    names: tuple[str, str], first: BoolArray, second: BoolArray
) -> PairedComparison:
    """Compare two models by which of the same pictures each got right, (m,) each."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    gains = second.astype(np.int64) - first
    return PairedComparison(
        first=names[0],
        second=names[1],
        difference=float(gains.mean()),
        interval=bootstrap_mean(gains),
        only_first=only_first,
        only_second=only_second,
        p_value=mcnemar_test(only_first, only_second),
    )


def check_answers(answers: Sequence[Answer], truths: Sequence[str]) -> BoolArray:
    """(m,) whether each best label is the true one; a score of 0 is no answer."""
    both = zip(answers, truths, strict=True)
    return np.array([a.score > 0 and a.label == truth for a, truth in both], dtype=bool)


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


def count_overlap(anchors: Anchors, labelled: Labelled) -> int:
    """How many labelled pictures are in a version: the same file, or the same stored vector.

    Files are compared by SHA-256 with `image_sha256`, vectors as the table would store them.

    Raises:
        ImageError: a picture cannot be read any more.
        InputError: there are neither pictures nor vectors.
    """
    if labelled.images:
        stored = anchors.dataset.to_table(columns=["image_sha256"])["image_sha256"]
        digests = labelled.digests or map(sha256_of, labelled.images)
        found = pc.is_in(pa.array(digests, pa.string()), value_set=stored)
        return sum(found.to_pylist())
    rows = [row.tobytes() for row in unit_float16(labelled.embeddings)]
    found = _find_rows(anchors, set(rows))
    return sum(row in found for row in rows)


def _find_rows(anchors: Anchors, wanted: set[bytes]) -> set[bytes]:
    """Those of the wanted image vectors that a version has."""
    live, found = np.flatnonzero(anchors.there), set[bytes]()
    for start in range(0, len(live), _ROWS):
        stored = anchors.gather("image", live[start : start + _ROWS]).numpy()
        found |= wanted.intersection(row.tobytes() for row in stored)
    return found


def _top_5(answers: Sequence[Answer], truths: Sequence[str]) -> float:
    best = [[name for name, _ in answer.ranking[:TOP]] for answer in answers]
    return float(np.mean([truth in names for names, truth in zip(best, truths, strict=True)]))


def _per_class(correct: BoolArray, truths: Sequence[str]) -> tuple[tuple[str, int, float], ...]:
    names = np.array(truths, dtype=object)
    masks = {name: names == name for name in sorted(set(truths))}
    return tuple((n, int(m.sum()), float(correct[m].mean())) for n, m in masks.items())


def _confusions(
    answers: Sequence[Answer], truths: Sequence[str]
) -> tuple[tuple[str, str, int], ...]:
    counts = Counter(zip(truths, (answer.label for answer in answers), strict=True))
    wrong = [(truth, label, n) for (truth, label), n in counts.items() if truth != label]
    return tuple(sorted(wrong, key=lambda entry: (-entry[2], entry[:2])))
