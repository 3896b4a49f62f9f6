"""tune: recipes, k, p, templates and ensembles on labelled pictures, one search per recipe.

The best of many choices looks better than it is on the pictures that chose it. So the choice is
compared with the model's own recipe, the number of choices travels with the result, and held-out
pictures that had no say give the honest figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import numpy as np

from asif_lance.errors import InputError
from asif_lance.evaluation.labelled_pictures import Labelled, split
from asif_lance.evaluation.statistics import Interval, bootstrap, mcnemar
from asif_lance.evaluation.sweep import Sweep, right, scores, sweep
from asif_lance.model import Ensemble, Model, Prompts, StoredSetting, store_setting
from asif_lance.records import BoolArray, Float64Array
from asif_lance.relative import Recipe, make_recipe

Sides = tuple[int, int]
Powers = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TriedSetting:
    """One way to answer, and what it scores on the tuning pictures.

    Attributes:
        recipe: the recipe's name.
        k: anchors kept, (image side, text side).
        p: power of similarities, likewise.
        templates: the named set or the templates; empty for brought label vectors.
        ensemble: how a class's prompts become one score.
        top_1: share of the tuning pictures that it gets right.
    """

    recipe: str
    k: Sides
    p: Powers
    templates: str
    ensemble: Ensemble
    top_1: float


@dataclass(frozen=True, slots=True)
class Grid:
    """What is tried.

    Attributes:
        k: ascending; those beyond the number of pairs are one, all pairs.
        p: ascending.
        ensembles: ways to make one score of a class's prompts; of single prompts all make the same,
            and the first is tried.
        recipes: names; empty for the model's own.
        per_side: every k and p of the image side with every one of the text side.
    """

    k: tuple[int, ...] = (25, 50, 100, 200, 400, 800, 1600)
    p: tuple[float, ...] = (1, 2, 4, 6, 8, 12, 16)
    ensembles: tuple[Ensemble, ...] = ("max",)
    recipes: tuple[str, ...] = ()
    per_side: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not self.k or not self.p or not self.ensembles:
            raise InputError("give at least one k, one p and one ensemble to choose from")
        if min(self.k) < 1 or min(self.p) <= 0:
            raise InputError("k must be at least 1 and p above 0")
        unknown = sorted(set(self.ensembles) - set(get_args(Ensemble)))
        if unknown:
            raise InputError(f"no ensemble {unknown[0]!r}")

    def within(self, pairs: int) -> tuple[int, ...]:
        """The k's that differ for so many pairs: of those at or above them, the first."""
        ordered = sorted(set(self.k))
        smaller = [k for k in ordered if k < pairs]
        return tuple(ordered[: len(smaller) + 1])


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the choice is worth on pictures that did not choose it.

    Attributes:
        pictures: how many.
        top_1: share that the choice gets right.
        interval: its 95 % bootstrap interval.
        reference: share that the model's own recipe gets right.
        difference: `top_1` minus `reference`.
        difference_interval: 95 % paired bootstrap interval of the difference.
        p_value: two-sided exact McNemar test.
    """

    pictures: int
    top_1: float
    interval: Interval
    reference: float
    difference: float
    difference_interval: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """All choices, and the best.

    Attributes:
        model: the version's name.
        choices: everything that was compared.
        best: the first of those with the most right.
        reference: the model's own recipe and the first prompts with their own ensemble.
        on_tuning: the best on the pictures that chose it: optimistic.
        held_out: the best on pictures that did not; None if none were held out.
    """

    model: str
    choices: tuple[TriedSetting, ...]
    best: TriedSetting
    reference: TriedSetting
    on_tuning: Confirmation
    held_out: Confirmation | None


def tune(
    model: Model,
    labelled: Labelled,
    prompts: Prompts | Sequence[Prompts],
    grid: Grid | None = None,
    *,
    holdout: float = 0.0,
    seed: int = 0,
) -> Tuning:
    """Compare every choice of a grid on labelled pictures, encoded before.

    Args:
        model: the version; its recipe is the reference.
        labelled: the pictures.
        prompts: the classes, or the same ones asked with several sets of templates; the first, with
            its ensemble, is the reference's.
        grid: what is tried.
        holdout: share of each class that has no say and confirms the choice.
        seed: of that split.

    Raises:
        InputError: an unknown recipe, an empty grid, or a share that leaves nothing.
    """
    grid = grid or Grid()
    asked = (prompts,) if isinstance(prompts, Prompts) else tuple(prompts)
    tuned, kept = split(labelled, holdout, seed) if holdout else (labelled, None)
    found = [
        (choice, hits)
        for name in grid.recipes or (model.recipe.name,)
        for choice, hits in _tried(model, tuned, asked, grid, name)
    ]
    best, best_hits = max(found, key=lambda entry: entry[0].top_1)
    own = model.recipe
    reference = TriedSetting(own.name, own.k, own.p, asked[0].templates, asked[0].ensemble, 0.0)
    reference_hits = _hits_of(model, tuned, asked, reference)
    return Tuning(
        model=model.version.name,
        choices=tuple(choice for choice, _ in found),
        best=best,
        reference=replace(reference, top_1=float(reference_hits.mean())),
        on_tuning=_confirmed(best_hits, reference_hits),
        held_out=None
        if kept is None
        else _confirmed(*(_hits_of(model, kept, asked, c) for c in (best, reference))),
    )


def _tried(
    model: Model, labelled: Labelled, asked: Sequence[Prompts], grid: Grid, name: str
) -> Iterator[tuple[TriedSetting, BoolArray]]:
    """Every choice of one recipe with what it gets right."""
    ks = grid.within(model.anchors.count)
    under, images = model.under(_recipe_of(model, name)), None
    for prompts in asked:
        single = len(prompts.owner) == len(prompts.names)
        ensembles = grid.ensembles[:1] if single else grid.ensembles
        found = sweep(under, labelled.queries, prompts, (ks[-1], ks[-1]), ensembles, images=images)
        images = found.images
        for k, p, ensemble, answers in _answers(found, grid, ks, ensembles):
            hits = right(answers, prompts.names, labelled.truths)
            share = float(hits.mean())
            yield TriedSetting(name, k, p, prompts.templates, ensemble, share), hits


def _answers(
    found: Sweep, grid: Grid, ks: Sequence[int], ensembles: Sequence[Ensemble]
) -> Iterator[tuple[Sides, Powers, Ensemble, Float64Array]]:
    """The scores at every k and p of the grid, for every ensemble."""
    sides = list(product(ks, grid.p))
    texts = {(*side, e): found.text_side(*side, e) for side in sides for e in ensembles}
    for k, p in sides:
        images = found.image_side(k, p)
        for (text_k, text_p, ensemble), labels in texts.items():
            if grid.per_side or (text_k, text_p) == (k, p):
                yield (k, text_k), (p, text_p), ensemble, scores(images, labels)


def _hits_of(
    model: Model, labelled: Labelled, asked: Sequence[Prompts], choice: TriedSetting
) -> BoolArray:
    under = model.under(_recipe_of(model, choice.recipe))
    prompts = next(prompts for prompts in asked if prompts.templates == choice.templates)
    found = sweep(under, labelled.queries, prompts, choice.k, (choice.ensemble,))
    answers = found.scores(choice.k, choice.p, choice.ensemble)
    return right(answers, prompts.names, labelled.truths)


def _recipe_of(model: Model, name: str) -> Recipe:
    return model.recipe if model.recipe.name == name else make_recipe(name)


def _confirmed(hits: BoolArray, reference: BoolArray) -> Confirmation:
    gained = hits.astype(np.float64) - reference
    only = int((reference & ~hits).sum()), int((hits & ~reference).sum())
    return Confirmation(
        pictures=len(hits),
        top_1=float(hits.mean()),
        interval=bootstrap(hits),
        reference=float(reference.mean()),
        difference=float(gained.mean()),
        difference_interval=bootstrap(gained),
        p_value=mcnemar(*only),
    )


def by_k_and_p(choices: Sequence[TriedSetting], side: int) -> dict[tuple[int, float], float]:
    """The best share of each k and p of one side (0 image, 1 text), over all else."""
    best: dict[tuple[int, float], float] = {}
    for choice in choices:
        cell = choice.k[side], choice.p[side]
        best[cell] = max(best.get(cell, 0.0), choice.top_1)
    return best


def store_best(model: Model, found: Tuning) -> None:
    """Store the best choice with the version, as what it answers with by default.

    Raises:
        StorageError, DatabaseBusyError: it cannot be written.
    """
    best, held_out = found.best, found.held_out
    chosen = StoredSetting(
        version=found.model,
        recipe=make_recipe(best.recipe, k=best.k, p=best.p),
        ensemble=best.ensemble,
        templates=best.templates,
        top_1=best.top_1,
        pictures=found.on_tuning.pictures,
        comparisons=len(found.choices),
        held_out=None if held_out is None else held_out.top_1,
    )
    store_setting(model.store, chosen)
