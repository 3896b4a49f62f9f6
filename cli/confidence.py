"""Confidence of answers: the options that ask for it, and how classify and evaluate show it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .options import several
from .output import note, percent, print_table
from .parameter_types import PathOption, Real

if TYPE_CHECKING:
    from asif_lance.evaluation import Calibration, Confidence, ConfidenceReport, Labelled
    from asif_lance.model import LabelSet, Model, Prediction
    from asif_lance.records import PictureKind, Reject

    from .query import FoundModel

confidence_options = several(
    click.option(
        "--confidence", is_flag=True, help="Say how probable answers are, and what is possible."
    ),
    click.option(
        "--coverage",
        type=Real(0, 1, min_open=True, max_open=True),
        metavar="FRACTION",
        help="With --confidence: how often the true label is to be among the possible ones; "
        "without labelled pictures, how probable these are to be together. "
        "[default: 0.9]",
    ),
)


calibrate_option = click.option(
    "--calibrate",
    type=PathOption(exists=True, path_type=Path),
    metavar="PICTURES",
    help="With --confidence: labelled pictures of the kind that is classified, as `evaluate` "
    "takes them. [default: the pairs' own pictures]",
)

#: What these options are called.
CONFIDENCE = ("confidence", "coverage", "calibrate")


def check_confidence(confidence: bool, *, search: str = "exact", **others: object) -> None:
    """Refuse options that go with --confidence alone, or do not go with it."""
    given = [name for name, value in others.items() if value is not None]
    if given and not confidence:
        raise click.UsageError(f"--{given[0]} is for --confidence")
    if confidence and search != "exact":
        raise click.UsageError("--confidence needs --search exact")


def chosen_coverage(coverage: float | None) -> float:
    """The coverage that was asked for, or the usual one."""
    from asif_lance.evaluation.confidence import COVERAGE

    return COVERAGE if coverage is None else coverage


def check_self_test(found: FoundModel) -> None:
    """Refuse a version whose pairs are too few for a self-test, before any work.

    Raises:
        InputError: they are.
    """
    from asif_lance.evaluation import check_enough_pairs

    check_enough_pairs(found.version.pairs)


class Assessor:
    """Says of predictions how probable they are, and in the end of which kind the pictures were."""

    def __init__(
        self,
        model: Model,
        labels: LabelSet,
        known: Labelled | None,
        coverage: float | None,
        rejects: list[Reject],
    ) -> None:
        self.coverage = chosen_coverage(coverage)
        self.calibration = _calibrate(model, labels, known, rejects)
        self._seen: list[tuple[float, float]] = []

    def assess(self, prediction: Prediction) -> Confidence:
        """What is known of one answer."""
        self._seen.append((prediction.score, float(prediction.evidence.similarities[0])))
        return self.calibration.assess(prediction, self.coverage)

    def note_kind(self) -> None:
        """Warn where the pictures are of another kind than those calibrated on."""
        import numpy as np

        from asif_lance.evaluation import compare_kinds

        if self._seen:
            best, nearest = np.array(self._seen).T
            warn_of_kind(compare_kinds(self.calibration, best, nearest))


def make_assessor(
    model: Model,
    labels: LabelSet,
    rejects: list[Reject],
    *,
    confidence: bool,
    coverage: float | None,
    known: Labelled | None,
) -> Assessor | None:
    """What says how probable answers are, if that was asked."""
    return Assessor(model, labels, known, coverage, rejects) if confidence else None


def read_calibration(
    pictures: Path | None, names: Collection[str], rejects: list[Reject]
) -> Labelled | None:
    """The labelled pictures of `--calibrate`, not yet encoded; None if there are none.

    Raises:
        InputError: a class that is not among the labels, or fewer than 20 pictures.
        SourceError: nothing that can be read.
    """
    if pictures is None:
        return None
    from asif_lance.evaluation import check_classes, check_enough_pictures, read_labelled

    read = read_labelled(pictures, rejects).by_labels(names)
    check_classes(read.truths, names)
    check_enough_pictures(len(read.truths))
    return read


def _calibrate(
    model: Model, labels: LabelSet, known: Labelled | None, rejects: list[Reject]
) -> Calibration:
    from asif_lance.evaluation import (
        calibrate_by_pictures,
        calibrate_by_self_test,
        encode_labelled,
    )

    if known is None:
        return calibrate_by_self_test(model, labels)
    dimension = model.store.image.dimension
    encoded = encode_labelled(known, lambda: model.image_encoder, dimension, rejects)
    answers = list(model.classify_vectors(encoded.names, encoded.embeddings, labels))
    return calibrate_by_pictures(answers, encoded.truths)


def warn_of_kind(kind: PictureKind) -> None:
    """Say that the pictures are of another kind, if they are."""
    if kind.is_another:
        note(
            "these pictures are of another kind than those that confidence rests on: of "
            f"{percent(kind.low, 0)} the best score is as low as of a tenth of those, and "
            f"{percent(kind.far, 0)} are as unlike the pairs' pictures; do not rely on the answers"
        )


def add_confidence(value: dict[str, Any], found: Confidence, sure: Assessor) -> None:
    """Put what is known of an answer into its JSON object."""
    for entry, probability in zip(value["predictions"], found.probabilities, strict=False):
        entry["probability"] = probability
    value["confidence"] = {
        "possible": list(found.possible),
        "coverage": sure.coverage if sure.calibration.states_coverage else None,
        "none_of_these": found.none,
        "share_as_low": found.low,
        "source": sure.calibration.source,
        "pictures": sure.calibration.pictures,
    }


def print_confident(answer: dict[str, Any], coverage: float) -> None:
    """An answer with `add_confidence` as a table, and what is possible below it.

    Args:
        answer: as JSON has it.
        coverage: what was asked for.
    """
    found, predictions = answer["confidence"], answer["predictions"]
    rows = [(one["label"], one["score"], percent(one["probability"])) for one in predictions]
    print_table([answer["image"], answer["model"], "probability"], rows)
    shown = ", ".join(found["possible"][: len(rows)]) or "no label"
    if len(found["possible"]) > len(rows):
        shown += f" and {len(found['possible']) - len(rows):,} more"
    told = "at {}" if found["coverage"] is not None else "with {} probability together"
    source = f"{found['source']}, {format_count(found['pictures'], 'picture')}"
    click.echo(f"possible {told.format(percent(coverage, 0))} ({source}): {shown}")
    if found["none_of_these"]:
        low = percent(found["share_as_low"], 0)
        click.echo(f"none of these: {low} of those pictures have a best score so low")


def print_confidence_reports(reports: Sequence[ConfidenceReport]) -> None:
    """How far confidence is to be trusted, a column for each way to calibrate."""
    names = {"self-test": "self-test", "labelled pictures": "half of the pictures"}

    def row(name: str, what: Any) -> tuple[str, ...]:
        return (name, *(what(report) for report in reports))

    asked = percent(reports[0].coverage, 0)
    print_table(
        ["confidence calibrated on", *(names[report.source] for report in reports)],
        [
            row("pictures calibrated on", lambda r: f"{r.calibrated_on:,}"),
            row("mean probability", lambda r: percent(r.probability)),
            row("right", lambda r: percent(r.right)),
            row("calibration error", lambda r: f"{r.calibration_error:.3f}"),
            row(
                "right more probable than wrong",
                lambda r: "" if r.ranks is None else f"{r.ranks:.2f}",
            ),
            row(f"true label possible (asked: {asked})", lambda r: percent(r.covered)),
            row("possible labels", lambda r: f"{r.possible:.2f}"),
            row("told to show none", lambda r: percent(r.none)),
        ],
    )
    warn_of_kind(reports[0].kind)
    click.echo()
