"""Recipes side by side; and several captions of one picture: a pair each, or one with their mean?

    ASIF_SHARED=... python benchmarks/captions.py [--docs docs/recipes.md] [--stamps FOLDER]

`ASIF_SHARED` is the folder of development data: Flickr8k with five captions per photo as pairs, and
pictures of five tasks to classify. Everything goes through `ingest --captions` and the models made
of it, under each recipe, with "a photo of a {}.". Differences are those of `mean` against `each`,
in points, with their 95 % paired bootstrap intervals; those of the mean per class weigh each
picture by the size of its class. A second table has the recipes beside `paper` and beside one
another, with the same captions; its last lines are the mean over the sets, whose interval is that
of the sets' own bootstrap means, drawn apart. `--docs` writes both tables into that file;
`accuracy.py` writes the second into its page too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from recipes import KEYWORDS, TEST, Photos, matrix, prompts
from splits import encoded_images

from asif_lance.evaluation import bootstrap_mean
from asif_lance.evaluation.accuracy import check_answers
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.ingest import tuxpaint as stamps
from asif_lance.model import open_model, prompts_from_vectors
from asif_lance.records import BoolArray
from asif_lance.relative import RECIPES

BEGIN, END = "<!-- captions -->", "<!-- end of captions -->"
BESIDE = "<!-- recipes -->", "<!-- end of recipes -->"
REPEATS = 10_000
Found = dict[tuple[str, str, str], BoolArray]
WAYS = "each", "mean"
MEASURES = "top-1", "per class"
SETS = {
    "CIFAR-10": "cifar10/test-sample.parquet",
    "clothing": "clothing/test.parquet",
    "EuroSAT": "eurosat/sample.parquet",
}


@dataclass(frozen=True)
class Question:
    """Pictures with what they show, and the photos whose pairs answer."""

    name: str
    photos: NDArray[np.int64]
    vectors: NDArray[np.float32]
    truths: list[str]
    labels: list[str]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--stamps", type=Path, default=Path("asif-demo/stamps"))
    options = parser.parse_args()
    if "ASIF_SHARED" not in os.environ:
        print("captions: needs the development data, set ASIF_SHARED")
        return
    asked, found = measure(Path(os.environ["ASIF_SHARED"]), options.stamps)
    for (begin, end), table in (
        ((BEGIN, END), lines(asked, found)),
        (BESIDE, recipes(asked, found)),
    ):
        text = "\n".join(table)
        print(text, flush=True)
        if options.docs:
            before, _, rest = options.docs.read_text().partition(begin)
            after = rest.partition(end)[2]
            options.docs.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def measure(shared: Path, stamps_folder: Path) -> tuple[list[Question], Found]:
    """All questions, and what is right of them."""
    data = shared / "data"
    photos = Photos(data)
    asked = [*questions(data, photos), stamps_question(stamps_folder, photos)]
    return asked, answers(photos, asked)


def questions(data: Path, photos: Photos) -> Iterator[Question]:
    """Three tasks for all photos' pairs, and photos held out of Flickr8k for the others'."""
    everything = np.arange(len(photos.image))
    for name, file in SETS.items():
        rows = pl.read_parquet(data / file)
        truths = rows["label"].to_list()
        yield Question(name, everything, matrix(rows["vector"]), truths, sorted(set(truths)))
    known, truths = photos._by_keyword(photos.order[:TEST])
    rest = np.sort(photos.order[TEST:])
    yield Question("Flickr8k keywords", rest, photos.image[known], truths, KEYWORDS)


def stamps_question(folder: Path, photos: Photos) -> Question:
    """The demo's pictures, for all photos' pairs."""
    root = stamps.fetch(folder)
    split = stamps.split(stamps.find_stamp_pictures(root), root)
    images = encoded_images(split.held_out)
    shown = [picture for picture in split.held_out if str(picture.path) in images]
    vectors = np.stack([images[str(picture.path)] for picture in shown])
    truths = [picture.label for picture in shown]
    return Question("stamps", np.arange(len(photos.image)), vectors, truths, list(split.labels))


def answers(photos: Photos, asked: list[Question]) -> Found:
    """Which pictures are right, by recipe, task and way of taking captions."""
    groups: dict[bytes, list[Question]] = {}
    for question in asked:
        groups.setdefault(question.photos.tobytes(), []).append(question)
    return {
        (recipe, name, way): correct
        for group in groups.values()
        for way in WAYS
        for recipe, name, correct in answer(photos, group, way)
    }


def recipes(asked: list[Question], found: Found) -> Iterator[str]:
    """The recipes beside one another, a line for each task and way, and the means over tasks."""
    pairs = [(one, other) for i, other in enumerate(RECIPES) for one in list(RECIPES)[i + 1 :]]
    yield f"{len(MEASURES) * len(pairs) * len(WAYS) * len(asked)} comparisons of single sets.\n"
    names = [f"`{name}`" for name in RECIPES]
    heads = [f"`{one}` - `{other}`" for one, other in pairs]
    yield f"| pictures | captions | | {' | '.join([*names, *heads])} |"
    yield f"| --- | --- | --- | {' | '.join(['---:'] * len(names) + ['---'] * len(heads))} |"
    verdicts: dict[tuple[str, str], list[tuple[bool, bool]]] = {pair: [] for pair in pairs}
    for kind, way in itertools.product(MEASURES, WAYS):
        of_sets = [shares(question, found, kind, way) for question in asked]
        rows = [(one.name, [right]) for one, right in zip(asked, of_sets, strict=True)]
        for name, sets in [*rows, ("**mean over sets**", of_sets)]:
            cells = [
                f"{np.mean([right[recipe].mean() for right in sets]):.1%}" for recipe in RECIPES
            ]
            for pair in pairs:
                gain, low, high = compare(sets, *pair)
                cells.append(f"{gain:+.1f} ({low:+.1f} to {high:+.1f})")
                verdicts[pair].append((low > 0, high < 0))
            yield f"| {name} | {way} | {kind} | {' | '.join(cells)} |"
    yield ""
    for (one, other), signs in verdicts.items():
        up, down = np.sum(signs, axis=0)
        rows_of = f"significantly above `{other}` in {up} of {len(signs)} rows"
        yield f"- `{one}` is {rows_of}, below in {down}."


def shares(question: Question, found: Found, kind: str, way: str) -> dict[str, NDArray[np.float64]]:
    """Of each recipe, (m,) values whose mean is the share right, of all pictures or per class."""
    weights = class_weights(question) if kind == "per class" else 1.0
    return {name: found[name, question.name, way] * weights for name in RECIPES}


def compare(
    sets: list[dict[str, NDArray[np.float64]]], one: str, other: str
) -> tuple[float, float, float]:
    """The difference of two recipes, mean over sets, with its interval, in points."""
    gains = [100 * (right[one] - right[other]) for right in sets]
    low, high = np.percentile(np.mean([resampled(gain) for gain in gains], axis=0), [2.5, 97.5])
    return float(np.mean([gain.mean() for gain in gains])), float(low), float(high)


def resampled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of bootstrap samples."""
    rng = np.random.default_rng(0)
    steps = (
        values[rng.integers(0, len(values), (100, len(values)))] for _ in range(REPEATS // 100)
    )
    return np.concatenate([step.mean(axis=1) for step in steps])


def lines(asked: list[Question], found: Found) -> Iterator[str]:
    """The table, a line for each recipe and task."""
    yield (
        "| recipe | pictures | number | top-1 each | mean | difference, 95 % interval "
        "| per class each | mean | difference, 95 % interval |"
    )
    yield "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"
    for recipe in RECIPES:
        for question in asked:
            each, mean = (found[recipe, question.name, way] for way in WAYS)
            equal = np.ones(len(each))
            cells = [*beside(each, mean, equal), *beside(each, mean, class_weights(question))]
            name = f"`{recipe}` | {question.name} | {len(each):,}"
            yield f"| {name} | {' | '.join(cells)} |"


def answer(photos: Photos, asked: list[Question], way: str) -> Iterator[tuple[str, str, BoolArray]]:
    """Which pictures are right under each recipe, with captions of the same photos taken so."""
    kept = np.flatnonzero(np.isin(photos.photo, asked[0].photos))
    photo = photos.photo[kept]
    frame = {
        "image_uri": [f"{i}.jpg" for i in photo],
        "caption": [photos.captions[i] for i in kept],
        "image_vector": photos.image[photo],
        "text_vector": photos.text[kept],
    }
    with tempfile.TemporaryDirectory() as folder:
        pl.DataFrame(frame).write_parquet(f"{folder}/pairs.parquet")
        options = IngestOptions(captions=way)
        ingest_sources(f"{folder}/db", [f"{folder}/pairs.parquet"], options)
        for recipe in RECIPES:
            model = open_model(f"{folder}/db", recipe=recipe)
            for question in asked:
                names = [str(i) for i in range(len(question.truths))]
                labels = model.compile(prompts_from_vectors(prompts(question.labels)))
                found = list(model.classify_vectors(names, question.vectors, labels))
                yield recipe, question.name, check_answers(found, question.truths)


def class_weights(question: Question) -> NDArray[np.float64]:
    """(m,) with which the mean of all pictures is the mean per class."""
    names, places, sizes = np.unique(question.truths, return_inverse=True, return_counts=True)
    return len(places) / (len(names) * sizes[places])


def beside(each: BoolArray, mean: BoolArray, weights: NDArray[np.float64]) -> list[str]:
    """Both shares, and their difference with its interval."""
    gains = (mean.astype(np.float64) - each) * weights
    interval = bootstrap_mean(gains)
    assert interval is not None  # there are many pictures
    gain, low, high = (f"{100 * x:+.1f}" for x in (gains.mean(), *interval))
    shares = (f"{np.mean(right * weights):.1%}" for right in (each, mean))
    return [*shares, f"{gain} ({low} to {high})"]


if __name__ == "__main__":
    main()
