"""What predictions are as the API answers them: scores, confidence, and the pairs behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from asif_lance.errors import printable
from asif_lance.evaluation import Calibration, compare_kinds
from asif_lance.evaluation.confidence import COVERAGE, nearest_similarities
from asif_lance.evaluation.duplicates import SIMILARITY
from asif_lance.model import Evidence, Prediction
from asif_lance.records import Int64Array
from asif_lance.service.held_pictures import UploadedPicture
from asif_lance.service.messages import (
    Classified,
    Confident,
    DecidingLabel,
    Explained,
    LabelScore,
    Pair,
    PairShare,
)

#: Labels of a view.
SHOWN_LABELS = 10

#: Pairs of each label in the scatter of a view.
MARKS = 60

#: Captions nearest to a label whose pictures are looked at, and typical pairs that are shown.
NEAREST, TYPICAL = 10, 4

PAIR_COLUMNS = ["pair_id", "caption", "captions", "source", "license", "image_sha256"]

_SAID = ("model", "recipe", "k", "p")


def to_classified(
    prediction: Prediction,
    top: int,
    sha256: str | None = None,
    explain: int = 0,
    calibration: Calibration | None = None,
) -> Classified:
    """A prediction as the API answers it, of the `top` best labels."""
    prompts = prediction.evidence.labels.prompts
    answer = Classified(
        image=printable(prediction.image),
        sha256=sha256,
        **{key: value for key, value in prediction.to_dict(top).items() if key in _SAID},
        templates=prompts.templates or None,
        ensemble=prompts.ensemble if prompts.templates else None,
        predictions=[LabelScore(label=x, score=score) for x, score in prediction.ranking[:top]],
        pairs=to_shares(prediction, prediction.label, explain) if explain else None,
    )
    return answer if calibration is None else _with_confidence(answer, prediction, calibration)


def _with_confidence(
    answer: Classified, prediction: Prediction, calibration: Calibration
) -> Classified:
    found, near = calibration.assess(prediction), nearest_similarities([prediction])
    kind = compare_kinds(calibration, np.array([prediction.score]), near)
    for one, probability in zip(answer.predictions, found.probabilities, strict=False):
        one.probability = probability
    answer.confidence = Confident(
        source=calibration.source,
        pictures=calibration.pictures,
        possible=list(found.possible),
        together=COVERAGE,
        none=found.none,
        low=found.low,
        low_score=kind.low > 0,
        low_usual=kind.usual,
        unlike=kind.far > 0,
    )
    return answer


def to_shares(prediction: Prediction, label: str, count: int) -> list[PairShare]:
    """The pairs that add most to a label's score, with source and license.

    Of those whose pictures are nearly the same, all but the first name the first.
    """
    evidence = prediction.evidence
    found = evidence.attributions(label, count)
    positions = evidence.contributions(label, count).positions
    rows = evidence.anchors.rows(positions, ["source", "license"])
    first = _find_alike(evidence, positions)
    return [
        PairShare(
            pair_id=one.pair_id,
            caption=one.caption,
            captions=list(one.captions),
            role=one.role,
            label=label,
            source=row["source"],
            license=row["license"],
            image_similarity=one.image_similarity,
            text_similarity=one.text_similarity,
            contribution=one.contribution,
            like=None if place == number else found[place].pair_id,
        )
        for number, (one, row, place) in enumerate(zip(found, rows, first, strict=True))
    ]


def _find_alike(evidence: Evidence, positions: Int64Array) -> list[int]:
    """For each of m pairs the first whose picture is nearly the same; itself where it is new."""
    vectors = evidence.anchors.vectors("image", positions)
    alike = vectors @ vectors.T >= SIMILARITY
    first: list[int] = []
    for number, row in enumerate(alike):
        before = (place for place in first[:number] if row[place])
        first.append(next(before, number))
    return first


def find_typical(prediction: Prediction, label: str) -> list[Pair]:
    """Pairs that show what the label is to the model, whatever the picture.

    Of the captions nearest to the label, those whose pictures are most like the others' pictures.
    """
    evidence = prediction.evidence
    labels, anchors = evidence.labels, evidence.anchors
    rows = np.flatnonzero(labels.owner == labels.names.index(label))
    row = rows[np.argmax(evidence.prompt_scores[rows])]
    near = labels.relative(int(row))
    order = np.argsort(-near.values[0], kind="stable")[:NEAREST]
    positions = near.indices[0][order[near.values[0][order] > 0]]
    if not len(positions):
        return []
    vectors = anchors.vectors("image", positions)
    best = np.argsort(-(vectors @ vectors.mean(axis=0)), kind="stable")[:TYPICAL]
    return [to_pair(row) for row in anchors.rows(positions[best], PAIR_COLUMNS)]


def to_pair(row: dict[str, Any]) -> Pair:
    """A row of the pairs table."""
    captions = row["captions"] or ([row["caption"]] if row["caption"] else [])
    return Pair(**{**row, "captions": captions})


def to_explained(
    prediction: Prediction,
    picture: UploadedPicture,
    pairs: int,
    calibration: Calibration | None,
) -> Explained:
    """One prediction taken apart: the winner and the runner-up with the pairs behind them."""
    answer = to_classified(prediction, SHOWN_LABELS, picture.sha256, 0, calibration)
    return Explained(
        answer=answer,
        deciding=[_take_apart(prediction, *ranked, pairs) for ranked in prediction.ranking[:2]],
        before=None,
    )


def _take_apart(prediction: Prediction, label: str, score: float, pairs: int) -> DecidingLabel:
    shares = to_shares(prediction, label, max(pairs, MARKS))
    return DecidingLabel(
        label=label,
        score=score,
        pairs=shares[:pairs],
        others=shares[pairs:],
        typical=find_typical(prediction, label),
    )
