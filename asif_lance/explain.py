"""One prediction as a page to show: the picture, the scores, and the pairs that decided.

The page is one file that loads nothing: pictures are inside it as data, and its policy forbids any
request and any script. Captions and names come from anyone, so the template escapes all of them.
The scatter is Figure 7 of the paper: image similarity against text similarity of each pair, the
mark's area its share of the score.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from asif_lance.errors import ImageError
from asif_lance.images import decode_image
from asif_lance.predictions import Prediction
from asif_lance.recipes import spelled

#: Pixels of the long side of the picture, and of the pairs' thumbnails.
PICTURE, THUMBNAIL = 640, 160

#: Labels in the bar chart, and marks per label in the scatter.
SCORES, MARKS = 10, 200

_COLUMNS = ("pair_id", "caption", "image_uri", "source", "license")


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair of the page.

    Attributes:
        pair_id: the pair.
        caption: its caption.
        source: where it came from, if known.
        license: its license, if known.
        image_similarity: with the picture, as the recipe measures it.
        text_similarity: with the label's prompt, likewise.
        contribution: what it adds to the label's score.
        thumbnail: a data URI, or empty where its picture cannot be read here.
    """

    pair_id: str
    caption: str
    source: str | None
    license: str | None
    image_similarity: float
    text_similarity: float
    contribution: float
    thumbnail: str


@dataclass(frozen=True, slots=True)
class ShownLabel:
    """A label of the page: its strongest pairs, and which share of its score they are."""

    name: str
    score: float
    share: float
    pairs: tuple[ShownPair, ...]


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
        loader=PackageLoader("asif_lance"), autoescape=True, undefined=StrictUndefined
    )
    best = max(prediction.score, 1e-12)
    page = {
        "image": printable(prediction.image),
        "picture": _data_uri(decode_image(picture), PICTURE),
        "model": prediction.model,
        "recipe": prediction.recipe.name,
        "k": spelled(prediction.recipe.k),
        "p": spelled(prediction.recipe.p),
        "scores": [(name, s, 100 * s / best) for name, s in prediction.ranking[:SCORES]],
        "labels": [
            shown_label(prediction, name, score, pairs) for name, score in prediction.ranking[:2]
        ],
    }
    plot = scatter([marks_of(prediction, name) for name, _ in prediction.ranking[:2]])
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


def shown_label(prediction: Prediction, name: str, score: float, count: int) -> ShownLabel:
    """One label with the pairs that add most to its score."""
    found = prediction.attributions(count, name)
    positions = prediction.evidence.shares(name, count).positions
    rows = prediction.evidence.anchors.rows(positions, _COLUMNS)
    shown = tuple(
        ShownPair(
            pair_id=printable(a.pair_id),
            caption=printable(a.caption),
            source=printable(row["source"] or ""),
            license=printable(row["license"] or ""),
            image_similarity=a.image_similarity,
            text_similarity=a.text_similarity,
            contribution=a.contribution,
            thumbnail=_thumbnail(row["image_uri"]),
        )
        for a, row in zip(found, rows, strict=True)
    )
    return ShownLabel(
        name, score, sum(p.contribution for p in shown) / score if score else 0, shown
    )


def marks_of(prediction: Prediction, name: str) -> list[dict[str, Any]]:
    """The numbers, ids and captions of the `MARKS` pairs that add most to a label's score."""
    return [
        {
            "pair_id": printable(a.pair_id),
            "caption": printable(a.caption),
            "image_similarity": a.image_similarity,
            "text_similarity": a.text_similarity,
            "contribution": a.contribution,
        }
        for a in prediction.attributions(MARKS, name)
    ]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The values' range with some room around it; never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room


def _thumbnail(uri: str | None) -> str:
    """The pair's picture, small, if it is a file here that can be decoded."""
    if not uri:
        return ""
    try:
        return _data_uri(decode_image(Path(uri), min_side=THUMBNAIL), THUMBNAIL)
    except ImageError:
        return ""


def _data_uri(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side))
    content = BytesIO()
    image.save(content, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def printable(text: str) -> str:
    """Text without control characters and marks that turn the writing direction."""
    return "".join(c if c.isprintable() else " " for c in text)
