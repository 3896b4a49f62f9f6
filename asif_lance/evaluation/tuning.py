"""tune: recipes, k, p, templates and ensembles on labelled pictures, one search per recipe.

The best of many settings looks better than it is on the pictures that chose it. So the result says
how many were compared, and pictures that were held out of the choice compare it with the model's
own setting, which is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol, get_args

from asif_lance.errors import InputError
from asif_lance.evaluation.accuracy import compare_correct
from asif_lance.evaluation.labelled_pictures import Labelled, check_classes, hold_out
from asif_lance.evaluation.statistics import Interval, check_seed, share_interval
from asif_lance.evaluation.sweep import Sweep, check_scores, score_labels, sweep
from asif_lance.model import Ensemble, Model, Prompts, StoredSetting, store_setting
from asif_lance.progress import track
from asif_lance.records import BoolArray, Float32Array, Float64Array, Neighbors
from asif_lance.relative import Recipe, check_k_and_p, make_recipe

#: The verdict on a choice that is better on held-out pictures, too.
CONFIRMED = "confirmed"

Sides = tuple[int, int]
Powers = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TriedSetting:
    """One way to answer, and what it scores on the tuning pictures.

    Attributes:
        recipe: the recipe's name.
        k: anchors kept, (image side, text side).
        p: power of similarities, likewise.
        templates: the named set or the templates; empty for label vectors.
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
        ensembles: ways to make one score of a class's prompts; empty for that of the first prompts.
            Of single prompts all make the same, and the first is tried.
        recipes: names; empty for the model's own.
        per_side: every k and p of the image side with every one of the text side.
    """

    k: tuple[int, ...] = (25, 50, 100, 200, 400, 800, 1600)
    p: tuple[float, ...] = (1, 2, 4, 6, 8, 12, 16)
    ensembles: tuple[Ensemble, ...] = ()
    recipes: tuple[str, ...] = ()
    per_side: bool = False

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not self.k or not self.p:
            raise InputError("give at least one k and one p to choose from")
        check_k_and_p(self.k, self.p)
        for recipe in self.recipes:
            make_recipe(recipe)  # there may be none of this name
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
    """The chosen setting beside the model's own one on some pictures.

    Attributes:
        pictures: how many.
        top_1: share that the choice gets right.
        interval: its 95 % Wilson interval.
        reference: share that the model's own recipe gets right.
        difference: `top_1` minus `reference`.
        difference_interval: 95 % paired bootstrap interval of the difference; None for a single
            picture.
        p_value: two-sided exact McNemar test.
    """

    pictures: int
    top_1: float
    interval: Interval
    reference: float
    difference: float
    difference_interval: Interval | None
    p_value: float

    @property
    def verdict(self) -> str:
        """Whether the choice is better, in words: by the interval of the difference."""
        low, high = self.difference_interval or (0.0, 0.0)
        if low > 0:
            return CONFIRMED
        return "worse" if high < 0 else "not confirmed: the difference may be chance"


@dataclass(frozen=True, slots=True)
class Tuning:
    """All settings that were compared, and the best.

    Attributes:
        model: the version's name.
        choices: all settings, the model's own one among them.
        best: of those with the most right the model's own one, or else the first.
        reference: the model's own setting: its recipe, k, p, templates and ensemble.
        on_tuning: the best on the pictures that chose it: optimistic.
        held_out: the best on pictures that did not; None if none were held out.
    """

    model: str
    choices: tuple[TriedSetting, ...]
    best: TriedSetting
    reference: TriedSetting
    on_tuning: Confirmation
    held_out: Confirmation | None

    @property
    def verdict(self) -> str | None:
        """What the held-out pictures say of the choice; None if none were held out."""
        if self.best == self.reference:
            return "the model's own setting"
        return None if self.held_out is None else self.held_out.verdict

    @property
    def pictures(self) -> int:
        """How many made the choice."""
        return self.on_tuning.pictures

    @property
    def held_out_share(self) -> float | None:
        """Share right of the held-out pictures; None if none were held out."""
        return None if self.held_out is None else self.held_out.top_1

    @property
    def objection(self) -> str | None:
        """Why the choice is not to take the place of the model's own setting; None if it may."""
        if self.best == self.reference:
            return "no choice is better than the model's own setting"
        if self.held_out is None or self.held_out.verdict == CONFIRMED:
            return None
        return f"on held-out pictures the choice is {self.held_out.verdict}"


def tune(
    model: Model,
    labelled: Labelled,
    prompts: Prompts | Sequence[Prompts],
    grid: Grid | None = None,
    *,
    own: Prompts | None = None,
    holdout: float = 0.0,
    seed: int = 0,
) -> Tuning:
    """Compare every setting of a grid on labelled pictures, encoded before.

    Args:
        model: the version; its own setting is among the choices, and what they are compared with.
        labelled: the pictures.
        prompts: the classes, or the same ones asked with several sets of templates.
        grid: what is tried beside the model's own setting.
        own: the classes as the model asks by itself; the first of `prompts` unless given.
        holdout: share of each class that is held out of the choice, to confirm it.
        seed: of that split.

    Raises:
        InputError: an unknown recipe, an empty grid, a share that leaves nothing, a seed that
            means nothing, or a class that is not among the prompts.
    """
    asked = (prompts,) if isinstance(prompts, Prompts) else tuple(prompts)
    own = own or asked[0]
    check_seed(seed)
    check_classes(labelled.truths, own.names)
    grid = grid or Grid()
    grid = replace(
        grid,
        ensembles=grid.ensembles or (asked[0].ensemble,),
        recipes=grid.recipes or (model.recipe.name,),
    )
    tuned, held_out = hold_out(labelled, holdout, seed) if holdout else (labelled, None)
    tried = [
        found for name in grid.recipes for found in _try_recipe(model, tuned, asked, grid, name)
    ]
    reference = _try_own(model, tuned, own, tried)
    best = max(tried, key=lambda entry: (entry[0].top_1, entry is reference))

    def check(setting: TriedSetting, pictures: Labelled) -> BoolArray:
        return _check_setting(model, pictures, (own, *asked), setting)

    return Tuning(
        model=model.version.name,
        choices=tuple(setting for setting, _ in tried),
        best=best[0],
        reference=reference[0],
        on_tuning=confirm(best[1], reference[1]),
        held_out=None
        if held_out is None
        else confirm(*(check(setting, held_out) for setting, _ in (best, reference))),
    )


def _try_own(
    model: Model, labelled: Labelled, own: Prompts, tried: list[tuple[TriedSetting, BoolArray]]
) -> tuple[TriedSetting, BoolArray]:
    """The model's own setting: the one among those tried that answers alike, or a further one."""
    setting = own_setting(model, own)
    for entry in tried:
        if answer_alike(entry[0], setting, model, own):
            return entry
    correct = _check_setting(model, labelled, (own,), setting)
    tried.append((replace(setting, top_1=float(correct.mean())), correct))
    return tried[-1]


def own_setting(model: Model, own: Prompts) -> TriedSetting:
    """The model's own setting, not tried yet."""
    recipe = model.recipe
    return TriedSetting(recipe.name, recipe.k, recipe.p, own.templates, own.ensemble, 0.0)


def answer_alike(one: TriedSetting, other: TriedSetting, model: Model, asked: Prompts) -> bool:
    """Whether two settings give the same answers: k beyond all pairs, single prompts."""
    count, single = model.anchors.count, len(asked.owner) == len(asked.names)

    def facts(of: TriedSetting) -> tuple[object, ...]:
        k = tuple(min(side, count) for side in of.k)
        return of.recipe, k, of.p, of.templates, single or of.ensemble

    return facts(one) == facts(other)


def _try_recipe(
    model: Model, labelled: Labelled, asked: Sequence[Prompts], grid: Grid, name: str
) -> Iterator[tuple[TriedSetting, BoolArray]]:
    """Every setting of one recipe, and (m,) which pictures it gets right."""
    names = asked[0].names
    for setting, scores in score_settings(model, labelled.queries, asked, grid, name):
        correct = check_scores(scores, names, labelled.truths)
        yield replace(setting, top_1=float(correct.mean())), correct


def score_settings(
    model: Model,
    queries: Float32Array,
    asked: Sequence[Prompts],
    grid: Grid,
    name: str,
    images: Callable[[Model, int], Neighbors] | None = None,
) -> Iterator[tuple[TriedSetting, Float64Array]]:
    """Every setting of one recipe, and the (m, c) scores that it gives; whose `top_1` is unknown.

    Args:
        model: the version.
        queries: (m, d) float32 unit vectors of images.
        asked: the classes, with each set of templates.
        grid: what is tried.
        name: the recipe's.
        images: the nearest anchors of the queries under a model's recipe, so many of them; those
            of all pairs unless given.
    """
    ks = grid.within(model.anchors.count)
    under = model.under(_recipe_of(model, name))
    near = None if images is None else images(under, ks[-1])
    for prompts in asked:
        single = len(prompts.owner) == len(prompts.names)
        ensembles = grid.ensembles[:1] if single else grid.ensembles
        found = sweep(under, queries, prompts, (ks[-1], ks[-1]), ensembles, images=near)
        near = found.images
        count = len(ensembles) * (len(ks) * len(grid.p)) ** (2 if grid.per_side else 1)
        settings = _score_grid(found, grid, ks, ensembles)
        for k, p, ensemble, scores in track(f"settings of {name}", settings, count):
            yield TriedSetting(name, k, p, prompts.templates, ensemble, 0.0), scores


def _score_grid(
    found: Sweep, grid: Grid, ks: Sequence[int], ensembles: Sequence[Ensemble]
) -> Iterator[tuple[Sides, Powers, Ensemble, Float64Array]]:
    """The scores at every k and p of the grid, for every ensemble."""
    sides = list(product(ks, grid.p))
    texts = {(*side, e): found.text_side(*side, e) for side in sides for e in ensembles}
    for k, p in sides:
        images = found.image_side(k, p)
        for (text_k, text_p, ensemble), labels in texts.items():
            if grid.per_side or (text_k, text_p) == (k, p):
                yield (k, text_k), (p, text_p), ensemble, score_labels(images, labels)


def _check_setting(
    model: Model, labelled: Labelled, asked: Sequence[Prompts], setting: TriedSetting
) -> BoolArray:
    """(m,) which pictures a setting gets right."""
    under = model.under(_recipe_of(model, setting.recipe))
    prompts = next(prompts for prompts in asked if prompts.templates == setting.templates)
    found = sweep(under, labelled.queries, prompts, setting.k, (setting.ensemble,))
    scores = found.scores(setting.k, setting.p, setting.ensemble)
    return check_scores(scores, prompts.names, labelled.truths)


def _recipe_of(model: Model, name: str) -> Recipe:
    return model.recipe if model.recipe.name == name else make_recipe(name)


def confirm(correct: BoolArray, reference: BoolArray) -> Confirmation:
    """Compare a choice with a reference by which of the same pictures each got right, (m,) each."""
    found = compare_correct(("reference", "choice"), reference, correct)
    return Confirmation(
        pictures=len(correct),
        top_1=float(correct.mean()),
        interval=share_interval(correct),
        reference=float(reference.mean()),
        difference=found.difference,
        difference_interval=found.interval,
        p_value=found.p_value,
    )


def best_by_k_and_p(settings: Sequence[TriedSetting], side: int) -> dict[tuple[int, float], float]:
    """The best share of each k and p of one side (0 image, 1 text), over all else."""
    best: dict[tuple[int, float], float] = {}
    for setting in settings:
        cell = setting.k[side], setting.p[side]
        best[cell] = max(best.get(cell, 0.0), setting.top_1)
    return best


class Comparison(Protocol):
    """What `store_best` has to know of compared settings: a `Tuning` or a `SelfTuning`."""

    @property
    def best(self) -> TriedSetting:
        """The chosen one."""

    @property
    def choices(self) -> Sequence[TriedSetting]:
        """All that were compared."""

    @property
    def pictures(self) -> int:
        """How many made the choice."""

    @property
    def held_out_share(self) -> float | None:
        """Share right of the held-out pictures; None if none were held out."""

    @property
    def objection(self) -> str | None:
        """Why the choice is not to take the place of the model's own setting; None if it may."""


def store_best(model: Model, found: Comparison) -> None:
    """Store the best choice with the version, as what it answers with by default.

    Raises:
        InputError: there is an objection to it.
        StorageError, DatabaseBusyError: it cannot be written.
    """
    if found.objection is not None:
        raise InputError(f"not stored: {found.objection}")
    best = found.best
    chosen = StoredSetting(
        version=model.version.name,
        recipe=make_recipe(best.recipe, k=best.k, p=best.p),
        ensemble=best.ensemble,
        templates=best.templates,
        top_1=best.top_1,
        pictures=found.pictures,
        comparisons=len(found.choices),
        held_out=found.held_out_share,
    )
    store_setting(model.store, chosen)
