"""Figures of the accuracy commands, drawn into files; no window, no global state.

Marks are measurements, and lines only join those of one setting. `subject` names the model and the
pictures in a title; `chance` is what guessing scores. Class names and captions come from anyone:
matplotlib would read `$…$` in them as formulas, so they are passed with the dollar escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, PercentFormatter

from asif_lance.errors import InputError, format_count, printable
from asif_lance.evaluation.accuracy import Evaluation
from asif_lance.evaluation.adaptation import Adaptation
from asif_lance.evaluation.diagnosis import Diagnosis
from asif_lance.evaluation.scaling_curve import Point
from asif_lance.evaluation.self_tuning import SelfTuning
from asif_lance.evaluation.tuning import TriedSetting, Tuning, best_by_k_and_p
from asif_lance.explain.plot import cut
from asif_lance.relative import format_sides

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 110

#: Sources whose gap is drawn, those with the most pairs.
NAMED_SOURCES = 12

#: More classes than this get no names at the confusion matrix's edges.
NAMED_CLASSES = 40

_MARKERS = "os^Dvx"


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


def plain(text: str, longest: int = 40) -> str:
    """Text that matplotlib draws as it is, cut where it is long."""
    return cut(printable(text), longest).replace("$", r"\$")


def evaluation_figure(
    found: Evaluation, truths_by_answer: Mapping[tuple[str, str], int], subject: str
) -> Figure:
    """Confusion matrix (rows are true classes, shares of each) and reliability diagram.

    `truths_by_answer` counts the pictures of each (truth, answer).
    """
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    figure.suptitle(f"{plain(subject, 90)}: {found.top_1:.1%} right with recipe {found.recipe}")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _confusion(left, truths_by_answer)
    _reliability(right, found)
    return figure


def _confusion(axes: Any, counts: Mapping[tuple[str, str], int]) -> None:
    rows = sorted({truth for truth, _ in counts})
    columns = rows + sorted({answer for _, answer in counts} - set(rows))
    matrix = np.array([[counts.get((row, column), 0) for column in columns] for row in rows])
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    percent = PercentFormatter(1)
    axes.figure.colorbar(image, ax=axes, label="pictures of the class", format=percent)
    if len(columns) <= NAMED_CLASSES:
        axes.set_xticks(range(len(columns)), [plain(c) for c in columns], rotation=90)
        axes.set_yticks(range(len(rows)), [plain(r) for r in rows])
    else:
        axes.set(xticks=[], yticks=[])
    axes.set(xlabel="answer", ylabel="true class", title="answers by true class")


def _reliability(axes: Any, found: Evaluation) -> None:
    bins = found.reliability
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    sizes = [20 + 400 * b.pictures / found.pictures for b in bins]
    axes.scatter(
        [b.confidence for b in bins],
        [b.accuracy for b in bins],
        s=sizes,
        alpha=0.7,
        clip_on=False,  # bins at 0 and 1 are whole circles
        zorder=3,
        label="pictures in ten bins (area: how many)",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (best score's share of all scores)")
    axes.set(
        ylabel="right answers", title=f"expected calibration error {found.calibration_error:.3f}"
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    _put_legend_below(axes)


def _put_legend_below(axes: Any) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize=9)


def tuning_figure(found: Tuning | SelfTuning, subject: str) -> Figure:
    """Figure 9 of the paper: top-1 for every k and p, per recipe and side; the best is framed.

    A cell is the best over all else that was tried, such as the other side's k and p; one that was
    not tried is blank. A setting of the model's own beside the grid has no cell. By the self-test
    cells are its top-1, and the best is the setting of the least log-loss.
    """
    choices = _on_the_grid(found)
    recipes = list(dict.fromkeys(choice.recipe for choice in choices))
    sides = (0, 1) if any(c.k[0] != c.k[1] or c.p[0] != c.p[1] for c in choices) else (0,)
    figure = Figure(figsize=(5.6 * len(sides), 0.6 + 4.2 * len(recipes)), layout="constrained")
    if isinstance(found, SelfTuning):
        pictures, best = f"the self-test's {format_count(found.pictures, 'picture')}", "the chosen"
    else:
        pictures, best = format_count(found.on_tuning.pictures, "tuning picture"), "the best"
    best += " framed"
    if found.best not in choices:
        best = f"the model's own setting has {100 * found.best.top_1:.1f}"
    figure.suptitle(f"Top-1 accuracy in % on {pictures}, {best}\n{plain(subject, 60)}")
    panels = figure.subplots(len(recipes), len(sides), squeeze=False)
    shares = [choice.top_1 for choice in choices]
    for row, name in zip(panels, recipes, strict=True):
        settings = [choice for choice in choices if choice.recipe == name]
        for axes, side in zip(row, sides, strict=True):
            framed = found.best if found.best in settings else None
            _heat(axes, settings, side, framed, (min(shares), max(shares)))
            which = ("image side", "text side")[side] if len(sides) > 1 else "both sides"
            axes.set_title(f"recipe {plain(name)}, {which}")
    return figure


def _on_the_grid(found: Tuning | SelfTuning) -> list[TriedSetting]:
    """The choices, but for the model's own where its k or p is none of the others'."""
    others = [choice for choice in found.choices if choice != found.reference]
    own = found.reference
    ks, ps = {choice.k for choice in others}, {choice.p for choice in others}
    return others if others and (own.k not in ks or own.p not in ps) else list(found.choices)


def _heat(
    axes: Any,
    settings: Sequence[TriedSetting],
    side: int,
    framed: TriedSetting | None,
    span: tuple[float, float],
) -> None:
    cells = best_by_k_and_p(settings, side)
    ks, ps = sorted({k for k, _ in cells}), sorted({p for _, p in cells})
    values = np.array([[cells.get((k, p), np.nan) for k in ks] for p in ps])
    axes.imshow(values, cmap="viridis", vmin=span[0], vmax=span[1], origin="lower", aspect="auto")
    for (k, p), value in cells.items():
        colour = "white" if value <= sum(span) / 2 else "black"
        place = ks.index(k), ps.index(p)
        text = f"{100 * value:.1f}"
        axes.text(*place, text, ha="center", va="center", color=colour, fontsize=8)
    if framed is not None:
        corner = ks.index(framed.k[side]) - 0.5, ps.index(framed.p[side]) - 0.5
        axes.add_patch(
            Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2.5, clip_on=False)
        )
    axes.set_xticks(range(len(ks)), [str(k) for k in ks])
    axes.set_yticks(range(len(ps)), [f"{p:g}" for p in ps])
    axes.set(xlabel="k (anchors kept)", ylabel="p (power of similarities)")


def scaling_figure(points: Sequence[Point], chance: float, subject: str) -> Figure:
    """Figures 5 and 8: top-1 by number of pairs, a line per k and p, mean and deviation."""
    figure, axes = _accuracy_axes(f"Accuracy by number of pairs\n{plain(subject, 70)}")
    for k, p in dict.fromkeys((point.k, point.p) for point in points):
        curve = [point for point in points if (point.k, point.p) == (k, p)]
        means = [100 * point.mean for point in curve]
        deviations = [100 * _drawable(point.deviation) for point in curve]
        label = f"k = {format_sides(k)}, p = {format_sides(p)}"
        _draw_curve(axes, [point.pairs for point in curve], means, deviations, label)
    axes.axhline(100 * chance, color="0.6", linestyle="--", label="chance")
    axes.set(xscale="log", xlabel="pairs")
    sizes = sorted({point.pairs for point in points})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45, ha="right")
    axes.xaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def adaptation_figure(found: Sequence[Adaptation], chance: float, subject: str) -> Figure:
    """Accuracy against added pairs per class, on the new and the old task, mean and deviation."""
    figure, axes = _accuracy_axes(f"Accuracy by pairs added per class\n{plain(subject, 70)}")
    counts = [adaptation.per_class for adaptation in found]
    for task, name in (
        ("new", "new task"),
        ("prototypes", "new task, nearest class mean"),
        ("old", "old task"),
    ):
        curve = [getattr(adaptation, task) for adaptation in found]
        if all(accuracy is not None for accuracy in curve):
            means = [100 * accuracy.mean for accuracy in curve]
            deviations = [100 * _drawable(accuracy.deviation) for accuracy in curve]
            if task == "prototypes":  # without pictures there is no mean to be near
                _draw_curve(axes, counts, means, deviations, name)
            else:
                start = 100 * curve[0].mean_before
                _draw_curve(axes, [0, *counts], [start, *means], [0.0, *deviations], name)
    axes.axhline(100 * chance, color="0.6", linestyle="--", label="chance, new task")
    axes.set_xticks([0, *counts])
    axes.set_xlabel("pairs added per class")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _drawable(deviation: float | None) -> float:
    """For matplotlib, which draws no bar for NaN."""
    return np.nan if deviation is None else deviation


def _accuracy_axes(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.3)
    return figure, axes


def _draw_curve(
    axes: Any,
    x: Sequence[int],
    means: Sequence[float],
    deviations: Sequence[float],
    label: str,
) -> None:
    """Means with their deviations as open marks, so that equal ones are seen; a line joins them."""
    marker = _MARKERS[len(axes.containers) % len(_MARKERS)]
    style = {"marker": marker, "markersize": 8, "fillstyle": "none", "capsize": 2, "linewidth": 0.8}
    axes.errorbar(x, means, yerr=deviations, label=label, **style)


def diagnosis_figure(found: Diagnosis) -> Figure:
    """Figures 3 and 10 of the paper, the gap per source, and how often anchors are found."""
    figure = Figure(figsize=(12, 8.4), layout="constrained")
    probes, pairs = format_count(found.gap.probes, "probe"), format_count(found.reference, "pair")
    figure.suptitle(f"{found.model}: {probes} compared with {pairs}")
    panels = figure.subplots(2, 2)
    for axes, side in zip(panels[0], ("image", "text"), strict=True):
        _distributions(axes, found, side)
    _gaps(panels[1][0], found)
    _occurrences(panels[1][1], found)
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
        mean = float(bars @ middles)
        axes.axvline(mean, color=colour, linestyle="--", label=f"their mean, {mean:.2f}")
    shown = middles[(every + near) > 0]
    axes.set(xlim=(shown.min() - 0.05, shown.max() + 0.05), xlabel=f"{side} similarity")
    axes.set(ylabel="compared pairs", title=("images" if side == "image" else "their captions"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _put_legend_below(axes)


def _gaps(axes: Any, found: Diagnosis) -> None:
    shown = [found.gap, *found.sources[:NAMED_SOURCES]]
    names = ["all", *(plain(gap.source) for gap in shown[1:])]
    values = [gap.gap for gap in shown]
    deviations = [_drawable(gap.deviation) for gap in shown]
    rows = range(len(shown))
    axes.barh(rows, values, xerr=deviations, capsize=2, color="tab:orange", alpha=0.7)
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set(xlabel="caption similarity, similar images minus all (mean and deviation of probes)")
    spread = "" if found.gap.deviation is None else f" ± {found.gap.deviation:.3f}"
    axes.set_title(f"gap {found.gap.gap:.3f}{spread}, and by source")


def _occurrences(axes: Any, found: Diagnosis) -> None:
    """How many anchors are in how many probes' lists."""
    anchors, lists = np.array(found.occurrences).T
    axes.bar(lists, anchors, width=1.0, color="tab:blue")
    axes.set(yscale="log", ylim=(0.7, 1.5 * anchors.max()))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=f"lists of the {found.near} most similar images that an anchor is in")
    axes.set(ylabel="anchors", title=f"image hubs: skewness {found.hubs[0].skewness:.2f}")
