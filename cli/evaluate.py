"""evaluate: how good a model is, and whether another version is better."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Context, PairOf, device_option, format_option, recipe_option
from .output import note, print_json, print_table
from .query import open_model, read_label_names

if TYPE_CHECKING:
    from asif_lance.evaluate import Comparison, Evaluation
    from asif_lance.predictions import Prediction
    from asif_lance.records import Reject

#: Of the wrong answers, those that are shown to people; JSON has all.
SHOWN_CONFUSIONS = 5


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--labels-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Class names, one per line; by default the names of the sub-folders.",
)
@click.option("--template", "templates", multiple=True, metavar="T", help="As for classify.")
@click.option(
    "--ensemble",
    type=click.Choice(["max", "mean-embedding", "mean-relative"]),
    default="max",
    show_default=True,
)
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
@device_option
@format_option
@click.pass_obj
def evaluate(
    context: Context,
    /,
    folder: Path,
    labels_file: Path | None,
    templates: tuple[str, ...],
    ensemble: Any,
    models: tuple[str, ...],
    output: str,
    **model_arguments: Any,
) -> None:
    """Measure accuracy on FOLDER/CLASS/picture.jpg, beside baselines, with 95% intervals.

    \b
      asif-lance evaluate test/ --model v3
      asif-lance evaluate test/ --model v3 --model v4
    """
    from asif_lance import evaluate as library
    from asif_lance.labels import DEFAULT_TEMPLATES

    pictures, truths = library.labelled_pictures(folder)
    names = read_label_names(labels_file) if labels_file else sorted(set(truths))
    answers: list[list[Prediction]] = []
    rejects: list[Reject] = []
    for version in models or (None,):
        rejects = []
        model = open_model(context, model=version, as_of=None, **model_arguments)
        label_set = model.labels(names, templates or DEFAULT_TEMPLATES, ensemble)
        answers.append(list(model.classify(pictures, label_set, rejects=rejects)))
    refused = {reject.item for reject in rejects}
    kept = [t for path, t in zip(pictures, truths, strict=True) if str(path) not in refused]
    found = [library.evaluate(predictions, kept) for predictions in answers]
    for one in found:
        print_json(asdict(one)) if output == "json" else _print_evaluation(one)
    for other in answers[1:]:
        comparison = library.compare(answers[0], other, kept)
        print_json(asdict(comparison)) if output == "json" else _print_comparison(comparison)
    for reject in rejects:
        note(f"asif-lance: {reject.item}: {reject.reason}")
    if rejects:
        sys.exit(1)


def _print_evaluation(found: Evaluation) -> None:
    low, high = found.interval
    click.echo(f"{found.model}: {found.pictures} pictures, {found.labels} labels")
    print_table(
        ["", ""],
        [
            ("top-1", f"{found.top_1:.1%}  (95% interval {low:.1%} to {high:.1%})"),
            ("top-5", f"{found.top_5:.1%}"),
            ("mean per class", f"{found.mean_per_class:.1%}"),
            ("chance", f"{found.chance:.1%}"),
            ("most frequent class", f"{found.most_frequent:.1%}"),
            ("nearest picture's caption", f"{found.nearest_caption:.1%}"),
        ],
    )
    print_table(
        ["class", "pictures", "top-1"], [(n, c, f"{share:.0%}") for n, c, share in found.classes]
    )
    if found.confusions:
        shown = found.confusions[:SHOWN_CONFUSIONS]
        print_table(["most often wrong", "said", "pictures"], shown)
    click.echo()


def _print_comparison(found: Comparison) -> None:
    low, high = found.interval
    click.echo(
        f"{found.second} against {found.first}: {found.difference:+.1%} "
        f"(95% interval {low:+.1%} to {high:+.1%}); right only in {found.first} "
        f"{found.only_first}, only in {found.second} {found.only_second}; "
        f"McNemar p = {found.p_value:.3g}"
    )
