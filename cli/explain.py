"""explain: the pairs behind a prediction, as a page or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import LABEL_OPTIONS, Context, label_options, model_options
from .output import note
from .parameter_types import Count, FileArgument, OutputFile
from .query import check_asked_labels, find_model, read_asked_labels

if TYPE_CHECKING:
    from asif_lance.model import Prediction


@click.command(short_help="Show which pairs decided a prediction, as a page or a picture.")
@click.argument("image", type=FileArgument)
@label_options
@click.option(
    "--top",
    "--pairs",
    "pairs",
    type=Count(),
    default=8,
    show_default=True,
    metavar="N",
    help="Show the N pairs that add most to a label.",
)
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
    pairs: int,
    output: Path,
    **arguments: Any,
) -> None:
    """Show which pairs decided, for the best label and the runner-up, as one file.

    HTML holds all pictures and loads nothing from anywhere; a name ending in .png gives the same
    as a picture.

    \b
      asif-lance explain cat.jpg --labels cat,dog -o why.html
      asif-lance explain cat.jpg --labels cat,dog -o why.png --top 5
    """
    asked = {name: arguments.pop(name) for name in LABEL_OPTIONS}
    check_asked_labels(asked)
    found, labels = find_model(context, **arguments), read_asked_labels(**asked)
    found.check(labels, pictures=True)
    model = found.open()
    (prediction,) = model.classify([image], model.compile(labels.embed(model)))
    output.write_bytes(_draw(output, prediction, image, pairs))
    note(f"{output}: {image.name} is {prediction.label!r} ({prediction.score:.4f})")


def _draw(output: Path, prediction: Prediction, image: Path, pairs: int) -> bytes:
    from asif_lance.explain import explain_page, explain_png

    if output.suffix.lower() == ".png":
        return explain_png(prediction, image, pairs=pairs)
    return explain_page(prediction, image, pairs=pairs).encode()
