"""Options and arguments that evaluate, tune, scaling and adapt share: pictures and labels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import DimensionError, format_count

from .options import LABEL_OPTIONS, device_option, format_option, several
from .output import note
from .parameter_types import Count, OutputFile
from .query import AskedLabels, FoundModel, read_asked_labels

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


@dataclass(frozen=True, slots=True)
class Task:
    """Labelled pictures and the classes to choose from, which fit; no encoder is loaded yet.

    What else a command can check of its arguments it checks now, before `encode`.
    """

    labelled: Labelled
    asked: AskedLabels

    def encode(self, model: Model, rejects: list[Reject]) -> tuple[Labelled, Prompts]:
        """The pictures and the prompts with their vectors; unusable pictures are left out."""
        from asif_lance.evaluation import encode_labelled

        prompts = self.asked.embed(model)
        image, text = model.store.image.dimension, model.store.text.dimension
        if prompts.vectors.shape[1] != text:
            raise DimensionError("label vectors", text, prompts.vectors.shape[1])
        return encode_labelled(self.labelled, lambda: model.image_encoder, image, rejects), prompts


def read_task(
    pictures: Path,
    arguments: dict[str, Any],
    rejects: list[Reject],
    found: FoundModel | None = None,
) -> Task:
    """The labelled pictures and the labels; `label_options` are taken out of `arguments`.

    Args:
        pictures: a folder or file.
        arguments: of the command, by name.
        rejects: gathers rows and files that cannot be used.
        found: the model that is to be asked, where it is one.

    Raises:
        click.UsageError: options that do not go together.
        AsifError: something that cannot be read, or a class that is not among the labels.
    """
    from asif_lance.evaluation import check_classes, read_labelled

    labelled = read_labelled(pictures, rejects)
    options = {name: arguments.pop(name) for name in LABEL_OPTIONS}
    note_numbers(labelled, options)
    asked = read_asked_labels(**options, otherwise=labelled.classes)
    labelled = labelled.by_labels(tuple(asked.names))
    check_classes(labelled.truths, tuple(asked.names))
    if found is not None:
        found.check(asked, pictures=labelled.vectors is None, vectors=labelled.vectors)
    return Task(labelled, asked)


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
    return (
        f"{model.version.name}, {format_count(len(labelled.names), 'picture')} of {pictures.name}"
    )


def in_words(interval: tuple[float, float] | None) -> str:
    """The 95% interval of a difference of shares; a single picture has none."""
    if interval is None:
        return "no interval: one picture"
    return f"95% interval {interval[0]:+.1%} to {interval[1]:+.1%}"


def save_plot(plot: Path | None, draw: Callable[[Any], Any]) -> None:
    """Write the figure that `draw` makes with `evaluation.figures`, if a plot was asked for.

    Before anything is printed: whoever reads it may stop reading, and end the command.
    """
    if plot is not None:
        from asif_lance.evaluation import figures

        figures.save(draw(figures), plot)


def report_rejects(rejects: Sequence[Reject]) -> None:
    """Name the pictures that could not be used; exit status 1 if there are any."""
    for reject in rejects:
        note(f"asif-lance: {reject.item}: {reject.reason}")
    if rejects:
        sys.exit(1)
