"""What a second pair of encoders brings: alone, its vectors beside the first's, or together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from accuracy_answers import Cell, beside
from accuracy_sets import Part, TestSet, Workshop, pairs, tested
from numpy.typing import NDArray

from asif_lance.encoders import DEFAULT_IMAGE, DEFAULT_TEXT, text_encoder
from asif_lance.errors import EncoderUnavailableError
from asif_lance.evaluation.accuracy import check_answers
from asif_lance.model import Prediction, Together
from asif_lance.records import BoolArray
from asif_lance.relative import RECIPES, Recipe
from asif_lance.relative.recipes import PAPER

SECOND_IMAGE = "timm/tf_efficientnet_lite2"

Frames = dict[str, pl.DataFrame]
Sets = list[TestSet]
Scores = NDArray[np.float64]
Rule = Callable[[list[Scores]], Scores]


def _over(scores: Scores, size: Scores) -> Scores:
    return scores / np.where(size > 0, size, 1.0)[:, None]


def _standardised(scores: Scores) -> Scores:
    return _over(scores - scores.mean(axis=1, keepdims=True), scores.std(axis=1))


def _ranks(scores: Scores) -> Scores:
    return scores.argsort(axis=1, kind="stable").argsort(axis=1).astype(np.float64)


#: What else could make one score of the models' (m, c) scores, picture by picture.
RULES: dict[str, Rule] = {
    "standardised scores": lambda several: np.sum([_standardised(s) for s in several], axis=0),
    "shares of all labels": lambda several: np.sum([_over(s, s.sum(1)) for s in several], axis=0),
    "ranks": lambda several: np.sum([_ranks(s) for s in several], axis=0),
    "product": lambda several: np.prod(several, axis=0),
    "maximum": lambda several: np.max(several, axis=0),
}


@dataclass(frozen=True)
class Row:
    """One way to use encoders under one recipe, on every set."""

    name: str
    recipe: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """What is measured.

    Attributes:
        sets: what on.
        rows: every way, beside the first pair of encoders under `paper`.
        gains: together, beside each alone under the same recipe.
        rules: other rules than the mean, beside the mean.
    """

    sets: Sets
    rows: tuple[Row, ...]
    gains: tuple[Row, ...]
    rules: tuple[Row, ...]

    @property
    def verdicts(self) -> tuple[int, int, int]:
        """How often another rule is significantly better than the mean, worse, and was compared."""
        cells = [cell.difference_interval for row in self.rules for cell in row.cells]
        return sum(low > 0 for low, _ in cells), sum(high < 0 for _, high in cells), len(cells)


def two_pairs(shop: Workshop, shared: Path | None, second_text: str | None) -> Table | None:
    """Measure on all sets whose pictures are here; None where the second encoder is not.

    Args:
        shop: makes models with the first text encoder.
        shared: the development data, if it is there.
        second_text: a text encoder for the second pair, besides the first one's.
    """
    first = _frames(shop, DEFAULT_IMAGE, shared)
    try:
        second = _frames(shop, SECOND_IMAGE, shared)
    except EncoderUnavailableError:
        return None
    one, other = _sets(shop, "first", first), _sets(shop, "second", second)
    text = _short(DEFAULT_TEXT)
    alone = {f"{_short(DEFAULT_IMAGE)}, {text}": one, f"{_short(SECOND_IMAGE)}, {text}": other}
    joined = {
        "both image encoders, vectors side by side": _sets(shop, "both", _beside(first, second))
    }
    together = {"the first two together": tuple(alone)}
    if second_text is not None:
        own = Workshop(shop.folder, shop.cache, text_encoder(second_text))
        name = f"{_short(SECOND_IMAGE)}, {_short(second_text)}"
        together["the first and the last together"] = next(iter(alone)), name
        alone[name] = _sets(own, "third", _frames(own, SECOND_IMAGE, shared))
    return _table(one, alone, joined, together)


def _table(
    first: Sets, alone: dict[str, Sets], joined: dict[str, Sets], together: dict[str, Sequence[str]]
) -> Table:
    reference = [_check([test], PAPER) for test in first]
    rows, gains, rules = [], [], []
    for recipe in RECIPES.values():
        found = {
            name: [_check([test], recipe) for test in tests]
            for name, tests in (alone | joined).items()
        }
        for name, of in together.items():
            sets = list(zip(*(alone[part] for part in of), strict=True))
            mean = found[name] = [_check(tests, recipe) for tests in sets]
            for part in of:
                title = f"{name}, against {part}"
                gains.append(Row(title, recipe.name, _cells(mean, found[part])))
            for rule, combine in RULES.items():
                other = [_check(tests, recipe, combine) for tests in sets]
                rules.append(Row(f"{name}: {rule}", recipe.name, _cells(other, mean)))
        rows += [Row(name, recipe.name, _cells(mine, reference)) for name, mine in found.items()]
    return Table(first, tuple(rows), tuple(gains), tuple(rules))


def _cells(mine: list[BoolArray], others: list[BoolArray]) -> tuple[Cell, ...]:
    return tuple(beside(own, other) for own, other in zip(mine, others, strict=True))


def _check(tests: Sequence[TestSet], recipe: Recipe, combine: Rule | None = None) -> BoolArray:
    """What is right of one set as each model has it: by the only one, or by all together."""
    parts = zip(*(test.parts for test in tests), strict=True)
    return np.concatenate([_check_parts(several, recipe, combine) for several in parts])


def _check_parts(parts: Sequence[Part], recipe: Recipe, combine: Rule | None) -> BoolArray:
    models = {str(i): part.model.under(recipe) for i, part in enumerate(parts)}
    names, truths = parts[0].labelled.names, parts[0].labelled.truths
    labels = [model.labels(parts[0].labels) for model in models.values()]
    vectors = [part.labelled.embeddings for part in parts]
    if len(parts) == 1:
        return check_answers(
            list(models["0"].classify_vectors(names, vectors[0], labels[0])), truths
        )
    answers = list(Together(models).classify_vectors(names, vectors, labels))
    if combine is None:
        return check_answers(answers, truths)
    several = [_matrix([a.parts[i] for a in answers], parts[0].labels) for i in range(len(parts))]
    best = np.array(parts[0].labels)[combine(several).argmax(axis=1)]
    answered = np.array([answer.score > 0 for answer in answers])
    return answered & (best == np.array(truths))


def _matrix(predictions: Sequence[Prediction], labels: Sequence[str]) -> Scores:
    rankings = [dict(prediction.ranking) for prediction in predictions]
    return np.array([[ranking[label] for label in labels] for ranking in rankings])


def _frames(shop: Workshop, image: str, shared: Path | None) -> Frames:
    frames = {"stamps": shop.stamps_frame(image), "GCompris": shop.gcompris(image)}
    if shared is not None:
        frames |= {"photos": shop.photos(shared, image), "CIFAR-10": shop.tiny(shared, image)}
    return frames


def _sets(shop: Workshop, key: str, frames: Frames) -> Sets:
    folds = shop.folds(f"{key}-fold", frames["stamps"])
    stamps = shop.model(f"{key}-stamps", pairs(frames["stamps"]))
    sets = [folds, tested("stamps → GCompris", stamps, frames["GCompris"])]
    if "photos" in frames:
        photos = shop.model(f"{key}-photos", pairs(frames["photos"]))
        begun = f"{len(frames['photos'])} photos → "
        targets = ("CIFAR-10", "stamps", "GCompris")
        sets = [*(tested(begun + name, photos, frames[name]) for name in targets), *sets]
    return sets


def _beside(one: Frames, other: Frames) -> Frames:
    return {name: _joined(frame, other[name]) for name, frame in one.items()}


def _joined(one: pl.DataFrame, other: pl.DataFrame) -> pl.DataFrame:
    both = [frame["image_vector"].to_numpy() for frame in (one, other)]
    vectors = (np.concatenate(both, axis=1) / np.sqrt(2)).astype(np.float32)
    return one.with_columns(image_vector=vectors)


def _short(encoder: str) -> str:
    return encoder.rstrip("/").rpartition("/")[2]
