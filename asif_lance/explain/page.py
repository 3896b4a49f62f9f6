"""One prediction as a page to show: the picture, the scores, and the pairs that decided.

The page is one file that loads nothing: pictures are inside it as data, and its policy forbids any
request and any script. Captions and names come from anyone, so the template escapes all of them.
The scatter is Figure 7 of the paper: image similarity against text similarity of each pair, the
mark's area its share of the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.encoders import decode_image
from asif_lance.explain.content import (
    PICTURE,
    SCORES,
    _data_uri,
    describe_label,
    plot_marks,
    printable,
)
from asif_lance.model import Prediction
from asif_lance.relative import format_sides


def explain_page(prediction: Prediction, picture: Path | bytes, *, pairs: int = 8) -> str:
    """The HTML of one prediction: the chosen label and the runner-up, with their pairs.

    Args:
        prediction: from `Model.classify`.
        picture: the file that was classified, or its bytes.
        pairs: pairs shown per label.

    Raises:
        ImageError: the picture cannot be read any more.
        InputError: `pairs` is below 1.
    """
    environment = Environment(
        loader=PackageLoader("asif_lance.explain"), autoescape=True, undefined=StrictUndefined
    )
    best = max(prediction.score, 1e-12)
    page = {
        "image": printable(prediction.image),
        "picture": _data_uri(decode_image(picture), PICTURE),
        "model": prediction.model,
        "recipe": prediction.recipe.name,
        "k": format_sides(prediction.recipe.k),
        "p": format_sides(prediction.recipe.p),
        "scores": [(name, s, 100 * s / best) for name, s in prediction.ranking[:SCORES]],
        "labels": [
            describe_label(prediction, name, score, pairs) for name, score in prediction.ranking[:2]
        ],
    }
    plot = scatter([plot_marks(prediction, name) for name, _ in prediction.ranking[:2]])
    return environment.get_template("explain.html").render(page=page, plot=plot)


def scatter(sides: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Places marks (`image_similarity`, `text_similarity`, `contribution`) on a plot in pixels.

    Args:
        sides: the marks of each label.

    Returns:
        Sizes, ticks as (pixel, text), and the marks with `x`, `y`, `radius` and `side`, the
        largest first, so that small ones lie on top.
    """
    width, height, left, top, right, bottom = 760, 420, 56, 12, 12, 48
    inner = width - left - right, height - top - bottom
    marks = [{**mark, "side": side} for side, own in enumerate(sides) for mark in own]
    x_low, x_high = _range([m["image_similarity"] for m in marks])
    y_low, y_high = _range([m["text_similarity"] for m in marks])
    largest = max((m["contribution"] for m in marks), default=1.0)
    for mark in marks:
        mark["x"] = left + inner[0] * (mark["image_similarity"] - x_low) / (x_high - x_low)
        mark["y"] = top + inner[1] * (y_high - mark["text_similarity"]) / (y_high - y_low)
        mark["radius"] = 2 + 16 * (mark["contribution"] / largest) ** 0.5
    steps = [i / 4 for i in range(5)]
    return {
        "width": width,
        "height": height,
        "left": left,
        "top": top,
        "inner_width": inner[0],
        "inner_height": inner[1],
        "x_ticks": [(left + inner[0] * s, f"{x_low + s * (x_high - x_low):.2f}") for s in steps],
        "y_ticks": [
            (top + inner[1] * (1 - s), f"{y_low + s * (y_high - y_low):.2f}") for s in steps
        ],
        "marks": sorted(marks, key=lambda mark: -mark["contribution"]),
    }


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The values' range with some room around it; never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room
