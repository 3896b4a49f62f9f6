"""What do a few labelled pictures teach? Writes docs/examples.md and its plot.

    ASIF_SHARED=../shared python benchmarks/accuracy_examples.py [--output docs] [--trials 5]

Every figure in the page comes out of this run. The model: Flickr8k's photos, one caption each. The
tasks: CIFAR-10, clothing and EuroSAT of the development data that ASIF_SHARED names. The form of
the score was chosen on them, so they are no confirmation of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import rendered
from accuracy_sets import Workshop, flickr, pairs
from rich.console import Console

import asif_lance
from asif_lance.encoders import text_encoder
from asif_lance.evaluation import Adaptation, Labelled, adapt, captions_of, read_labelled
from asif_lance.evaluation import figures as plots
from asif_lance.model import Model, Prompts
from asif_lance.relative import DEFAULT

COUNTS = (1, 2, 5, 10, 20)
HALVES, HALF_COUNTS = 3, (1, 5, 20)
FEW_DRAWS, FEW_LABELS, FEW_COUNTS = 3, (2, 3, 5), (1, 5)
HEADLINE = "EuroSAT", 10
FILES = {
    "CIFAR-10": ("cifar10/test-sample",),
    "clothing": ("clothing/test", "clothing/train-sample"),
    "EuroSAT": ("eurosat/sample",),
}
note = Console(stderr=True).print


@dataclass(frozen=True)
class Task:
    """Labelled pictures, and the prompts and captions of their classes."""

    name: str
    labelled: Labelled
    prompts: Prompts
    texts: Any

    @staticmethod
    def of(name: str, labelled: Labelled, model: Model) -> Task:
        """Ask about its classes with the packaged prompt; captions have the same wording."""
        prompts = model.prompts(labelled.classes)
        _, texts = captions_of(prompts, None, model.text_encoder)
        return Task(name, labelled, prompts, texts)


@dataclass(frozen=True)
class Half:
    """A task of which half of the classes have examples.

    Attributes:
        taught: share of the pictures of these classes that is right, before and after.
        others: the same of the other classes.
    """

    task: str
    per_class: int
    taught: tuple[float, float]
    others: tuple[float, float]


@dataclass(frozen=True)
class Few:
    """A task with a few labels: shares right before, after, and by the nearest class mean."""

    task: str
    labels: int
    per_class: int
    before: float
    after: float
    class_mean: float


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    root = Path(os.environ["ASIF_SHARED"])
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), Path(folder), text_encoder())
        model = shop.model("flickr8k", pairs(flickr(root).filter("first")))
        tasks = [Task.of(name, read(root, files), model) for name, files in FILES.items()]
        page = measured(model, tasks, options)
    (options.output / "examples.md").write_text(
        rendered(page, "accuracy_examples.md.j2"), encoding="utf-8"
    )


def read(root: Path, files: Sequence[str]) -> Labelled:
    """The labelled vectors of some files, as one set."""
    parts = [read_labelled(root / "data" / f"{file}.parquet") for file in files]
    return replace(
        parts[0],
        names=tuple(name for part in parts for name in part.names),
        truths=tuple(truth for part in parts for truth in part.truths),
        vectors=np.concatenate([part.embeddings for part in parts]),
    )


def measured(model: Model, tasks: Sequence[Task], options: argparse.Namespace) -> dict[str, Any]:
    """All that the page shows."""
    found = {}
    for task in tasks:
        note(task.name)
        old = tasks[1] if task is tasks[0] else tasks[0]
        asked: Any = {"old": (old.labelled, old.prompts), "trials": options.trials}
        found[task.name] = adapt(model, task.labelled, task.prompts, task.texts, COUNTS, **asked)
    (headline,) = (a for a in found[HEADLINE[0]] if a.per_class == HEADLINE[1])
    figure = plots.adaptation_figure(found[HEADLINE[0]], 1 / 10, HEADLINE[0])
    plots.save(figure, options.output / "examples.png")
    cells = [one for adaptations in found.values() for one in adaptations]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": asif_lance.__version__,
        "default": DEFAULT,
        "trials": options.trials,
        "pairs": model.anchors.count,
        "tasks": {task.name: len(task.labelled.names) for task in tasks},
        "found": found,
        "headline": headline,
        "above": sum(one.interval is not None and one.interval[0] > 0 for one in cells),
        "below": sum(one.interval is not None and one.interval[1] < 0 for one in cells),
        "cells": len(cells),
        "mean": mean_difference(cells),
        "old": max(abs(one.old.mean - one.old.mean_before) for one in cells if one.old),
        "halves": [half for task in tasks for half in halved(model, task)],
        "taught_halves": HALVES,
        "few": [few for task in tasks for few in with_few_labels(model, task)],
        "few_draws": FEW_DRAWS,
    }


def mean_difference(cells: Sequence[Adaptation]) -> float:
    """Of all cells, from the nearest class mean."""
    return float(np.mean([one.difference for one in cells]))


def with_few_labels(model: Model, task: Task) -> list[Few]:
    """Ask about a few random classes, all of which have examples."""
    note(f"{task.name}, few labels")
    names = np.array(task.labelled.classes, dtype=object)
    truths = np.array(task.labelled.truths, dtype=object)
    rows = []
    for count in FEW_LABELS:
        drawn = []
        for draw in range(FEW_DRAWS):
            chosen = np.random.default_rng(draw).permutation(names)[:count]
            part = Task.of(task.name, task.labelled.take(np.isin(truths, chosen)), model)
            asked: Any = {"trials": 2, "seed": draw}
            found = adapt(model, part.labelled, part.prompts, part.texts, FEW_COUNTS, **asked)
            drawn.append([(a.new.mean_before, a.new.mean, a.prototypes.mean) for a in found])
        for per_class, shares in zip(FEW_COUNTS, np.mean(drawn, axis=0).tolist(), strict=True):
            rows.append(Few(task.name, count, per_class, *shares))
    return rows


def halved(model: Model, task: Task) -> list[Half]:
    """Teach a random half of the classes; both halves are asked about all classes."""
    note(f"{task.name}, half of the classes")
    names = np.array(task.labelled.classes, dtype=object)
    truths = np.array(task.labelled.truths, dtype=object)
    rows = []
    for half in range(HALVES):
        chosen = np.random.default_rng(half).permutation(names)[: len(names) // 2]
        taught = np.isin(truths, chosen)
        found = adapt(
            model,
            task.labelled.take(taught),
            task.prompts,
            task.texts,
            HALF_COUNTS,
            old=(task.labelled.take(~taught), task.prompts),
            trials=1,
            seed=half,
        )
        rows.append(
            [(a.new.mean_before, a.new.mean, a.old.mean_before, a.old.mean) for a in found if a.old]
        )
    means = np.mean(rows, axis=0).tolist()
    return [
        Half(task.name, count, (before, after), (others_before, others_after))
        for count, (before, after, others_before, others_after) in zip(
            HALF_COUNTS, means, strict=True
        )
    ]


if __name__ == "__main__":
    main()
