"""evaluate: how good a model is, and whether another version is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .labelled import ask, asked_options, pictures_argument, plot_option, tell
from .options import Context, PairOf, device_option, format_option
from .output import print_json, print_table
from .query import open_model

if TYPE_CHECKING:
    from asif_lance.evaluate import Comparison, Evaluation
    from asif_lance.predictions import Prediction
    from asif_lance.records import Reject

#: Of the wrong answers, those that are shown to people; JSON has all.
SHOWN_CONFUSIONS = 5

_MODEL = ("recipe_name", "k", "p", "device")


@click.command()
@pictures_argument
@asked_options
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="V",
    help="A version or alias; a second one is compared with the first, picture by picture.",
)
@click.option("--recipe", "recipe_name", default="paper", show_default=True, metavar="NAME")
@click.option("--k", type=PairOf(int), help="Anchors kept: both sides, or image,text.")
@click.option("--p", type=PairOf(float), help="Power of similarities: both, or image,text.")
@click.option("--clip", metavar="NAME", help="A CLIP of sentence-transformers to compare with.")
@plot_option
@device_option
@format_option
@click.pass_obj
def evaluate(
    context: Context,
    /,
    pictures: Path,
    models: tuple[str, ...],
    clip: str | None,
    plot: Path | None,
    output: str,
    **arguments: Any,
) -> None:
    """Measure accuracy on labelled PICTURES, beside baselines, with 95% intervals.

    PICTURES is a folder with a sub-folder per class; or CSV, TSV, JSONL or Parquet with the columns
    image and label; or Parquet with vector and label. The classes are its labels unless they are
    given. Confidence, for calibration, is the best score's share of all labels' scores.

    \b
      asif-lance evaluate test/ --model v3
      asif-lance evaluate test.csv --model v3 --model v4 --templates imagenet-7
      asif-lance evaluate test.parquet --label-vectors labels.parquet --plot result.png
    """
    from asif_lance import evaluate as library

    given = {name: arguments.pop(name) for name in _MODEL}
    opened = [open_model(context, model=v, as_of=None, **given) for v in models or (None,)]
    rejects: list[Reject] = []
    labelled, prompts = ask(opened[0], pictures, arguments, rejects)
    answers = [library.predict(model, labelled, prompts) for model in opened]
    found = [library.evaluate(predictions, labelled.truths) for predictions in answers]
    for one in found:
        print_json(asdict(one)) if output == "json" else _print_evaluation(one)
    for other in answers[1:]:
        comparison = library.compare(answers[0], other, labelled.truths)
        print_json(asdict(comparison)) if output == "json" else _print_comparison(comparison)
    if plot is not None:
        _draw(found[-1], answers[-1], labelled.truths, plot)
    tell(rejects)


def _draw(
    found: Evaluation, predictions: Sequence[Prediction], truths: Sequence[str], plot: Path
) -> None:
    from asif_lance import plots

    answers = Counter(zip(truths, (p.label for p in predictions), strict=True))
    plots.save(plots.evaluation_figure(found, answers), plot)


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
            ("calibration error", f"{found.calibration_error:.3f}"),
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
