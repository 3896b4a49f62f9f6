"""What do the pairs alone foretell? Writes a section of docs/accuracy.md and its plot.

    ASIF_SHARED=../shared python benchmarks/accuracy_self_test.py [--output docs]

Flickr8k with the mean of its five captions as pairs; the CIFAR-10 sample, clothing and EuroSAT as
pictures, which the self-test never sees. `accuracy.py` writes the section too, when it remakes the
page. `--per-class` bounds the pictures that every setting of the grid classifies.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from accuracy_sets import Workshop, flickr, mean_captions, pairs
from matplotlib.figure import Figure
from rich.console import Console
from scipy.stats import spearmanr

from asif_lance.encoders import text_encoder
from asif_lance.evaluation import (
    ConfidenceReport,
    Forecast,
    Grid,
    Labelled,
    SelfTuning,
    TriedSetting,
    build_self_test,
    calibrate_by_self_test,
    check_rivals,
    diagnose,
    predict,
    read_labelled,
    report_confidence,
    tune,
    tune_by_self_test,
)
from asif_lance.evaluation import figures as plots
from asif_lance.evaluation.accuracy import check_answers, compare_correct
from asif_lance.evaluation.labelled_pictures import draw_per_class
from asif_lance.model import Model
from asif_lance.relative import RECIPES, format_sides, make_recipe
from asif_lance.relative.recipes import PAPER

BEGIN, END = "<!-- self-test -->", "<!-- end of self-test -->"
PLOT = "accuracy-self-test.png"
SETS = {
    "CIFAR-10": "cifar10/test-sample.parquet",
    "clothing": "clothing/test.parquet",
    "EuroSAT": "eurosat/sample.parquet",
}
COVERAGES = (0.8, 0.9)
#: What many captions of Flickr8k speak of; its other photos show what is true of few pairs.
WORDS = ["dog", "child", "woman", "man", "water", "snow", "beach", "street", "grass", "bicycle"]
FEW, DRAWS = (48, 100, 400, 2000), 5
note = Console(stderr=True).print


@dataclass(frozen=True)
class Measured:
    """One set of pictures beside what the pairs foretell of it."""

    name: str
    pictures: int
    tuning: SelfTuning
    tried: dict[tuple[object, ...], float]
    reports: list[tuple[ConfidenceReport, ...]]
    forecasts: list[tuple[Forecast, float]]
    ranks: dict[str, float]
    rivals: list[str]

    @property
    def paper(self) -> float:
        """What the authors' setting gets right of the pictures that the grid classified."""
        return self.tried[PAPER.name, PAPER.k, PAPER.p]  # k 800 and p 8 are in the grid

    @property
    def chosen(self) -> float:
        """The same of the setting that the self-test chose."""
        return self.tried[_key(self.tuning.best)]


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--per-class", type=int, default=100)
    options = parser.parse_args()
    if "ASIF_SHARED" not in os.environ:
        print("accuracy_self_test: needs the development data, set ASIF_SHARED")
        return
    write(Path(os.environ["ASIF_SHARED"]), options.output, options.per_class)


def write(shared: Path, output: Path, per_class: int) -> None:
    """Put the section into the page, in place of an earlier one or at its end."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), Path(folder), text_encoder())
        frame = pairs(mean_captions(flickr(shared)))
        model = shop.model("mean", frame)
        found = [measure(model, shared, name, per_class) for name in SETS]
        few = [few_pairs_line(shop, frame, count) for count in FEW]
    page = output / "accuracy.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2] or "\n"
    section = "\n".join([*lines(found, model.recipe.name), *FEW_PAIRS, *few])
    text = f"{before.rstrip()}\n\n{BEGIN}\n{section}\n{END}{after}"
    page.write_text(text, encoding="utf-8")
    plots.save(figure(found), output / PLOT)


def measure(model: Model, shared: Path, name: str, per_class: int) -> Measured:
    """Ask the pairs alone, then the pictures."""
    note(name)
    labelled = read_labelled(shared / "data" / SETS[name])
    prompts = model.prompts(labelled.classes)
    grid = Grid(recipes=tuple(RECIPES))
    tuning = tune_by_self_test(model, prompts, grid)
    some = draw(labelled, per_class)
    choices = tune(model, some, prompts, grid).choices
    tried = {_key(choice): choice.top_1 for choice in choices}
    answers = predict(model, labelled, prompts)
    correct = check_answers(answers, labelled.truths)
    truths = np.array(labelled.truths, dtype=object)
    share = {label: float(correct[truths == label].mean()) for label in labelled.classes}
    diagnosis = diagnose(model, prompts, probes=200)
    return Measured(
        name=name,
        pictures=len(some.names),
        tuning=tuning,
        tried=tried,
        reports=[report_confidence(model, answers, labelled.truths, c) for c in COVERAGES],
        forecasts=[(f, share[f.label]) for f in diagnosis.forecasts],
        ranks={
            what: spearmanr(
                [getattr(c, what) for c in diagnosis.coverage],
                [share[c.label] for c in diagnosis.coverage],
            )[0]
            for what in ("mentions", "agreement")
        },
        rivals=list(rival_cells(model, labelled)),
    )


def draw(labelled: Labelled, per_class: int) -> Labelled:
    """So many pictures of each class, or all where no class has more."""
    if max(labelled.truths.count(name) for name in labelled.classes) <= per_class:
        return labelled
    return labelled.take(draw_per_class(labelled, per_class, np.random.default_rng(0)))


def rival_cells(model: Model, labelled: Labelled) -> Iterator[str]:
    """Every recipe and rival, with its difference to the default on the same pictures."""
    prompts = model.prompts(labelled.classes)
    own = check_answers(predict(model, labelled, prompts), labelled.truths)
    found = {
        recipe: check_answers(
            predict(model.under(make_recipe(recipe)), labelled, prompts), labelled.truths
        )
        for recipe in RECIPES
    }
    found |= {n: c for n, c in check_rivals(model, labelled, prompts).items() if n not in RECIPES}
    for name, correct in found.items():
        beside = compare_correct((model.recipe.name, name), own, correct)
        low, high = beside.interval or (0.0, 0.0)
        yield (
            f"{100 * correct.mean():.1f}"
            if name == model.recipe.name
            else f"{100 * correct.mean():.1f} ({100 * beside.difference:+.1f}; "
            f"{100 * low:+.1f} to {100 * high:+.1f})"
        )


def _key(setting: TriedSetting) -> tuple[object, ...]:
    return setting.recipe, setting.k, setting.p


def lines(found: Sequence[Measured], default: str) -> Iterator[str]:
    """The section, line by line."""
    yield "## What the pairs alone foretell"
    yield ""
    yield (
        "Written by `ASIF_SHARED=… python benchmarks/accuracy_self_test.py`. Pairs: Flickr8k, the "
        "mean of five\ncaptions. The ten captions nearest to each label stand for it, and their "
        "pictures are classified with\nthemselves left out: no labelled picture is used. How it "
        "works and where it ends: [confidence.md](confidence.md)."
    )
    yield from tuning_lines(found)
    yield from forecast_lines(found)
    yield from confidence_lines(found)
    yield from rival_lines(found, default)


def tuning_lines(found: Sequence[Measured]) -> Iterator[str]:
    """What tune --self-test chooses, beside what the pictures would have chosen."""
    yield "\n### `tune --self-test`: recipe, k and p without labels"
    yield (
        "| pictures | number | settings | rank correlation with accuracy: log-loss | top-1 of the "
        "self-test | chosen by log-loss | accuracy | of the one with the best top-1 | best of the "
        "grid | `paper` |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: |"
    for one in found:
        choices = [c for c in one.tuning.choices if _key(c) in one.tried]
        true = [one.tried[_key(c)] for c in choices]
        by_loss, by_share = (
            spearmanr(values, true)[0]
            for values in ([-c.log_loss for c in choices], [c.top_1 for c in choices])
        )
        best, by_top_1 = one.tuning.best, max(choices, key=lambda choice: choice.top_1)
        setting = f"`{best.recipe}`, k {format_sides(best.k)}, p {format_sides(best.p)}"
        yield (
            f"| {one.name} | {one.pictures:,} | {len(choices)} | {by_loss:+.2f} | {by_share:+.2f} "
            f"| {setting} | {one.chosen:.1%} | {one.tried[_key(by_top_1)]:.1%} | {max(true):.1%} "
            f"| {one.paper:.1%} |"
        )


def forecast_lines(found: Sequence[Measured]) -> Iterator[str]:
    """How far the forecast of a label goes with its accuracy."""
    yield "\n### Which labels fail"
    yield f"![forecast against accuracy per label]({PLOT})\n"
    yield (
        "Rank correlation with accuracy per label, under the default recipe; with ten labels it is "
        "beyond\nchance (p < 0.05) from 0.65 on:\n"
    )
    yield "| pictures | labels | forecast | self-test | nearness | mentions | agreement |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for one in found:
        true = [share for _, share in one.forecasts]
        ranks = [
            spearmanr([getattr(f, what) for f, _ in one.forecasts], true)[0]
            for what in ("forecast", "self_test", "nearness")
        ] + [one.ranks[what] for what in ("mentions", "agreement")]
        yield f"| {one.name} | {len(true)} | {' | '.join(f'{r:+.2f}' for r in ranks)} |"


def confidence_lines(found: Sequence[Measured]) -> Iterator[str]:
    """Whether probabilities and sets hold what they state."""
    yield "\n### Confidence"
    yield (
        "By the self-test, and by one half of the pictures on the other (both halves in turn). "
        '"None" is the\nshare told to show none of the labels, though all do. Labelled pictures '
        "state how often the true\nlabel is possible (asked); by the self-test the possible labels "
        "have the asked probability together.\n"
    )
    yield (
        "| pictures | calibrated on | mean probability | right | calibration error | right above "
        "wrong | asked | true label possible | labels in the set | none | another kind |"
    )
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for one in found:
        for report in (r for reports in zip(*one.reports, strict=True) for r in reports):
            yield (
                f"| {one.name} | {report.source} | {report.probability:.1%} | {report.right:.1%} "
                f"| {report.calibration_error:.3f} | {report.ranks or 0:.2f} "
                f"| {report.coverage:.0%} | {report.covered:.1%} | {report.possible:.1f} "
                f"| {report.none:.1%} | {'yes' if report.kind.is_another else 'no'} "
                f"({report.kind.low:.0%} low, {report.kind.far:.0%} far) |"
            )


FEW_PAIRS = (
    "\n### With few pairs",
    f"Parts of Flickr8k, drawn {DRAWS} times, means. Held out are as many other photos: "
    "those whose captions\nare the ten nearest to each of ten words are classified.\n",
    "| pairs | self-test right | held-out right | mean probability | none (asked: 10%) |",
    "| ---: | ---: | ---: | ---: | ---: |",
)


def few_pairs_line(shop: Workshop, frame: pl.DataFrame, count: int) -> str:
    """What the self-test says of few pairs, beside what is true of as many other photos."""
    note(f"{count} pairs")
    drawn = [few_pairs(shop, frame, count, seed) for seed in range(DRAWS)]
    told, true, probability, none = np.mean(drawn, axis=0)
    return f"| {count:,} | {told:.1%} | {true:.1%} | {probability:.1%} | {none:.1%} |"


def few_pairs(
    shop: Workshop, frame: pl.DataFrame, count: int, seed: int
) -> tuple[float, float, float, float]:
    """Of one draw: right in the self-test, right held out, mean probability, told to show none."""
    order = np.random.default_rng(seed).permutation(len(frame))
    model = shop.model(f"few-{count}-{seed}", frame[np.sort(order[:count])])
    others = shop.model(f"others-{count}-{seed}", frame[np.sort(order[count : 2 * count])])
    prompts = model.prompts(WORDS)
    labels = model.compile(prompts)
    test, new = build_self_test(model, prompts), build_self_test(others, prompts)
    answers = list(model.classify_vectors([WORDS[i] for i in new.truths], new.queries, labels))
    calibration = calibrate_by_self_test(model, labels)
    assessed = [calibration.assess(answer) for answer in answers]
    return (
        float((test.scores(model, labels)[0].argmax(axis=1) == test.truths).mean()),
        float(np.mean([answer.label == answer.image for answer in answers])),
        float(np.mean([one.probabilities[0] for one in assessed])),
        float(np.mean([one.none for one in assessed])),
    )


def rival_lines(found: Sequence[Measured], default: str) -> Iterator[str]:
    """The recipes beside other closed forms on the same pairs."""
    yield "\n### Rivals on the same pairs"
    yield (
        f"Top-1 in percent; in brackets the difference to `{default}` in points with its 95 % "
        "paired bootstrap\ninterval. CSA and Procrustes cannot say which pairs an answer rests on, "
        "and forget a pair exactly\nonly if they are fitted again from all the others.\n"
    )
    yield f"| | {' | '.join(one.name for one in found)} |"
    yield f"| --- |{' --- |' * len(found)}"
    names = [*(f"`{name}`" for name in RECIPES), "CSA", "Procrustes"]
    columns = [one.rivals for one in found]
    for name, *cells in zip(names, *columns, strict=True):
        yield f"| {name} | {' | '.join(cells)} |"


def figure(found: Sequence[Measured]) -> Figure:
    """Forecast against accuracy, a point per label."""
    drawn = Figure(figsize=(4.4 * len(found), 4.4), layout="constrained")
    drawn.suptitle("What the pairs foretell of each label, and what is true")
    for axes, one in zip(drawn.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        told = [f.forecast for f, _ in one.forecasts]
        true = [share for _, share in one.forecasts]
        axes.scatter(told, true)
        for (forecast, share), x in zip(one.forecasts, told, strict=True):
            place = {"xytext": (3, 3), "textcoords": "offset points"}
            axes.annotate(plots.plain(forecast.label), (x, share), fontsize=7, **place)
        rank = spearmanr(told, true)[0]
        axes.set(title=f"{one.name}: rank correlation {rank:+.2f}", ylim=(-0.03, 1.03))
        axes.set(xlabel="forecast (self-test × nearest caption)", ylabel="accuracy")
    return drawn


if __name__ == "__main__":
    main()
