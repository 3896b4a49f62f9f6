"""The scatter plot of an explanation, Figure 7 of the paper: drawn once, for page and picture.

Each mark is a pair: image similarity against text similarity, its area what it adds to the score.
Listed pairs have their number on the mark. No text is read as a formula, and long names are cut.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from asif_lance.explain.content import ShownLabel

#: The colours of the chosen label and the runner-up, on white.
COLOURS = ("#c2410c", "#1d4ed8")

#: Characters of a label's name that have room.
NAME = 24

_SMALLEST, _LARGEST = 4, 700  # points² of the marks
_LINK = re.compile(r'<a xlink:href="#(pair-\d+-\d+)"[^>]*>')  # matplotlib's open a new window
_NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def draw_pairs(axes: Any, labels: Sequence[ShownLabel]) -> None:
    """Draw the pairs of the labels, each mark a link to `#ANCHOR` of its pair."""
    both = [(*label.pairs, *label.others) for label in labels]
    largest = max((abs(pair.contribution) for pairs in both for pair in pairs), default=1.0)
    for pairs, label, colour in zip(both, labels, COLOURS, strict=False):
        axes.scatter(
            [pair.image_similarity for pair in pairs],
            [pair.text_similarity for pair in pairs],
            s=[_SMALLEST + _LARGEST * abs(pair.contribution) / largest for pair in pairs],
            urls=[f"#{pair.anchor}" for pair in pairs],
            color=colour,
            alpha=0.45,
            linewidths=0.5,
        )
        axes.scatter([], [], s=60, color=colour, alpha=0.6, label=cut(label.name, NAME))
        for pair in label.pairs:
            place = pair.image_similarity, pair.text_similarity
            axes.text(*place, str(pair.number), size=8, ha="center", va="center")
    axes.set_xlabel("similarity of the images")
    axes.set_ylabel("similarity of caption and label")
    above = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, frameon=False, fontsize=9
    )
    for text in above.get_texts():
        text.set_parse_math(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)


def plot_svg(labels: Sequence[ShownLabel]) -> str:
    """The plot as an `<svg>` element; marks have titles, and are links to their pairs' entries."""
    figure = Figure(figsize=(5.2, 4.6), facecolor="white", layout="constrained")
    FigureCanvasSVG(figure)
    draw_pairs(figure.subplots(), labels)
    content = StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "asif_lance"}):
        figure.savefig(content, format="svg", metadata=_NO_METADATA)
    _, start, rest = content.getvalue().partition("<svg")  # what precedes it is for XML files
    titles = {
        pair.anchor: f"{pair.caption} ({pair.pair_id}): adds {pair.contribution:.4f}"
        for label in labels
        for pair in (*label.pairs, *label.others)
    }
    link = '<a xlink:href="#{}"><title>{}</title>'
    return _LINK.sub(lambda old: link.format(old[1], escape(titles[old[1]])), start + rest)


def cut(text: str, room: int) -> str:
    """Text of at most this many characters."""
    return text if len(text) <= room else text[: room - 1] + "…"
