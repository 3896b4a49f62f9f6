"""How an answer of classify is printed: as a table, as JSON, or as a line of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from .confidence import print_confident
from .output import print_json, print_table

_CSV_BEGUN = f"{__name__}.csv"  # a key of click's `meta`

_COLUMNS = ["contribution", "image", "text", "caption", "pair_id"]


def print_answer(answer: dict[str, Any], output: str, coverage: float) -> None:
    """An answer as it was asked for; `coverage` is what was asked of confidence, if it was."""
    ranking = [(one["label"], one["score"]) for one in answer["predictions"]]
    if output == "json":
        print_json(answer)
        return
    if output == "csv":
        print_csv_line(answer["image"], answer["model"], ranking)
        return
    if "confidence" in answer:
        print_confident(answer, coverage)
    else:
        print_table([answer["image"], answer["model"]], ranking)
    if "pairs" in answer:
        print_table(*tabulate_pairs(answer["pairs"]))
    click.echo()


def print_csv_line(image: str, model: str, ranking: Sequence[tuple[str, float]]) -> None:
    """A line for a picture, its best label first; column names above the first line."""
    from asif_lance.audit.csv_lines import csv_line

    told = click.get_current_context().meta
    if not told.setdefault(_CSV_BEGUN, False):
        told[_CSV_BEGUN] = True
        others = [f"{name}_{i}" for i in range(2, len(ranking) + 1) for name in ("label", "score")]
        click.echo(csv_line(["image", "model", "label", "score", *others]), nl=False)
    click.echo(csv_line([image, model, *(cell for one in ranking for cell in one)]), nl=False)


def tabulate_pairs(pairs: Sequence[dict[str, Any]]) -> tuple[list[str], list[tuple[object, ...]]]:
    """Columns and rows of deciding pairs; roles have a column where some pair has one."""
    roles = any(pair["role"] for pair in pairs)
    rows = [(*_row(pair), pair["role"] or "") if roles else _row(pair) for pair in pairs]
    return [*_COLUMNS, *(["role"] if roles else [])], rows


def _row(pair: dict[str, Any]) -> tuple[object, ...]:
    numbers = (pair[name] for name in ("contribution", "image_similarity", "text_similarity"))
    return (*numbers, " · ".join(pair["captions"]), pair["pair_id"])
