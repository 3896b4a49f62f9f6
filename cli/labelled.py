"""Options and arguments that evaluate, tune, scaling and adapt share: pictures and labels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import LABEL_OPTIONS, device_option, format_option, several
from .output import note
from .parameter_types import Count, OutputFile
from .query import read_prompts

if TYPE_CHECKING:
    from asif_lance.evaluation import Labelled
    from asif_lance.model import Model, Prompts
    from asif_lance.records import Reject


pictures_argument = click.argument("pictures", type=click.Path(exists=True, path_type=Path))

plot_option = click.option(
    "--plot",
    type=OutputFile(".png", ".svg", ".pdf"),
    help="Also draw the result into this PNG, SVG or PDF file.",
)

seed_option = click.option(
    "--seed",
    type=Count(0),
    default=0,
    show_default=True,
    help="Of everything that is drawn at random.",
)

one_model_options = several(
    click.option("--model", metavar="V", help="A version (v3) or alias; by default the newest."),
    device_option,
)

experiment_options = several(seed_option, plot_option, one_model_options, format_option)


def ask(
    model: Model, pictures: Path, arguments: dict[str, Any], rejects: list[Reject]
) -> tuple[Labelled, Prompts]:
    """The labelled pictures, encoded, and the prompts; the options are taken out of `arguments`."""
    from asif_lance.evaluation import encode_labelled, read_labelled

    labelled = encode_labelled(
        read_labelled(pictures, rejects),
        lambda: model.image_encoder,
        model.store.image.dimension,
        rejects,
    )
    options = {name: arguments.pop(name) for name in LABEL_OPTIONS}
    note_numbers(labelled, options)
    prompts = read_prompts(model, **options, otherwise=labelled.classes)
    return labelled.by_labels(prompts.names), prompts


def note_numbers(labelled: Labelled, options: dict[str, Any]) -> None:
    """Say that prompts will hold numbers, where neither the pictures nor options name classes."""
    named = any(options[name] for name in ("labels", "labels_file", "label_vectors"))
    if labelled.are_numbered and not named:
        note(
            f"the labels are integers without names ({', '.join(labelled.classes[:3])}, …): "
            "name them by a --labels-file with lines like '0: bird'"
        )


def describe(model: Model, labelled: Labelled, pictures: Path) -> str:
    """The model and the pictures in a few words, for a figure's title."""
    return f"{model.version.name}, {len(labelled.names):,} pictures of {pictures.name}"


def save_plot(plot: Path | None, draw: Callable[[Any], Any]) -> None:
    """Write the figure that `draw` makes with `evaluation.figures`, if a plot was asked for."""
    if plot is not None:
        from asif_lance.evaluation import figures

        figures.save(draw(figures), plot)


def report_rejects(rejects: Sequence[Reject]) -> None:
    """Name the pictures that could not be used; exit status 1 if there are any."""
    for reject in rejects:
        note(f"asif-lance: {reject.item}: {reject.reason}")
    if rejects:
        sys.exit(1)
