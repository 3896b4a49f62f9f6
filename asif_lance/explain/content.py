"""What an explanation shows of a prediction: the labels, their pairs, and the marks of the plot."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from asif_lance.encoders import decode_image
from asif_lance.errors import ImageError
from asif_lance.model import Prediction

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


def describe_label(prediction: Prediction, name: str, score: float, count: int) -> ShownLabel:
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


def plot_marks(prediction: Prediction, name: str) -> list[dict[str, Any]]:
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
