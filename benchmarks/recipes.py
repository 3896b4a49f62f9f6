"""Is `centred` better than the paper's recipe? Chosen on one set, confirmed on others.

    ASIF_SHARED=... python benchmarks/recipes.py [--json FILE] [--docs FILE] [--stamps FOLDER]

`ASIF_SHARED` is the folder of development data (Flickr8k's and CIFAR-10's vectors). Everything goes
through the product: pairs are ingested, models opened, pictures classified with "a photo of a {}.".
The first table is the set that it was chosen on, with a grid of k and p. The second has
the other sets: `paper` beside it, and beside its powers on raw cosines; with the
95 % paired bootstrap interval of the difference. Sets named `shuffled` have captions of other
pictures: accuracy has to fall to chance. `--docs docs/recipes.md` writes the tables into that file;
`--no-grid` leaves the grid out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from splits import encoded_images

from asif_lance.encoders import text_encoder
from asif_lance.evaluation import bootstrap_mean
from asif_lance.evaluation.accuracy import check_answers
from asif_lance.ingest import ingest_sources
from asif_lance.ingest import tuxpaint as stamps
from asif_lance.model import DEFAULT_TEMPLATES, open_model, prompts_from_vectors
from asif_lance.records import BoolArray
from asif_lance.relative.recipes import CENTRED, PAPER

Floats = NDArray[np.float32]
Recipes = dict[str, dict[str, object]]

TEST = 3000  # photos of Flickr8k held out
KEYWORDS = [
    "dog",
    "bicycle",
    "beach",
    "snow",
    "child",
    "horse",
    "water",
    "grass",
    "mountain",
    "street",
    "ball",
    "pool",
    "crowd",
    "car",
    "motorcycle",
    "climber",
    "surfer",
    "skateboarder",
]
SMALL = 30, 100, 400, 1000, 3000
TOP = 10
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"
GRID_K = (200, 200), (400, 400), (800, 200), (800, 800), (1600, 1600)
GRID_P = (8.0, 8.0), (6.0, 4.0), (4.0, 4.0), (4.0, 2.0), (2.0, 2.0)


@dataclass(frozen=True)
class Task:
    """Pairs, pictures and what is right to say of them: n pairs, m pictures, c labels.

    Attributes:
        name: what the tables call it.
        image: (n, d) anchors' images.
        text: (n, e) anchors' captions.
        queries: (m, d) pictures.
        labels: c names with (e,) prompts.
        truths: m names.
        top: the true label has to be among so many.
    """

    name: str
    image: Floats
    text: Floats
    queries: Floats
    labels: dict[str, Floats]
    truths: Sequence[str]
    top: int = 1

    def with_pairs(self, name: str, rows: NDArray[np.int64]) -> Task:
        """The same question to some of the pairs."""
        pairs = self.image[rows], self.text[rows]
        return Task(name, *pairs, self.queries, self.labels, self.truths, self.top)


@dataclass(frozen=True)
class Row:
    """One recipe beside `paper` on one set; shares are in [0, 1].

    Attributes:
        task: the set.
        recipe: the recipe.
        pairs: anchors.
        pictures: how many were asked about.
        paper: accuracy of `paper`.
        accuracy: accuracy of the recipe.
        low: lower end of the 95 % paired bootstrap interval of the difference.
        high: the upper end.
    """

    task: str
    recipe: str
    pairs: int
    pictures: int
    paper: float
    accuracy: float
    low: float
    high: float


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--stamps", type=Path, default=Path("asif-demo/stamps"))
    parser.add_argument("--no-grid", action="store_true")
    options = parser.parse_args()
    if "ASIF_SHARED" not in os.environ:
        print("recipes: needs the development data, set ASIF_SHARED")
        return
    photos = Photos(Path(os.environ["ASIF_SHARED"]) / "data")
    chosen_on, *others = photos.tasks()
    chosen: Recipes = {CENTRED.name: {"recipe": CENTRED.name}}
    grid = compared([chosen_on], chosen if options.no_grid else chosen | variants())
    tables = [markdown(f"The set it was chosen on, {len(grid)} comparisons with `paper`", grid)]
    print(tables[0], flush=True)
    rivals = {**chosen, f"{PAPER.name} p 4,2": {"recipe": PAPER.name, "p": (4.0, 2.0)}}
    confirmed = compared([*others, *stamp_tasks(options.stamps, photos)], rivals)
    tables.append(markdown(f"Other sets, {len(confirmed)} comparisons", confirmed))
    print(tables[1])
    if options.docs:
        before, _, rest = options.docs.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        options.docs.write_text("\n".join([before + BEGIN, *tables, END + after]))
    if options.json:
        found = {"chosen_on": grid, "confirmed_on": confirmed}
        rows = {name: [asdict(row) for row in table] for name, table in found.items()}
        options.json.write_text(json.dumps(rows, indent=1))


def variants() -> Recipes:
    """The grid: raw and centred, several k and p."""
    return {
        f"{name} k {k[0]},{k[1]} p {p[0]:g},{p[1]:g}": {"recipe": name, "k": k, "p": p}
        for name in (PAPER.name, CENTRED.name)
        for k in GRID_K
        for p in GRID_P
    }


def compared(tasks: Sequence[Task], recipes: Recipes) -> list[Row]:
    """Compare each recipe with `paper` on each set; sets of one name are one set in parts."""
    correct: dict[tuple[str, str], list[BoolArray]] = {}
    sizes: dict[str, int] = {}
    for task in tasks:
        sizes[task.name] = len(task.image)
        for recipe, found in asked(task, {PAPER.name: {"recipe": PAPER.name}, **recipes}):
            correct.setdefault((task.name, recipe), []).append(found)
    rows = []
    for name, size in sizes.items():
        paper = np.concatenate(correct[name, PAPER.name])
        for recipe in recipes:
            other = np.concatenate(correct[name, recipe])
            low, high = bootstrap_mean(other.astype(np.int64) - paper)
            shares = float(paper.mean()), float(other.mean())
            rows.append(Row(name, recipe, size, len(paper), *shares, low, high))
    return rows


def asked(task: Task, recipes: Recipes) -> Iterator[tuple[str, BoolArray]]:
    """Ingest the pairs and ask each recipe."""
    with tempfile.TemporaryDirectory() as folder:
        frame = {
            "pair_id": [f"p{i:06}" for i in range(len(task.image))],
            "caption": [f"caption {i}" for i in range(len(task.image))],
            "image_vector": task.image,
            "text_vector": task.text,
        }
        pl.DataFrame(frame).write_parquet(f"{folder}/pairs.parquet")
        ingest_sources(f"{folder}/db", [f"{folder}/pairs.parquet"])
        names = [str(i) for i in range(len(task.queries))]
        for recipe, how in recipes.items():
            model = open_model(f"{folder}/db", **how)  # type: ignore[arg-type]
            labels = model.compile(prompts_from_vectors(task.labels))
            found = model.classify_vectors(names, task.queries, labels)
            if task.top == 1:
                yield recipe, check_answers(list(found), task.truths)
            else:
                best = ([label for label, _ in p.ranking[: task.top]] for p in found)
                both = zip(best, task.truths, strict=True)
                yield recipe, np.array([truth in labels for labels, truth in both])


def markdown(title: str, rows: Sequence[Row]) -> str:
    """Lay rows out as a table, in the middle of a text."""
    lines = [
        f"\n{title}:\n",
        "| set | pairs | pictures | recipe | paper | recipe's | difference, 95 % interval |",
        "| --- | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    for row in rows:
        gain, low, high = (f"{100 * x:+.1f}" for x in (row.accuracy - row.paper, row.low, row.high))
        counts = row.task, f"{row.pairs:,}", f"{row.pictures:,}"
        shares = f"{row.paper:.1%}", f"{row.accuracy:.1%}"
        cells = *counts, row.recipe, *shares, f"{gain} ({low} to {high})"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


class Photos:
    """Flickr8k's pairs and CIFAR-10's sample."""

    def __init__(self, data: Path) -> None:
        """Read both."""
        images = pl.read_parquet(data / "flickr8k" / "images.parquet")
        captions = pl.read_parquet(data / "flickr8k" / "captions.parquet")
        order = images.select("image").with_row_index("photo")
        captions = captions.join(order, on="image").sort("photo", maintain_order=True)
        self.image = matrix(images["image_vector"])
        self.captions = captions["caption"].to_list()
        self.text = matrix(captions["text_vector"])
        self.photo = captions["photo"].to_numpy().astype(np.int64)
        self.first = np.flatnonzero(np.diff(self.photo, prepend=-1))
        sums = np.add.reduceat(self.text, self.first)
        self.mean = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        sample = pl.read_parquet(data / "cifar10" / "test-sample.parquet")
        self.cifar = matrix(sample["vector"])
        self.cifar_truths = sample["label"].to_list()
        self.order = np.random.default_rng(0).permutation(len(self.image))

    def tasks(self) -> Iterator[Task]:
        """CIFAR-10 with one caption per photo first, then other anchors and other questions."""
        image, text = self.image, self.text[self.first]
        asked = self.cifar, prompts(sorted(set(self.cifar_truths))), self.cifar_truths
        first = Task("CIFAR-10, Flickr8k", image, text, *asked)
        yield first
        yield Task("same, mean of 5 captions", image, self.mean, *asked)
        yield Task("same, 5 captions apart", image[self.photo], self.text, *asked)
        for n in SMALL:
            yield first.with_pairs(f"same, {n} pairs", self.order[:n])
        yield Task("same, shuffled", image, text[self.order], *asked)
        yield from self._held_out(text)

    def _held_out(self, text: Floats) -> Iterator[Task]:
        test, rest = self.order[:TEST], self.order[TEST:]
        known, truths = self._by_keyword(test)
        asked = self.image[known], prompts(KEYWORDS), truths
        words = Task("Flickr8k keywords", self.image[rest], text[rest], *asked)
        yield words
        yield Task("keywords, mean of 5 captions", self.image[rest], self.mean[rest], *asked)
        for n in SMALL[:-1]:
            yield words.with_pairs(f"keywords, {n} pairs", np.arange(n))
        mine = test[:1000]
        own = {str(i): row for i, row in zip(mine, text[mine], strict=True)}
        found = self.image[mine], own, list(own)
        yield Task(
            "Flickr8k, own caption in best 10", self.image[rest], text[rest], *found, top=TOP
        )

    def _by_keyword(self, photos: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """Photos of which most captions name one keyword, and only one."""
        kept, truths = [], []
        for photo in photos.tolist():
            said = [c.lower() for c in self.captions[self.first[photo] :][:5]]
            words = [w for w in KEYWORDS if sum(w in caption for caption in said) > 2]
            if len(words) == 1:
                kept.append(photo)
                truths.append(words[0])
        return np.array(kept), truths


def stamp_tasks(folder: Path, photos: Photos) -> Iterator[Task]:
    """The demo's pictures on five splits, and across the data sets."""
    root = stamps.fetch(folder)
    pictures = stamps.find_stamp_pictures(root)
    images = encoded_images(pictures)
    pictures = [p for p in pictures if str(p.path) in images]
    captions = text_encoder().encode([p.caption for p in pictures])
    texts = {str(p.path): vector for p, vector in zip(pictures, captions, strict=True)}
    labels = prompts(stamps.split(pictures, root).labels)

    def sides(chosen: Sequence[stamps.StampPicture]) -> tuple[Floats, Floats]:
        names = [str(p.path) for p in chosen]
        return np.stack([images[n] for n in names]), np.stack([texts[n] for n in names])

    held_out = {}
    for number in range(5):
        split = stamps.split(pictures, root, salt=str(number) if number else "")
        held_out.update({p.path: p for p in split.held_out})
        truths = [p.label for p in split.held_out]
        yield Task(
            "stamps, 5 splits", *sides(split.anchors), sides(split.held_out)[0], labels, truths
        )
    asked = sides(list(held_out.values()))[0], labels, [p.label for p in held_out.values()]
    yield Task("stamps, Flickr8k", photos.image, photos.text[photos.first], *asked)
    names = sorted(set(photos.cifar_truths))
    yield Task(
        "CIFAR-10, stamps", *sides(pictures), photos.cifar, prompts(names), photos.cifar_truths
    )


def prompts(names: Sequence[str]) -> dict[str, Floats]:
    """Embed the default prompt of each class."""
    texts = [DEFAULT_TEMPLATES[0].format(name) for name in names]
    return dict(zip(names, text_encoder().encode(texts), strict=True))


def matrix(column: pl.Series) -> Floats:
    """Vectors as float32."""
    return np.stack(column.to_list()).astype(np.float32)


if __name__ == "__main__":
    main()
