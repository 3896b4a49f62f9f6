"""What answers look like: as a table, as a JSON object and as lines of CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .confidence import print_confident
from .output import print_json, print_table
from .progress import hide_bars

if TYPE_CHECKING:
    from asif_lance.model import JointPrediction, Prediction, Prompts

_CSV_BEGUN = f"{__name__}.csv"  # a key of click's `meta`


def print_answer(answer: dict[str, Any], output: str, coverage: float) -> None:
    """An answer as it was asked for; `coverage` is what was asked of confidence, if it was."""
    ranking = [(one["label"], one["score"]) for one in answer["predictions"]]
    if output == "json":
        print_json(answer)
        return
    if output == "csv":
        _print_csv(answer["image"], answer["model"], ranking)
        return
    if "confidence" in answer:
        print_confident(answer, coverage)
    else:
        print_table([answer["image"], answer["model"]], ranking)
    if "pairs" in answer:
        print_table(*_table(answer["pairs"]))
    click.echo()


def print_joint_answer(answer: JointPrediction, top: int, explain: int | None, output: str) -> None:
    """An answer of several databases; JSON has in `models` what each of them says alone."""
    pairs = None if explain is None else answer.attributions(explain)
    hide_bars()
    if output == "json":
        parts = zip(answer.names, answer.parts, strict=True)
        models = [
            {"database": _database(name), **describe_prediction(part, top)} for name, part in parts
        ]
        value = {"image": answer.image, "predictions": answer.ranked(top), "models": models}
        if pairs is not None:
            value["pairs"] = [{"database": _database(name), **asdict(a)} for name, a in pairs]
        print_json(value)
        return
    if output == "csv":
        _print_csv(answer.image, answer.model, answer.ranking[:top])
        return
    print_table([answer.image, answer.model], answer.ranking[:top])
    if pairs is not None:
        columns, rows = _table([asdict(pair) for _, pair in pairs])
        names = (_database(name) for name, _ in pairs)
        print_table([*columns, "database"], [(*r, n) for r, n in zip(rows, names, strict=True)])
    click.echo()


def _print_csv(image: str, model: str, ranking: Sequence[tuple[str, float]]) -> None:
    """A line for a picture, its best label first; column names above the first line."""
    from asif_lance.audit.csv_lines import csv_line

    told = click.get_current_context().meta
    if not told.setdefault(_CSV_BEGUN, False):
        told[_CSV_BEGUN] = True
        others = [f"{name}_{i}" for i in range(2, len(ranking) + 1) for name in ("label", "score")]
        click.echo(csv_line(["image", "model", "label", "score", *others]), nl=False)
    click.echo(csv_line([image, model, *(cell for one in ranking for cell in one)]), nl=False)


def describe_prediction(
    prediction: Prediction, top: int, prompts: Prompts | None = None
) -> dict[str, Any]:
    """A prediction as the contract has it but for its image, and how its labels were asked.

    `templates` (a named set, or themselves) and `ensemble` are missing for brought label vectors.
    Read from a record, it does not know its `prompts`.
    """
    value, asked = prediction.answer(top), prompts or prediction.evidence.labels.prompts
    if asked.templates:
        value |= {"templates": asked.templates, "ensemble": asked.ensemble}
    return value


_COLUMNS = ["contribution", "image", "text", "caption", "pair_id"]


def _table(pairs: Sequence[dict[str, Any]]) -> tuple[list[str], list[tuple[object, ...]]]:
    """Columns and rows of deciding pairs; roles have a column where some pair has one."""
    roles = any(pair["role"] for pair in pairs)
    rows = [(*_row(pair), pair["role"] or "") if roles else _row(pair) for pair in pairs]
    return [*_COLUMNS, *(["role"] if roles else [])], rows


def _row(pair: dict[str, Any]) -> tuple[object, ...]:
    numbers = (pair[name] for name in ("contribution", "image_similarity", "text_similarity"))
    return (*numbers, " · ".join(pair["captions"]), pair["pair_id"])


def _database(name: str) -> str:
    """The database of `DB@V`."""
    return name.rpartition("@")[0]
