"""How accurate is it, and what makes it better? Writes docs/accuracy.md and its plots.

    ASIF_SHARED=../shared python benchmarks/accuracy.py [--output docs] [--per-class 50]

Every figure in the page comes out of this run. The stamps and GCompris come by apt; Flickr8k and
the CIFAR-10 sample are the development data that ASIF_SHARED names, and without it the page has
only what can be measured without them. `--per-class` bounds the pictures of the sections that
search again and again (tuning, scaling, adaptation); the tables use all pictures.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import accuracy_self_test
import captions
import numpy as np
import polars as pl
from accuracy_answers import REFERENCE, Answers, Cell, Way, beside
from accuracy_sets import Part, TestSet, Workshop, cifar, flickr, mean_captions, pairs, tested
from accuracy_together import two_pairs
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

import asif_lance
from asif_lance.encoders import text_encoder
from asif_lance.evaluation import Grid, adapt, captions_of, diagnose, scaling, tune
from asif_lance.evaluation import figures as plots
from asif_lance.evaluation.labelled_pictures import draw_per_class
from asif_lance.evaluation.sweep import check_scores, score_labels, sweep
from asif_lance.model import Ensemble
from asif_lance.records import BoolArray
from asif_lance.relative import DEFAULT, RECIPES
from asif_lance.relative.recipes import PAPER

ENSEMBLES: tuple[Ensemble, ...] = ("max", "mean-embedding", "mean-relative")
TEMPLATES = ("general", "imagenet-7", "lit", "imagenet-80")
COUNTS = (1, 2, 5, 10, 20)
CAPTIONS = ("a photo of a {}.", "a tiny picture of a {}.")
note = Console(stderr=True).print


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--cache", type=Path, default=Path("asif-demo"))
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--second-text", metavar="NAME", help="for a second pair of encoders")
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    shared = os.environ.get("ASIF_SHARED")
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), options.cache, text_encoder())
        text = rendered(measured(shop, Path(shared) if shared else None, options))
    (options.output / "accuracy.md").write_text(text, encoding="utf-8")
    if shared:
        accuracy_self_test.write(Path(shared), options.output, options.per_class)


def rendered(page: dict[str, Any], template: str = "accuracy.md.j2") -> str:
    """The page as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "points": points, "cell": shown, "span": span}
    return environment.get_template(template).render(page)


def measured(shop: Workshop, shared: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """All that the page shows."""
    note("encoding the stamps and GCompris")
    frame, photos = shop.stamps_frame(), shop.gcompris()
    stamps_model = shop.model("stamps", pairs(frame))
    folds = shop.folds("fold", frame)
    tests = [folds, tested("stamps → GCompris", stamps_model, photos)]
    own = flickr(shared) if shared else None
    if own is not None and shared is not None:
        photos_model = shop.model("first", pairs(own.filter("first")))
        tests = [*_of_flickr(photos_model, frame, photos, shared), *tests]
    main_test, answers = tests[0], Answers()
    note("recipes and prompts")
    table = _table(answers, tests)
    single = [test for test in tests if len(test.parts) == 1]  # folds have a model each
    part = single[0].parts[0]
    few = replace(part, labelled=part.labelled.take(_few(part, options.per_class)))
    page: dict[str, Any] = {
        "default": DEFAULT,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "version": asif_lance.__version__,
        "python": platform.python_version(),
        "tests": tests,
        "main": main_test,
        "few": few,
        "few_name": single[0].name,
        "per_class": options.per_class,
        "trials": options.trials,
        **table,
    }
    note("captions")
    page["recipe_lines"] = []
    if shared:
        page["recipe_lines"] = captions.recipes(*captions.measure(shared, options.cache / "stamps"))
    page["captions"] = _captions(shop, own, tests, answers)
    note("two pairs of encoders")
    page["together"] = two_pairs(shop, shared, options.second_text)
    page["second_text"] = options.second_text
    note("tuning")
    subject = f"{single[0].name}, {len(few.labelled.names):,} pictures"
    page["tuning"] = _tuning(few, answers, options.output, subject)
    note("scaling")
    page["scaling"] = _scaling(few, answers, options, subject)
    note("adaptation")
    old = next((test for test in single[1:] if test.parts[0].model is part.model), None)
    page["adaptation"] = _adaptation(few, old.parts[0] if old else None, answers, options, subject)
    page["old"] = old.name if old else ""
    page["old_changes"] = [
        (*asked, one.old.mean - one.old.mean_before)
        for asked, found in page["adaptation"].items()
        for one in found
        if one.per_class == 10 and one.old is not None
    ]
    note("diagnosis")
    page["diagnosis"] = _diagnosis(part, answers, options.output)
    return page


def _of_flickr(model: Any, stamps: pl.DataFrame, photos: pl.DataFrame, root: Path) -> list[TestSet]:
    sample = cifar(root)
    return [
        TestSet("Flickr8k → CIFAR-10", (Part(model, sample, sample.classes),)),
        tested("Flickr8k → stamps", model, stamps),
        tested("Flickr8k → GCompris", model, photos),
    ]


def _few(part: Part, count: int) -> BoolArray:
    sizes = [part.labelled.truths.count(name) for name in part.labelled.classes]
    if min(sizes) <= count:
        return np.ones(len(part.labelled.names), dtype=bool)
    return draw_per_class(part.labelled, count, np.random.default_rng(0))


def _table(answers: Answers, tests: Sequence[TestSet]) -> dict[str, Any]:
    """Every recipe × templates × ensemble; the best on the first set, confirmed on the others."""
    prompts = [("single", "max"), *product(TEMPLATES, ENSEMBLES)]
    ways = [Way(r, t, e) for r in RECIPES.values() for t, e in prompts]  # type: ignore[arg-type]
    cells = {way: [answers.cell(test, way) for test in tests] for way in ways}
    best = max(ways, key=lambda way: cells[way][0].top_1)
    return {
        "comparisons": len(ways),
        "recipes": [(w, cells[w]) for w in ways if w.templates == "single"],
        "prompts": [(w, cells[w]) for w in ways],
        "best": (best, cells[best]),
    }


def _captions(
    shop: Workshop, own: pl.DataFrame | None, tests: Sequence[TestSet], answers: Answers
) -> list[tuple[str, int, list[Cell]]]:
    """Several captions per image: the first, each a pair of its own, and their mean."""
    if own is None:
        return []
    frames = {"five pairs per photo": own, "one pair, mean of five": mean_captions(own)}
    mine = [test for test in tests if test.name.startswith("Flickr8k")]
    rows = [("the first caption", PAPER.name, [answers.cell(test, REFERENCE) for test in mine])]
    rows += [
        ("the first caption", r.name, [answers.cell(test, Way(r)) for test in mine])
        for r in RECIPES.values()
        if r != PAPER
    ]
    for name, frame in frames.items():
        model = shop.model(name.replace(" ", "-"), pairs(frame))
        for recipe in RECIPES.values():
            cells = []
            for test in mine:
                other = TestSet(f"{test.name} {name}", (replace(test.parts[0], model=model),))
                correct = answers.check(other, Way(recipe))
                cells.append(beside(correct, answers.check(test, REFERENCE)))
            rows.append((name, recipe.name, cells))
    return rows  # type: ignore[return-value]


def _tuning(part: Part, answers: Answers, output: Path, subject: str) -> dict[str, Any]:
    tried, ensembles = ("single", "general", "lit"), ENSEMBLES[:2]
    prompts = [answers.prompts(part, templates) for templates in tried]
    grid = Grid(recipes=tuple(RECIPES), ensembles=ensembles)
    found = tune(part.model.under(PAPER), part.labelled, prompts, grid, holdout=0.5)
    plots.save(plots.tuning_figure(found, subject), output / "accuracy-tuning.png")
    around = [
        c.top_1
        for c in found.choices
        if (c.recipe, c.templates) == (PAPER.name, tried[0])
        and c.k[0] in (400, 800, 1600)
        and c.p[0] in (6, 8, 12)
    ]
    shown = {"found": found, "templates": tried, "ensembles": ensembles}
    return {**shown, "around": (min(around), max(around), len(around))}


def _scaling(
    part: Part, answers: Answers, options: argparse.Namespace, subject: str
) -> dict[str, Any]:
    count = part.model.anchors.count
    ks = [k for k in (100, 800, count) if k <= count]
    settings = [((k, k), (p, p)) for k in ks for p in (1.0, 8.0)]
    prompts, found = answers.prompts(part, "single"), {}
    for recipe in RECIPES.values():
        model = part.model.under(recipe)
        asked = settings if recipe == PAPER else [(recipe.k, recipe.p)]
        found[recipe.name] = scaling(
            model, part.labelled, prompts, asked, repetitions=options.trials
        )
    figure = plots.scaling_figure(found[PAPER.name], 1 / len(part.labels), subject)
    plots.save(figure, options.output / "accuracy-scaling.png")
    own = [p for p in found[PAPER.name] if p.k[0] == ks[-2] and p.p[0] == 8]
    growth: dict[str, Any] = {"from": own[-2].pairs, "to": own[-1].pairs, "k": ks[-2]}
    growth["gain"] = own[-1].mean - own[-2].mean
    return {"curves": found, "growth": growth, "findings": _findings(part, answers, ks)}


def _findings(part: Part, answers: Answers, ks: Sequence[int]) -> list[tuple[str, Cell]]:
    """Paired differences for k ≪ n and p > 1, all pairs, per recipe."""
    rows = []
    for recipe in RECIPES.values():
        model, prompts = part.model.under(recipe), answers.prompts(part, "single")
        most = (ks[-1], ks[-1])
        found = sweep(model, part.labelled.queries, prompts, most, ("max",))

        def check(k: int, p: float) -> BoolArray:
            scores = score_labels(found.image_side(k, p), found.text_side(k, p, "max"))  # noqa: B023
            return check_scores(scores, part.labels, part.labelled.truths)

        small, name = ks[0], recipe.name
        rows.append(
            (
                f"{name}: k = {small} against k = n, p = 8",
                beside(check(small, 8), check(most[0], 8)),
            )
        )
        rows.append(
            (
                f"{name}: k = {small} against k = n, p = 1",
                beside(check(small, 1), check(most[0], 1)),
            )
        )
        rows.append(
            (f"{name}: p = 8 against p = 1, k = {small}", beside(check(small, 8), check(small, 1)))
        )
        middle = ks[min(1, len(ks) - 1)]
        rows.append(
            (
                f"{name}: p = 8 against p = 1, k = {middle}",
                beside(check(middle, 8), check(middle, 1)),
            )
        )
    return rows


def _adaptation(
    part: Part,
    old: Part | None,
    answers: Answers,
    options: argparse.Namespace,
    subject: str,
) -> dict[str, Any]:
    prompts = answers.prompts(part, "single")
    task = None if old is None else (old.labelled, answers.prompts(old, "single"))
    rows = {}
    for recipe, caption in product(RECIPES.values(), CAPTIONS):
        curve = recipe.name == DEFAULT and caption == CAPTIONS[0]
        counts = COUNTS if curve else (10,)
        _, texts = captions_of(prompts, caption, part.model.text_encoder)
        rows[recipe.name, caption] = adapt(
            part.model.under(recipe),
            part.labelled,
            prompts,
            texts,
            counts,
            old=task,
            trials=options.trials,
        )
    figure = plots.adaptation_figure(rows[DEFAULT, CAPTIONS[0]], 1 / len(part.labels), subject)
    plots.save(figure, options.output / "accuracy-adaptation.png")
    return rows


def _diagnosis(part: Part, answers: Answers, output: Path) -> dict[str, Any]:
    found = diagnose(part.model, answers.prompts(part, "single"))
    plots.save(plots.diagnosis_figure(found), output / "accuracy-diagnosis.png")
    truths = np.array(part.labelled.truths, dtype=object)
    way = Way(RECIPES[DEFAULT])
    correct = check_scores(answers.scores(part, way), part.labels, part.labelled.truths)
    share = {name: float(correct[truths == name].mean()) for name in part.labelled.classes}
    known = [c for c in found.coverage if c.label in share]
    ranks = {
        what: spearman([getattr(c, what) for c in known], [share[c.label] for c in known])
        for what in ("mentions", "nearest", "agreement")
    }
    return {"found": found, "classes": [(c, share[c.label]) for c in known], "ranks": ranks}


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation, equal values at their mean rank."""
    ranks = [pl.Series(values).rank().to_numpy() for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in points."""
    return f"{100 * value:+.1f}"


def span(interval: Iterable[float]) -> str:
    """An interval of a difference."""
    low, high = interval
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def shown(cell: Cell) -> str:
    """A table's cell; the reference itself has no difference."""
    if cell.difference_interval == (0.0, 0.0):
        return percent(cell.top_1)
    return f"{percent(cell.top_1)} ({points(cell.difference)}; {span(cell.difference_interval)})"


if __name__ == "__main__":
    main()
