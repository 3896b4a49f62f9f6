"""Which labels will fail, told by the pairs alone, and which pairs would help.

A label fails if no caption speaks of it, or if the pictures of those that do are taken for
something else. The first is told by the captions nearest to it, the second by the self-test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from asif_lance.evaluation.confidence import Calibration, calibrate_by_self_test
from asif_lance.evaluation.self_test import SelfTest, build_self_test
from asif_lance.model import LabelSet, Model, Prompts, average_prompts
from asif_lance.progress import track_batches
from asif_lance.records import Int64Array
from asif_lance.relative import turn_centred

_LABELS = 200  # tested at once


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the pairs foretell of one label.

    Attributes:
        label: the label.
        self_test: mean probability of the label for the pictures that stand for it.
        nearness: cosine of its prompt and the nearest caption, taken from the captions' mean.
        forecast: both multiplied: the lower, the sooner it fails.
        own_captions: share of the captions that stand for it which are nearest to this label.
        caption_of: the label that most of the others are nearest to; empty where there are none.
        own_pictures: share of their pictures that are given this label.
        picture_of: the label that most of the others are given; empty where there are none.
        helps: which pairs would help; empty where nothing is amiss.
    """

    label: str
    self_test: float
    nearness: float
    forecast: float
    own_captions: float
    caption_of: str
    own_pictures: float
    picture_of: str
    helps: str


def forecast_labels(model: Model, prompts: Prompts) -> tuple[Forecast, ...]:
    """Test each label on the pairs nearest to it, under the model's recipe; the worst come first.

    Raises:
        InputError: fewer than 20 pairs.
    """
    test, labels = build_self_test(model, prompts), model.compile(prompts)
    calibration = calibrate_by_self_test(model, labels)
    found = [
        forecast
        for part in _parts(test)
        for forecast in _forecast_part(model, labels, part, calibration)
    ]
    return tuple(sorted(found, key=lambda forecast: forecast.forecast))


def _parts(test: SelfTest) -> Iterator[SelfTest]:
    """The test of some labels at a time, with the same truths."""
    for at in track_batches("test labels", len(test.prompts.names), _LABELS):
        rows = np.flatnonzero((test.truths >= at.start) & (test.truths < at.stop))
        yield replace(
            test,
            positions=test.positions[rows],
            truths=test.truths[rows],
            queries=test.queries[rows],
            copies=tuple(test.copies[i] for i in rows.tolist()),
        )


def _forecast_part(
    model: Model, labels: LabelSet, test: SelfTest, calibration: Calibration
) -> Iterator[Forecast]:
    scores, _ = test.scores(model, labels)
    shares = calibration.probabilities(scores)
    given = np.where(scores.max(axis=1) > 0, scores.argmax(axis=1), -1)
    spoken = _labels_of_captions(model, test)
    for number in np.unique(test.truths).tolist():
        own = np.flatnonzero(test.truths == number)
        captions, caption_of = _most_often(spoken[own], number, labels.names)
        pictures, picture_of = _most_often(given[own], number, labels.names)
        known, nearness = float(shares[own, number].mean()), float(test.nearness[number])
        label = labels.names[number]
        yield Forecast(
            label=label,
            self_test=known,
            nearness=nearness,
            forecast=known * max(nearness, 0.0),
            own_captions=captions,
            caption_of=caption_of,
            own_pictures=pictures,
            picture_of=picture_of,
            helps=_advise(label, captions, caption_of, pictures, picture_of),
        )


def _labels_of_captions(model: Model, test: SelfTest) -> Int64Array:
    """(m,) the label nearest to each caption that stands for one, by centred cosine."""
    asked = average_prompts(test.prompts)
    turned, offset = turn_centred(asked.vectors, model.anchors.mean("text"))
    cosines = model.anchors.vectors("text", test.positions) @ turned.T + offset
    return np.asarray(asked.owner[cosines.argmax(axis=1)], dtype=np.int64)


def _most_often(found: Int64Array, number: int, names: tuple[str, ...]) -> tuple[float, str]:
    """The share of a label's own, and the label most frequent among the others."""
    others = found[(found != number) & (found >= 0)]
    values, counts = np.unique(others, return_counts=True)
    return float((found == number).mean()), names[values[counts.argmax()]] if len(values) else ""


def _advise(label: str, captions: float, caption_of: str, pictures: float, picture_of: str) -> str:
    """Which pairs would help, in words."""
    if captions < 0.5:
        rather = f", not {caption_of}" if caption_of else ""
        return f"pairs whose captions speak of {label}{rather}"
    if pictures < 0.5:
        beside = f" and of {picture_of}: theirs are taken for it" if picture_of else ""
        return f"more pictures of {label}{beside}"
    return ""
