"""A run's confusions as a table: the classes that were mistaken most, truth by answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from asif_lance.service.messages import Cell

#: Classes of the table; those with most mistakes are shown.
CLASSES = 12


@dataclass(frozen=True, slots=True)
class Row:
    """One truth.

    Attributes:
        truth: the true label.
        pictures: how many have it.
        right: how many of them were told so.
        counts: how many got each of the table's labels, in its order.
    """

    truth: str
    pictures: int
    right: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConfusionTable:
    """Truths by answers.

    Attributes:
        labels: the answers, in the order of the columns; the truths in the same order.
        rows: the truths.
        most: the largest number of the table that is no right answer; at least 1.
        hidden: how many truths are not shown.
    """

    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    most: int
    hidden: int


def tabulate(cells: Sequence[Cell]) -> ConfusionTable:
    """The table of a run's cells."""
    totals, right, wrong = Counter[str](), Counter[str](), Counter[str]()
    for cell in cells:
        totals[cell.truth] += cell.pictures
        if cell.truth == cell.label:
            right[cell.truth] += cell.pictures
        else:
            wrong[cell.truth] += cell.pictures
            wrong[cell.label] += cell.pictures
    names = totals.keys() | wrong.keys()
    chosen = sorted(sorted(names, key=lambda name: (-wrong[name], name))[:CLASSES])
    counts = {(cell.truth, cell.label): cell.pictures for cell in cells}
    rows = tuple(
        Row(name, totals[name], right[name], tuple(counts.get((name, x), 0) for x in chosen))
        for name in chosen
        if totals[name]
    )
    mistakes = [n for (truth, label), n in counts.items() if truth != label]
    shown = {row.truth for row in rows}
    return ConfusionTable(tuple(chosen), rows, max(mistakes, default=1), len(totals.keys() - shown))
