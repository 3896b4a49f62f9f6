"""One prediction as a PNG: the picture, the scores, the plot, and the pairs that decided."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from asif_lance.encoders import PictureInput
from asif_lance.errors import InputError
from asif_lance.explain.content import Explanation, ShownLabel, ShownPair, describe_prediction
from asif_lance.explain.plot import COLOURS, NAME, cut, draw_pairs
from asif_lance.model import Prediction

_QUIET = "#595959"
_DPI = 130
_MOST_PAIRS = 200  # of a label: the height of a picture has limits
_TITLE, _CAPTION = 70, 58  # characters that have room


def explain_png(prediction: Prediction, picture: PictureInput, *, pairs: int = 5) -> bytes:
    """Draw the PNG of one prediction: the chosen label and the runner-up, with their pairs.

    Args:
        prediction: from `Model.classify`.
        picture: what was classified, as `classify` takes it.
        pairs: pairs listed per label.

    Raises:
        ImageError: the picture cannot be read any more.
        InputError: `prediction` or `picture` is something else, or `pairs` is below 1, or more
            than a picture has room for.
    """
    shown = describe_prediction(prediction, picture, pairs)
    listed = max(len(label.pairs) for label in shown.labels)
    if listed > _MOST_PAIRS:
        raise InputError(f"a picture has room for {_MOST_PAIRS} pairs of a label: write HTML")
    heights = 4.6, 0.85 * listed + 0.4
    figure = Figure(figsize=(13, sum(heights) + 0.8), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 1, height_ratios=heights, left=0.03, right=0.98, top=0.91, bottom=0.02
    )
    upper = grid[0].subgridspec(1, 3, width_ratios=(1, 1, 1.5), wspace=0.3)
    _show_jpeg(figure.add_subplot(upper[0]), shown.picture)
    _draw_scores(figure.add_subplot(upper[1]), shown)
    draw_pairs(figure.add_subplot(upper[2]), shown.labels)
    lower = grid[1].subgridspec(1, 2, wspace=0.06)
    for side, label in enumerate(shown.labels):
        _list_pairs(figure, lower[side], label, COLOURS[side])
    _write_title(figure, shown)
    content = BytesIO()
    with warnings.catch_warnings():  # a script that no font here has is drawn as boxes
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def _write_title(figure: Figure, shown: Explanation) -> None:
    label = cut(shown.labels[0].name, _TITLE)
    figure.text(0.03, 0.985, label, size=20, weight="bold", va="top", **_plain(COLOURS[0]))
    about = f"{cut(Path(shown.image).name or shown.image, _TITLE)}   {shown.setting}"
    figure.text(0.98, 0.98, about, size=10, va="top", ha="right", **_plain(_QUIET))


def _draw_scores(axes: Any, shown: Explanation) -> None:
    ranked = shown.scores[::-1]
    colours = ["#cfcfcf"] * len(ranked)
    colours[-2:] = COLOURS[: len(ranked)][::-1]
    axes.barh(range(len(ranked)), [score for _, score in ranked], color=colours, height=0.65)
    axes.set_yticks(range(len(ranked)), [cut(name, NAME) for name, _ in ranked], parse_math=False)
    for row, (_, score) in enumerate(ranked):
        axes.text(score, row, f" {score:.4f}", va="center", size=9)
    axes.set_xlim(0, 1.3 * max(ranked[-1][1], 1e-12))
    axes.set_xticks([])
    axes.set_title("Scores", size=11, loc="left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _list_pairs(figure: Figure, place: Any, label: ShownLabel, colour: str) -> None:
    rows = max(len(label.pairs), 1)
    grid = place.subgridspec(rows + 1, 2, width_ratios=(1, 6), wspace=0.03, hspace=0.12)
    head = _blank(figure.add_subplot(grid[0, :]))
    says = f"Pairs that say {cut(label.name, NAME)}"
    head.text(0, 0.55, says, size=13, weight="bold", **_plain(colour))
    total = f"these {len(label.pairs)} add up to {label.total}"
    head.text(0, 0.12, total, size=9, color=_QUIET)
    for row, pair in enumerate(label.pairs, 1):
        _show_jpeg(figure.add_subplot(grid[row, 0]), pair.thumbnail)
        _write_pair(_blank(figure.add_subplot(grid[row, 1])), pair)


def _write_pair(axes: Any, pair: ShownPair) -> None:
    axes.text(0, 0.62, f"{pair.number}  {cut(pair.caption, _CAPTION)}", size=11, **_plain("black"))
    numbers = (
        f"adds {pair.contribution:.4f}   similarity: images {pair.image_similarity:.3f}, "
        f"caption and label {pair.text_similarity:.3f}   {cut(pair.source, NAME)}   {pair.role}"
    )
    axes.text(0, 0.2, numbers, size=9, **_plain(_QUIET))


def _show_jpeg(axes: Any, jpeg: bytes) -> None:
    if jpeg:
        _blank(axes).imshow(Image.open(BytesIO(jpeg)))
    else:
        _blank(axes).text(0.5, 0.5, "no picture", size=7, ha="center", va="center", color=_QUIET)


def _blank(axes: Any) -> Any:
    axes.axis("off")
    return axes


def _plain(colour: str) -> dict[str, Any]:
    return {"color": colour, "parse_math": False}
