"""scaling: what more pairs would bring."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .labelled import (
    describe,
    experiment_options,
    pictures_argument,
    read_task,
    report_rejects,
    save_plot,
)
from .options import Context, label_options, recipe_option
from .output import percent, print_json, print_table
from .parameter_types import MOST_TRIALS, Count, Numbers, PairOf
from .query import find_model

if TYPE_CHECKING:
    from asif_lance.records import Reject


class Setting(click.ParamType[tuple[Any, Any]]):
    """`800:8` for both sides or `800,200:4,2` for image and text."""

    name = "K:P"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to ((k image, k text), (p image, p text))."""
        k, colon, p = str(value).partition(":")
        if not colon:
            self.fail(f"{value!r} is not K:P, such as 800:8 or 800,200:4,2", param, ctx)
        return PairOf(int).convert(k, param, ctx), PairOf(float).convert(p, param, ctx)


@click.command(short_help="Measure accuracy against the number of pairs: do more help?")
@pictures_argument
@label_options
@click.option(
    "--setting",
    "settings",
    type=Setting(),
    multiple=True,
    default=("800:8", "100:8", "800:1", "100:1"),
    show_default=True,
    help="k and p to measure, one number or image,text each; repeat it for several.",
)
@click.option(
    "--sizes", type=Numbers(int), help="Numbers of pairs. [default: 100, 300, 1000, … all]"
)
@click.option(
    "--repetitions",
    type=Count(most=MOST_TRIALS),
    default=3,
    show_default=True,
    help="How often pairs are drawn anew for each number.",
)
@recipe_option
@experiment_options
@click.pass_obj
def scaling(
    context: Context,
    /,
    pictures: Path,
    settings: tuple[Any, ...],
    sizes: tuple[int, ...] | None,
    repetitions: int,
    recipe: str | None,
    seed: int,
    plot: Path | None,
    model: str | None,
    device: str,
    output: str,
    **arguments: Any,
) -> None:
    """Measure accuracy on labelled PICTURES against the number of pairs: would more of them help?

    Each repetition draws nested random subsets of the pairs; all k and p of one subset come from
    one search.

    \b
      asif-lance scaling validation/ --plot growth.png
      asif-lance scaling test.parquet --setting 800,200:4,2 --sizes 1000,2000,4000
    """
    found = find_model(context, model=model, device=device, recipe=recipe)
    rejects: list[Reject] = []
    task = read_task(pictures, arguments, rejects, found)
    from asif_lance.evaluation import scaling_curve as library

    opened = found.open()
    library.choose_sizes(opened.anchors.count, sizes or ())
    labelled, prompts = task.encode(opened, rejects)
    points = library.scaling(
        opened, labelled, prompts, settings, sizes or (), repetitions=repetitions, seed=seed
    )
    subject, chance = describe(opened, labelled, pictures), 1 / len(prompts.names)
    save_plot(plot, lambda figures: figures.scaling_figure(points, chance, subject))
    if output == "json":
        for point in points:
            print_json({**asdict(point), "mean": point.mean, "deviation": point.deviation})
    else:
        _print_points(points)
    report_rejects(rejects)


def _print_points(points: Any) -> None:
    from asif_lance.relative import format_sides

    rows = [
        (
            p.pairs,
            format_sides(p.k),
            format_sides(p.p),
            percent(p.mean),
            "" if p.deviation is None else percent(p.deviation),
            len(p.top_1),
        )
        for p in points
    ]
    print_table(["pairs", "k", "p", "top-1", "±", "repetitions"], rows)
