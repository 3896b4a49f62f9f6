"""One prediction as a picture to show: what `explain` puts on a page, drawn into one PNG.

Names and captions come from anyone: nothing in them is read as a formula, what cannot be printed is
blanked, and long ones are cut.
"""

from __future__ import annotations

import base64
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from asif_lance.encoders import decode_image
from asif_lance.explain.content import (
    PICTURE,
    SCORES,
    ShownLabel,
    describe_label,
    plot_marks,
    printable,
)
from asif_lance.model import Prediction
from asif_lance.relative import format_sides

#: The colours of the page: the chosen label's and the runner-up's.
COLOURS = ("#c2410c", "#1d4ed8")

_QUIET = "#6b6b6b"
_DPI = 130
_TITLE, _NAME, _CAPTION = 70, 24, 58  # characters that have room
_LARGEST = 700  # points² of the largest mark


def explain_png(prediction: Prediction, picture: Path | bytes, *, pairs: int = 5) -> bytes:
    """Draw the PNG of one prediction: the chosen label and the runner-up, with their pairs.

    Args:
        prediction: from `Model.classify`.
        picture: the file that was classified, or its bytes.
        pairs: pairs shown per label.

    Raises:
        ImageError: the picture cannot be read any more.
        InputError: `pairs` is below 1.
    """
    labels = [describe_label(prediction, *named, pairs) for named in prediction.ranking[:2]]
    figure = Figure(figsize=(13, 5.8 + 0.85 * pairs), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 1, height_ratios=(4.6, 0.85 * pairs + 0.4), left=0.03, right=0.98, top=0.91, bottom=0.02
    )
    upper = grid[0].subgridspec(1, 3, width_ratios=(1, 1, 1.5), wspace=0.3)
    _picture(figure.add_subplot(upper[0]), picture)
    _scores(figure.add_subplot(upper[1]), prediction)
    _scatter(figure.add_subplot(upper[2]), prediction, labels)
    lower = grid[1].subgridspec(1, 2, wspace=0.06)
    for side, label in enumerate(labels):
        _pairs(figure, lower[side], label, COLOURS[side])
    _title(figure, prediction)
    content = BytesIO()
    with warnings.catch_warnings():  # a script that no font here has is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def _title(figure: Figure, prediction: Prediction) -> None:
    name = _cut(Path(prediction.image).name or prediction.image, _TITLE)
    k, p = format_sides(prediction.recipe.k), format_sides(prediction.recipe.p)
    label = _cut(prediction.label, _TITLE)
    figure.text(0.03, 0.985, label, size=20, weight="bold", va="top", **_plain(COLOURS[0]))
    about = f"{name}   model {prediction.model}, recipe {prediction.recipe.name}, k = {k}, p = {p}"
    figure.text(0.98, 0.98, about, size=10, va="top", ha="right", **_plain(_QUIET))


def _picture(axes: Any, picture: Path | bytes) -> None:
    image = decode_image(picture)
    image.thumbnail((PICTURE, PICTURE))
    axes.imshow(image)
    axes.axis("off")


def _scores(axes: Any, prediction: Prediction) -> None:
    ranked = prediction.ranking[:SCORES][::-1]
    colours = ["#cfcfcf"] * len(ranked)
    colours[-2:] = COLOURS[: len(ranked)][::-1]
    axes.barh(range(len(ranked)), [score for _, score in ranked], color=colours, height=0.65)
    names = [_cut(name, _NAME) for name, _ in ranked]
    axes.set_yticks(range(len(ranked)), names, parse_math=False)
    for row, (_, score) in enumerate(ranked):
        axes.text(score, row, f" {score:.4f}", va="center", size=9)
    axes.set_xlim(0, 1.3 * max(ranked[-1][1], 1e-12))
    axes.set_xticks([])
    axes.set_title("Scores", size=11, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _scatter(axes: Any, prediction: Prediction, labels: list[ShownLabel]) -> None:
    """Figure 7 of the paper: image similarity against text similarity, area by product."""
    found = [plot_marks(prediction, label.name) for label in labels]
    largest = max((m["contribution"] for own in found for m in own), default=1.0)
    for own, label, colour in zip(found, labels, COLOURS, strict=False):
        axes.scatter(
            [m["image_similarity"] for m in own],
            [m["text_similarity"] for m in own],
            s=[4 + _LARGEST * m["contribution"] / largest for m in own],
            color=colour,
            alpha=0.45,
            linewidths=0.5,
        )
        axes.scatter([], [], s=60, color=colour, alpha=0.6, label=_cut(label.name, _NAME))
    axes.set_xlabel("similarity of the images")
    axes.set_ylabel("similarity of caption and label")
    axes.set_title("Pairs: the larger, the more it adds", size=11, loc="left")
    for text in axes.legend(frameon=False, fontsize=9).get_texts():
        text.set_parse_math(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)


def _pairs(figure: Figure, place: Any, label: ShownLabel, colour: str) -> None:
    rows = max(len(label.pairs), 1)
    grid = place.subgridspec(rows + 1, 2, width_ratios=(1, 6), wspace=0.03, hspace=0.12)
    head = _blank(figure.add_subplot(grid[0, :]))
    says = f"Pairs that say {_cut(label.name, _NAME)}"
    head.text(0, 0.55, says, size=13, weight="bold", **_plain(colour))
    share = f"these {len(label.pairs)} add up to {label.share:.0%} of its score {label.score:.4f}"
    head.text(0, 0.12, share, size=9, color=_QUIET)
    for row, pair in enumerate(label.pairs, 1):
        thumbnail = _blank(figure.add_subplot(grid[row, 0]))
        if pair.thumbnail:
            thumbnail.imshow(Image.open(BytesIO(base64.b64decode(pair.thumbnail.split(",")[1]))))
        else:
            thumbnail.text(0.5, 0.5, "no picture", size=7, ha="center", va="center", color=_QUIET)
        text = _blank(figure.add_subplot(grid[row, 1]))
        text.text(0, 0.62, _cut(pair.caption, _CAPTION), size=11, **_plain("black"))
        numbers = (
            f"adds {pair.contribution:.4f}   image {pair.image_similarity:.3f}, "
            f"text {pair.text_similarity:.3f}   {_cut(pair.source or '', _NAME)}"
        )
        text.text(0, 0.2, numbers, size=9, **_plain(_QUIET))


def _blank(axes: Any) -> Any:
    axes.axis("off")
    return axes


def _plain(colour: str) -> dict[str, Any]:
    return {"color": colour, "parse_math": False}


def _cut(text: str, room: int) -> str:
    clean = printable(text)
    return clean if len(clean) <= room else clean[: room - 1] + "…"
