"""evaluate: how good a model is, and whether another version is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .confidence import (
    check_confidence,
    check_self_test,
    chosen_coverage,
    confidence_options,
    print_confidence_reports,
)
from .engine import engine_options
from .labelled import (
    Task,
    describe,
    in_words,
    pictures_argument,
    plot_option,
    read_task,
    report_rejects,
    save_plot,
)
from .options import (
    Context,
    device_option,
    format_option,
    label_options,
    recipe_option,
)
from .output import note, percent, print_json, print_table
from .parameter_types import PairOf
from .query import find_model
from .together import compile_joint_labels, find_together, refuse_beside, with_option

if TYPE_CHECKING:
    from asif_lance.evaluation import Accuracy, ConfidenceReport, Labelled, PairedComparison
    from asif_lance.model import Model, Prediction, Prompts
    from asif_lance.records import Reject

    from .together import FoundTogether

#: Of the wrong answers, those that are shown to people; JSON has all.
SHOWN_CONFUSIONS = 5

_MODEL = ("recipe", "k", "p", "device", "engine", "workers")
_MORE = ("rivals", "confidence", "coverage")  # that is measured, on request


@click.command(short_help="Measure accuracy on labelled PICTURES, beside baselines.")
@pictures_argument
@label_options
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="V",
    help="A version or alias; a second one is compared with the first, picture by picture.",
)
@recipe_option
@click.option("--k", type=PairOf(int), help="Anchors kept: both sides, or image,text.")
@click.option("--p", type=PairOf(float), help="Power of similarities: both, or image,text.")
@click.option("--clip", metavar="NAME", help="A CLIP of sentence-transformers to compare with.")
@click.option(
    "--rivals",
    is_flag=True,
    help="Compare with canonical correlations (CSA) and orthogonal Procrustes on the same pairs.",
)
@confidence_options
@with_option
@plot_option
@device_option
@engine_options
@format_option
@click.pass_obj
def evaluate(
    context: Context,
    /,
    pictures: Path,
    models: tuple[str, ...],
    clip: str | None,
    others: tuple[str, ...],
    plot: Path | None,
    output: str,
    **arguments: Any,
) -> None:
    """Measure accuracy on labelled PICTURES, beside baselines, with 95% intervals.

    PICTURES is a folder with a sub-folder per class (hidden files and folders are left out, linked
    folders are followed, each once; a note counts what is left out); or CSV, TSV, JSON or Parquet
    with the columns image and label; or Parquet with vector and label. The classes are its labels
    unless they are given. Confidence, for calibration, is the best score's share of all labels'
    scores. --confidence measures what `classify --confidence` says: its probabilities and sets,
    by the self-test (no labels) and by one half of the pictures on the other.

    --rivals compares with the authors' recipe and with two maps fitted in closed form on the same
    pairs. Neither of the maps can say which pairs decided, or forget one exactly.

    \b
      asif-lance evaluate test/ --model v3
      asif-lance evaluate test.csv --model v3 --model v4 --templates imagenet-7
      asif-lance evaluate test.parquet --label-vectors labels.parquet --plot result.png
      asif-lance evaluate test/ --rivals --confidence
      asif-lance evaluate test/ --with larger-encoders.lancedb
    """
    given = {name: arguments.pop(name) for name in _MODEL}
    more = {name: arguments.pop(name) for name in _MORE}
    _check(models, others, clip, plot, arguments["label_vectors"], more)
    if others:
        joint = find_together(context, others, model=models[0] if models else None, **given)
        _evaluate_together(joint, pictures, arguments, output)
        return
    found = [find_model(context, model=v, as_of=None, **given) for v in models or (None,)]
    rejects: list[Reject] = []
    task = read_task(pictures, arguments, rejects, found[0])
    if more["confidence"]:
        check_self_test(found[0])
    from asif_lance.evaluation import accuracy as library

    opened = [each.open() for each in found]
    loaded: Any = None if clip is None else _load_clip(clip, task, given["device"])
    labelled, prompts = task.encode(opened[0], rejects)
    answers = [library.predict(model, labelled, prompts) for model in opened]
    evaluations = [library.evaluate(predictions, labelled) for predictions in answers]
    comparisons = [library.compare(answers[0], other, labelled.truths) for other in answers[1:]]
    if clip is not None:
        comparisons.append(_compare_clip(loaded, clip, labelled, task, opened[0], answers[0]))
    if more["rivals"]:
        comparisons += _compare_rivals(opened[0], answers[0], labelled, prompts)
    reports = _measure_confidence(more, opened[0], answers[0], labelled)
    _plot(plot, evaluations[-1], answers[-1], labelled, describe(opened[-1], labelled, pictures))
    _print(evaluations, comparisons, output)
    _tell_more(more["rivals"], reports, output)
    report_rejects(rejects)


def _plot(
    plot: Path | None,
    found: Accuracy,
    answers: Sequence[Prediction],
    labelled: Labelled,
    subject: str,
) -> None:
    counts = Counter(zip(labelled.truths, (answer.label for answer in answers), strict=True))
    save_plot(plot, lambda figures: figures.evaluation_figure(found, counts, subject))


def _check(
    models: tuple[str, ...],
    others: tuple[str, ...],
    clip: str | None,
    plot: Path | None,
    label_vectors: Path | None,
    more: dict[str, Any],
) -> None:
    """Refuse what does not go together."""
    check_confidence(more["confidence"], coverage=more["coverage"])
    refuse_beside(others, clip=clip, plot=plot, **{name: more[name] for name in _MORE[:2]})
    if others and len(models) > 1:
        raise click.UsageError("with --with, give one --model; --with DB@V names another's")
    if clip is not None and label_vectors is not None:
        raise click.UsageError("--clip needs label names, not --label-vectors")


def _evaluate_together(
    joint: FoundTogether, pictures: Path, arguments: dict[str, Any], output: str
) -> None:
    """Each database alone, then all together, compared with each on the same pictures."""
    if arguments["label_vectors"] is not None:
        raise click.UsageError("with --with, give --labels or --labels-file, one of the two")
    rejects: list[Reject] = []
    task = read_task(pictures, arguments, rejects)
    from asif_lance.evaluation import accuracy as library

    together = joint.open()
    labelled, labels = task.labelled, compile_joint_labels(together, task.asked)
    answers, usable = library.predict_together(together, labelled, labels, rejects)
    parts = [[answer.parts[i] for answer in answers] for i in range(len(labels))]
    alone: list[Accuracy] = [
        replace(library.evaluate(part, usable), model=name)
        for name, part in zip(together.models, parts, strict=True)
    ]
    jointly = library.check_answers(answers, usable.truths)
    comparisons = [
        library.compare_correct(
            (name, "together"), library.check_answers(part, usable.truths), jointly
        )
        for name, part in zip(together.models, parts, strict=True)
    ]
    _print([*alone, library.measure_accuracy(answers, usable.truths)], comparisons, output)
    report_rejects(rejects)


def _load_clip(name: str, task: Task, device: str) -> Any:
    """The CLIP, before anything that takes long: it may not be there."""
    from asif_lance.errors import InputError
    from asif_lance.evaluation.clip_baseline import load_clip

    if not task.labelled.images:
        raise InputError("a CLIP needs pictures to compare with, not vectors")
    return load_clip(name, device=device)


def _compare_clip(
    loaded: Any, name: str, labelled: Labelled, task: Task, opened: Model, answers: Any
) -> PairedComparison:
    """The model beside a CLIP that is asked the same labels and templates."""
    from asif_lance.evaluation import accuracy as library
    from asif_lance.evaluation.clip_baseline import check_clip

    templates = task.asked.templates or opened.templates
    theirs = check_clip(loaded, labelled, task.asked.names, templates)
    correct = library.check_answers(answers, labelled.truths)
    return library.compare_correct((answers[0].model, name), correct, theirs)


def _compare_rivals(
    opened: Model, answers: Sequence[Prediction], labelled: Labelled, prompts: Prompts
) -> list[PairedComparison]:
    """The model beside its rivals on the same pairs and pictures."""
    from asif_lance.evaluation import accuracy as library
    from asif_lance.evaluation import check_rivals

    correct = library.check_answers(answers, labelled.truths)
    return [
        library.compare_correct((name, opened.version.name), theirs, correct)
        for name, theirs in check_rivals(opened, labelled, prompts).items()
    ]


def _measure_confidence(
    more: dict[str, Any], opened: Model, answers: Sequence[Prediction], labelled: Labelled
) -> tuple[ConfidenceReport, ...]:
    """How far confidence is to be trusted, if that was asked."""
    if not more["confidence"]:
        return ()
    from asif_lance.evaluation import report_confidence

    return report_confidence(opened, answers, labelled.truths, chosen_coverage(more["coverage"]))


def _tell_more(rivals: bool, reports: Sequence[ConfidenceReport], output: str) -> None:
    """What rivals cannot do, and how far confidence is to be trusted, where these were asked."""
    if rivals:
        note("CSA and Procrustes name no pairs behind an answer, and forget none exactly")
    if output == "json":
        for report in reports:
            print_json({"confidence": asdict(report)})
    elif reports:
        print_confidence_reports(reports)


def _print(
    evaluations: Sequence[Accuracy], comparisons: Sequence[PairedComparison], output: str
) -> None:
    for evaluation in evaluations:
        print_json(asdict(evaluation)) if output == "json" else _print_evaluation(evaluation)
    for comparison in comparisons:
        print_json(asdict(comparison)) if output == "json" else _print_comparison(comparison)


def _print_evaluation(found: Accuracy) -> None:
    from asif_lance.evaluation import Evaluation

    low, high = found.interval
    click.echo(
        f"{found.model}: {format_count(found.pictures, 'picture')}, "
        f"{format_count(found.labels, 'label')}"
    )
    rows = [("top-1", f"{percent(found.top_1)}  (95% interval {percent(low)} to {percent(high)})")]
    if found.top_5 is not None:
        rows.append(("top-5", percent(found.top_5)))
    rows += [
        ("mean per class", percent(found.mean_per_class)),
        ("chance", percent(found.chance)),
        ("most frequent class", percent(found.most_frequent)),
    ]
    if isinstance(found, Evaluation):  # of one model, not of several together
        rows.append(("nearest picture's caption", percent(found.nearest_caption)))
        rows.append(("pictures in the model", f"{found.pictures_in_model}"))
    rows.append(("calibration error", f"{found.calibration_error:.3f}"))
    print_table(["", ""], rows)
    print_table(
        ["class", "pictures", "top-1"], [(n, c, percent(share, 0)) for n, c, share in found.classes]
    )
    if found.confusions:
        shown = found.confusions[:SHOWN_CONFUSIONS]
        print_table(["most often wrong", "said", "pictures"], shown)
    click.echo()


def _print_comparison(found: PairedComparison) -> None:
    click.echo(
        f"{found.second} against {found.first}: {found.difference:+.1%} "
        f"({in_words(found.interval)}); right only in {found.first} "
        f"{found.only_first}, only in {found.second} {found.only_second}; "
        f"McNemar p = {found.p_value:.3g}"
    )
