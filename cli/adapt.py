"""adapt: accuracy on a new task before and after a few labelled pictures of it become pairs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .labelled import (
    Task,
    describe,
    experiment_options,
    pictures_argument,
    read_task,
    report_rejects,
    save_plot,
)
from .options import LABEL_OPTIONS, Context, label_options, open_store, recipe_option
from .output import note, percent, print_json, print_table
from .parameter_types import MOST_TRIALS, Count, Numbers, PairOf, PathOption
from .query import FoundModel, find_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asif_lance.evaluation import Adaptation, Labelled, TrialAccuracy
    from asif_lance.ingest import IngestReport
    from asif_lance.model import Model, Prompts
    from asif_lance.records import Reject


@click.command(short_help="Learn a few labelled PICTURES of each class, and measure the rest.")
@pictures_argument
@label_options
@click.option(
    "--per-class",
    "counts",
    type=Numbers(int),
    default="10",
    show_default=True,
    help="Pictures of each class that become pairs, of small classes all but one; "
    "several numbers make a curve.",
)
@click.option("--caption", metavar="T", help="Caption of an added picture. [default: the template]")
@click.option(
    "--old",
    type=PathOption(exists=True, path_type=Path),
    help="Labelled pictures of an old task, to see whether it suffers.",
)
@click.option(
    "--old-label-vectors",
    type=PathOption(exists=True, path_type=Path),
    help="With --old: Parquet with label and vector of the old task.",
)
@click.option(
    "--trials",
    type=Count(most=MOST_TRIALS),
    default=5,
    show_default=True,
    help="How often pictures are drawn anew.",
)
@click.option("--keep", is_flag=True, help="Add the first trial's pictures; makes a new version.")
@click.option("--license", help="With --keep: recorded with the pairs.")
@recipe_option
@click.option("--k", type=PairOf(int), help="Anchors kept: both sides, or image,text.")
@click.option("--p", type=PairOf(float), help="Power of similarities: both, or image,text.")
@experiment_options
@click.pass_obj
def adapt(
    context: Context,
    /,
    pictures: Path,
    counts: tuple[int, ...],
    caption: str | None,
    old: Path | None,
    old_label_vectors: Path | None,
    trials: int,
    keep: bool,
    license: str | None,
    seed: int,
    plot: Path | None,
    output: str,
    **arguments: Any,
) -> None:
    """Add a few labelled PICTURES of each class, captioned by a template, and measure the rest.

    They become examples, which teach their labels at once; questions that do not name these are
    answered as before. Trials
    draw other pictures; nothing is written without --keep. The nearest class mean is what the same
    few pictures do on their own, without any pair; the difference from it, in points, has a paired
    95 % interval.

    \b
      asif-lance adapt satellite/ --per-class 1,2,5,10 --template "a satellite image of {}"
      asif-lance adapt satellite/ --per-class 10 --old test/ --keep
    """
    options = {name: arguments.pop(name) for name in ("model", "device", "recipe", "k", "p")}
    _check(context, arguments, caption, old_label_vectors, old, counts if keep else ())
    model = find_model(context, **options)
    rejects: list[Reject] = []
    before = _read_old_task(model, old, old_label_vectors, arguments, rejects)
    task = read_task(pictures, arguments, rejects, model)
    template = _caption_template(task, caption)
    from asif_lance.evaluation import adaptation as library

    drawn: Any = {"trials": trials, "seed": seed}
    library.check_experiment(task.labelled, counts, **drawn)
    opened = model.open()
    labelled, prompts = _encode(task, opened, rejects)
    encoder = None if task.asked.vectors is not None else opened.text_encoder
    captions, texts = library.captions_of(prompts, template, encoder)
    old_task = None if before is None else before.encode(opened, rejects)
    found = library.adapt(opened, labelled, prompts, texts, counts, old=old_task, **drawn)
    subject, chance = describe(opened, labelled, pictures), 1 / len(prompts.names)
    save_plot(plot, lambda figures: figures.adaptation_figure(found, chance, subject))
    if keep:
        added = (captions, texts, counts[0], seed, pictures.name, license)
        rejects += _tell_added(opened, library.add_pairs(opened, labelled, prompts, *added))
    _print(found, output)
    report_rejects(rejects)


def _encode(task: Task, opened: Model, rejects: list[Reject]) -> tuple[Labelled, Prompts]:
    """The task, encoded; pictures that the model has already are told."""
    from asif_lance.evaluation import count_overlap

    labelled, prompts = task.encode(opened, rejects)
    if known := count_overlap(opened.anchors, labelled):
        note(
            f"in the model already, so what is told of them is too good: "
            f"{format_count(known, 'picture')}; test on others"
        )
    return labelled, prompts


def _tell_added(opened: Model, report: IngestReport) -> tuple[Reject, ...]:
    made = report.version or opened.store.version()
    there = report.already_there + report.changed
    known = f", already there {there:,}" if there else ""
    note(f"added {format_count(report.added, 'pair')}{known}; the newest model is {made.name}")
    return report.rejects


def _check(
    context: Context,
    asked: dict[str, Any],
    caption: str | None,
    old_labels: Path | None,
    old: Path | None,
    kept: tuple[int, ...],
) -> None:
    if len(kept) > 1:
        raise click.UsageError("--keep needs one number of pictures per class")
    if caption is not None and asked["label_vectors"] is not None:
        raise click.UsageError("--caption needs a text encoder, not --label-vectors")
    if old is None and old_labels is not None:
        raise click.UsageError("--old-label-vectors needs --old")
    if kept:
        open_store(context).check_own("adapt --keep")


def _caption_template(task: Task, caption: str | None) -> str | None:
    """The template of captions: given, or the first of the prompts'; None for the packaged one."""
    from asif_lance.model import fill_templates, resolve_templates

    asked = task.asked.templates
    template = caption or (resolve_templates(asked)[0][0] if asked else None)
    if template is not None:
        fill_templates(task.asked.names, (template,))  # it may be none
    return template


def _read_old_task(
    model: FoundModel,
    old: Path | None,
    vectors: Path | None,
    arguments: dict[str, Any],
    rejects: list[Reject],
) -> Task | None:
    """The old task, if there is one, asked as the new one is, about its own classes."""
    if old is None:
        return None
    asked = {name: arguments[name] for name in LABEL_OPTIONS}
    asked |= {"labels": None, "labels_file": None, "label_vectors": vectors}
    if vectors is not None:
        asked |= {"templates": (), "template_set": None}
    return read_task(old, asked, rejects, model)


def _note_reached(found: Sequence[Adaptation]) -> None:
    """Say where classes were too small for as many pictures as were asked for."""
    short = [one for one in found if one.added < one.per_class * one.classes]
    if short:
        counts = ", ".join(f"{one.per_class:,}" for one in short)
        note(
            f"--per-class {counts}: some classes have fewer pictures, and one of each is left to "
            f"test on; {format_count(short[-1].added, 'pair')} of "
            f"{format_count(short[-1].classes, 'class', 'classes')} are the most that was reached"
        )


def _print(found: Sequence[Adaptation], output: str) -> None:
    _note_reached(found)
    if output == "json":
        for adaptation in found:
            print_json(asdict(adaptation))
        return
    first = found[0]
    click.echo(f"before: {percent(first.new.mean_before)} on the new task, nothing added")
    if first.old is not None:
        click.echo(f"        {percent(first.old.mean_before)} on the old task")
    print_table(
        [
            *("per class", "pairs added", "tested on", "new task", "nearest class mean"),
            *("difference", "old task"),
        ],
        [
            (
                *(a.per_class, a.added, a.tested, _share(a.new), _share(a.prototypes)),
                *(_difference(a), _share(a.old)),
            )
            for a in found
        ],
    )
    if first.new.deviation is None:
        note("one trial shows no spread: --trials 5 does")


def _difference(one: Adaptation) -> str:
    """In points, with its interval."""
    if one.interval is None:
        return f"{100 * one.difference:+.1f}"
    low, high = (100 * bound for bound in one.interval)
    return f"{100 * one.difference:+.1f} ({low:+.1f} to {high:+.1f})"


def _share(task: TrialAccuracy | None) -> str:
    if task is None:
        return ""
    spread = "" if task.deviation is None else f" ± {percent(task.deviation)}"
    return f"{percent(task.mean)}{spread}"
