"""Figures of the accuracy commands, drawn into files; no window, no global state.

Class names and captions come from anyone: matplotlib would read `$…$` in them as formulas, so
they are passed with the dollar escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asif_lance.errors import InputError
from asif_lance.evaluation.accuracy import Evaluation
from asif_lance.evaluation.adaptation import Adaptation
from asif_lance.evaluation.diagnosis import Diagnosis
from asif_lance.evaluation.scaling_curve import Point
from asif_lance.evaluation.tuning import TriedSetting, Tuning, by_k_and_p
from asif_lance.relative import format_sides

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 110

#: Sources whose gap is drawn, those with the most pairs.
NAMED_SOURCES = 12

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


def tuning_figure(found: Tuning) -> Figure:
    """Figure 9 of the paper: top-1 for every k and p, per recipe and side; the best is framed.

    A cell is the best over all else that was tried, such as the other side's k and p.
    """
    recipes = list(dict.fromkeys(choice.recipe for choice in found.choices))
    sides = (0, 1) if any(c.k[0] != c.k[1] or c.p[0] != c.p[1] for c in found.choices) else (0,)
    size = (5.6 * len(sides), 4.2 * len(recipes))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(recipes), len(sides), squeeze=False)
    shares = [choice.top_1 for choice in found.choices]
    for row, name in zip(panels, recipes, strict=True):
        own = [choice for choice in found.choices if choice.recipe == name]
        for axes, side in zip(row, sides, strict=True):
            frame = found.best if found.best.recipe == name else None
            _heat(axes, own, side, frame, (min(shares), max(shares)))
            which = ("image side", "text side")[side] if len(sides) > 1 else "both sides"
            axes.set_title(f"{plain(name)}, {which}")
    return figure


def _heat(
    axes: Any,
    choices: Sequence[TriedSetting],
    side: int,
    best: TriedSetting | None,
    span: tuple[float, float],
) -> None:
    cells = by_k_and_p(choices, side)
    ks, ps = sorted({k for k, _ in cells}), sorted({p for _, p in cells})
    values = np.array([[cells[k, p] for k in ks] for p in ps])
    axes.imshow(values, cmap="viridis", vmin=span[0], vmax=span[1], origin="lower", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        dark = value < sum(span) / 2
        text = f"{100 * value:.1f}"
        colour = "white" if dark else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    if best is not None:
        corner = ks.index(best.k[side]) - 0.5, ps.index(best.p[side]) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2.5))
    axes.set_xticks(range(len(ks)), [str(k) for k in ks])
    axes.set_yticks(range(len(ps)), [f"{p:g}" for p in ps])
    axes.set(xlabel="k (anchors kept)", ylabel="p (exponent)")


def scaling_figure(points: Sequence[Point], chance: float) -> Figure:
    """Figures 5 and 8: top-1 against the number of pairs, a line per k and p, mean and deviation.

    Args:
        points: from `scaling`.
        chance: what guessing scores.
    """
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    for k, p in dict.fromkeys((point.k, point.p) for point in points):
        own = [point for point in points if (point.k, point.p) == (k, p)]
        label = f"k = {format_sides(k)}, p = {format_sides(p)}"
        x, y = [point.pairs for point in own], [100 * point.mean for point in own]
        spread = [100 * point.deviation for point in own]
        axes.errorbar(x, y, yerr=spread, marker="o", markersize=4, capsize=2, label=label)
    axes.axhline(100 * chance, color="0.6", linestyle="--", label="chance")
    axes.set(xscale="log", xlabel="pairs", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def diagnosis_figure(found: Diagnosis) -> Figure:
    """Figures 3 and 10 of the paper, the gap per source, and how often anchors are found."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    panels = figure.subplots(2, 2)
    for axes, side in zip(panels[0], ("image", "text"), strict=True):
        _distributions(axes, found, side)
    _gaps(panels[1][0], found)
    counts = np.repeat(*np.array([(lists, anchors) for anchors, lists in found.occurrences]).T)
    axes = panels[1][1]
    axes.hist(counts, bins=np.arange(counts.max() + 2) - 0.5, log=True, color="tab:blue")
    axes.set(xlabel=f"lists of the {found.near} most similar images that an anchor is in")
    axes.set(ylabel="anchors", title=f"hubs: skewness {found.hubs[0].skewness:.2f}")
    return figure


def _distributions(axes: Any, found: Diagnosis, side: str) -> None:
    every, near = (np.array(found.histograms[f"{side}_{what}"]) for what in ("all", "near"))
    edges = np.linspace(-1, 1, len(every) + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    for bars, name, colour in (
        (every, "all pairs", "tab:blue"),
        (near, f"the {found.near} most similar images", "tab:orange"),
    ):
        axes.stairs(bars, edges, fill=True, alpha=0.5, color=colour, label=name)
        axes.axvline(float(bars @ middles), color=colour, linestyle="--")
    shown = middles[(every + near) > 0]
    axes.set(xlim=(shown.min() - 0.05, shown.max() + 0.05), xlabel=f"{side} similarity")
    axes.set(ylabel="share", title=("images" if side == "image" else "their captions"))
    axes.legend(fontsize=8)


def _gaps(axes: Any, found: Diagnosis) -> None:
    shown = [found.gap, *found.sources[:NAMED_SOURCES]]
    names = ["all", *(plain(gap.source) for gap in shown[1:])]
    values = [gap.gap for gap in shown]
    axes.barh(names, values, xerr=[gap.deviation for gap in shown], color="tab:orange", alpha=0.7)
    axes.invert_yaxis()
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set(xlabel="gap: text similarity near minus all (mean and deviation over probes)")
    axes.set_title(f"{found.model}: gap {found.gap.gap:.3f} ± {found.gap.deviation:.3f}")


def adaptation_figure(found: Sequence[Adaptation], chance: float) -> Figure:
    """Accuracy against added pairs per class, on the new and the old task, mean and deviation."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    x = [0, *(one.per_class for one in found)]
    for task, name in (
        ("new", "new task"),
        ("prototypes", "nearest class mean"),
        ("old", "old task"),
    ):
        curves = [getattr(one, task) for one in found]
        if all(curve is not None for curve in curves):
            start = [100 * chance] if task == "prototypes" else [100 * curves[0].mean_before]
            y = [*start, *(100 * curve.mean for curve in curves)]
            spread = [0.0, *(100 * curve.deviation for curve in curves)]
            axes.errorbar(x, y, yerr=spread, marker="o", markersize=4, capsize=2, label=name)
    axes.axhline(100 * chance, color="0.6", linestyle="--", label="chance (new task)")
    axes.set(xlabel="pairs added per class", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
