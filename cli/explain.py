"""explain: the pairs behind a prediction, as a page or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Context, OutputFile, chosen_templates, model_options, templates_option
from .output import note
from .query import open_model, read_names

if TYPE_CHECKING:
    from asif_lance.model import Prediction


@click.command()
@click.argument("image", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--labels", help="Class names, separated by commas.")
@click.option(
    "--labels-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A line per class: label, or label: name, name.",
)
@click.option("--template", "templates", multiple=True, metavar="T", help="As for classify.")
@templates_option
@click.option("--pairs", type=click.IntRange(min=1), default=8, show_default=True, metavar="N")
@click.option(
    "--output",
    "-o",
    type=OutputFile(".html", ".htm", ".png"),
    default=Path("explanation.html"),
    show_default=True,
    help="The page, or a picture if it ends in .png; an older one is replaced.",
)
@model_options
@click.pass_obj
def explain(
    context: Context,
    /,
    image: Path,
    labels: str | None,
    labels_file: Path | None,
    templates: tuple[str, ...],
    template_set: str | None,
    pairs: int,
    output: Path,
    **model_arguments: Any,
) -> None:
    """Show which pairs decided, for the best label and the runner-up, as one file.

    HTML holds all pictures and loads nothing from anywhere; a name ending in .png gives the same
    as a picture.

    \b
      asif-lance explain cat.jpg --labels cat,dog -o why.html
      asif-lance explain cat.jpg --labels cat,dog -o why.png --pairs 5
    """
    if (labels is None) == (labels_file is None):
        raise click.UsageError("give --labels or --labels-file, one of the two")

    model = open_model(context, **model_arguments)
    names, chosen = read_names(labels, labels_file), chosen_templates(templates, template_set)
    label_set = model.labels(names, chosen)
    (prediction,) = model.classify([image], label_set)
    output.write_bytes(_draw(output, prediction, image, pairs))
    note(f"{output}: {image.name} is {prediction.label!r} ({prediction.score:.4f})")


def _draw(output: Path, prediction: Prediction, image: Path, pairs: int) -> bytes:
    from asif_lance.explain import explain_page, explain_png

    if output.suffix.lower() == ".png":
        return explain_png(prediction, image, pairs=pairs)
    return explain_page(prediction, image, pairs=pairs).encode()
