"""Several captions of one picture: a pair each, or one pair with the mean of their vectors?

    ASIF_SHARED=... python benchmarks/captions.py [--docs docs/recipes.md]

`ASIF_SHARED` is the folder of development data: Flickr8k with five captions per photo as pairs, and
pictures of four tasks to classify. Everything goes through `ingest --captions` and the models made
of it, under each recipe, with "a photo of a {}.". Differences are those of `mean` against `each`,
in points, with their 95 % paired bootstrap intervals; those of the mean per class weigh each
picture by the size of its class. `--docs` writes the table into that file.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from recipes import KEYWORDS, TEST, Photos, matrix, prompts

from asif_lance.evaluation import bootstrap_mean
from asif_lance.evaluation.accuracy import check_answers
from asif_lance.ingest import IngestOptions, ingest_sources
from asif_lance.model import open_model, prompts_from_vectors
from asif_lance.records import BoolArray
from asif_lance.relative import DEFAULT
from asif_lance.relative.recipes import PAPER

BEGIN, END = "<!-- captions -->", "<!-- end of captions -->"
WAYS = "each", "mean"
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
    options = parser.parse_args()
    if "ASIF_SHARED" not in os.environ:
        print("captions: needs the development data, set ASIF_SHARED")
        return
    data = Path(os.environ["ASIF_SHARED"]) / "data"
    photos = Photos(data)
    table = "\n".join(lines(photos, list(questions(data, photos))))
    print(table)
    if options.docs:
        before, _, rest = options.docs.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        options.docs.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


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


def lines(photos: Photos, asked: list[Question]) -> Iterator[str]:
    """The table, a line for each recipe and task."""
    yield (
        "| recipe | pictures | number | top-1 each | mean | difference, 95 % interval "
        "| per class each | mean | difference, 95 % interval |"
    )
    yield "| --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"
    found: dict[tuple[str, str, str], BoolArray] = {}
    for question in asked:
        for way in WAYS:
            for recipe, correct in answer(photos, question, way):
                found[recipe, question.name, way] = correct
    for recipe in (DEFAULT, PAPER.name):
        for question in asked:
            each, mean = (found[recipe, question.name, way] for way in WAYS)
            equal = np.ones(len(each))
            cells = [*beside(each, mean, equal), *beside(each, mean, class_weights(question))]
            name = f"`{recipe}` | {question.name} | {len(each):,}"
            yield f"| {name} | {' | '.join(cells)} |"


def answer(photos: Photos, question: Question, way: str) -> Iterator[tuple[str, BoolArray]]:
    """Which pictures are right under each recipe, with captions taken in this way."""
    kept = np.flatnonzero(np.isin(photos.photo, question.photos))
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
        names = [str(i) for i in range(len(question.truths))]
        for recipe in (DEFAULT, PAPER.name):
            model = open_model(f"{folder}/db", recipe=recipe)
            labels = model.compile(prompts_from_vectors(prompts(question.labels)))
            answers = list(model.classify_vectors(names, question.vectors, labels))
            yield recipe, check_answers(answers, question.truths)


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
