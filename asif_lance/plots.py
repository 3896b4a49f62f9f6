"""Figures of the accuracy commands, drawn into files; no window, no global state.

Class names and captions come from anyone: matplotlib would read `$…$` in them as formulas, so
they are passed with the dollar escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from asif_lance.errors import InputError

if TYPE_CHECKING:
    from asif_lance.evaluate import Evaluation

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 110

#: More classes than this get no names at the confusion matrix's edges.
NAMED_CLASSES = 40


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file whose suffix says what it is.

    Raises:
        InputError: another suffix, or a place that cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a plot is one of {', '.join(SUFFIXES)}")
    try:
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def evaluation_figure(found: Evaluation, truths_by_answer: Mapping[tuple[str, str], int]) -> Figure:
    """Confusion matrix (rows are true classes, shares of each) and reliability diagram.

    Args:
        found: the evaluation.
        truths_by_answer: (truth, answer) -> pictures.
    """
    figure = Figure(figsize=(12, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _confusion(left, truths_by_answer)
    left.set_title(f"{found.model}, {found.recipe}: {found.top_1:.1%} of {found.pictures} right")
    _reliability(right, found)
    return figure


def _confusion(axes: Any, counts: Mapping[tuple[str, str], int]) -> None:
    rows = sorted({truth for truth, _ in counts})
    columns = rows + sorted({answer for _, answer in counts} - set(rows))
    matrix = np.array([[counts.get((row, column), 0) for column in columns] for row in rows])
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.figure.colorbar(image, ax=axes, label="share of the class")
    if len(columns) <= NAMED_CLASSES:
        axes.set_xticks(range(len(columns)), [plain(c) for c in columns], rotation=90)
        axes.set_yticks(range(len(rows)), [plain(r) for r in rows])
    axes.set(xlabel="answer", ylabel="truth")


def _reliability(axes: Any, found: Evaluation) -> None:
    bins = found.reliability
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    sizes = [20 + 400 * b.pictures / found.pictures for b in bins]
    spots = ([b.confidence for b in bins], [b.accuracy for b in bins])
    axes.plot(*spots, color="tab:blue")
    axes.scatter(*spots, s=sizes, color="tab:blue", label="bins (area: pictures)")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (best score's share of all scores)")
    axes.set(ylabel="accuracy", title=f"expected calibration error {found.calibration_error:.3f}")
    axes.legend(loc="upper left")


def plain(text: str, longest: int = 40) -> str:
    """Text that matplotlib draws as it is, cut where it is long."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(c if c.isprintable() else " " for c in cut).replace("$", r"\$")


def lines(axes: Any, x: Sequence[float], curves: Mapping[str, Sequence[float]]) -> None:
    """One line with markers per named curve."""
    for name, y in curves.items():
        axes.plot(x, y, marker="o", markersize=4, label=plain(name))
