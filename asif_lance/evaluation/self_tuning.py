"""tune --self-test: recipe, k and p chosen on the pairs alone, without a labelled picture.

The pictures that stand for the labels (see `self_test`) are few, and how many of them a setting
gets right hardly tells good settings apart. So they are compared by the log-loss: how improbable
they make the true labels, each with the sharpness that suits it best (see `confidence`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from asif_lance.errors import InputError
from asif_lance.evaluation.confidence import fit_sharpness, log_losses
from asif_lance.evaluation.self_test import SelfTest, sample_self_test
from asif_lance.evaluation.statistics import Interval, bootstrap_mean
from asif_lance.evaluation.tuning import (
    Grid,
    TriedSetting,
    answer_alike,
    own_setting,
    score_settings,
)
from asif_lance.model import Model, Prompts
from asif_lance.records import Float64Array
from asif_lance.relative import RECIPES


@dataclass(frozen=True, slots=True)
class SelfTriedSetting(TriedSetting):
    """One way to answer, and how it does on the self-test.

    Attributes:
        log_loss: mean over the self-test's pictures of minus the logarithm of the true label's
            probability; that of guessing is the logarithm of the number of labels.
    """

    log_loss: float


@dataclass(frozen=True, slots=True)
class SelfTuning:
    """All settings that were compared, and the best.

    Attributes:
        model: the version's name.
        labels: how many labels were told apart.
        pictures: how many pictures of pairs stood for them.
        choices: all settings, the model's own one among them.
        best: the one with the least log-loss.
        reference: the model's own setting.
        difference: log-loss of the best less that of the reference.
        interval: 95 % paired bootstrap interval of the difference; None for a single picture.
    """

    model: str
    labels: int
    pictures: int
    choices: tuple[SelfTriedSetting, ...]
    best: SelfTriedSetting
    reference: SelfTriedSetting
    difference: float
    interval: Interval | None

    @property
    def held_out_share(self) -> None:
        """None: no picture is held out of the self-test."""
        return None

    @property
    def objection(self) -> str | None:
        """Why the choice is not to take the place of the model's own setting; None if it may."""
        same = self.best == self.reference
        return "no choice is better than the model's own setting" if same else None


def tune_by_self_test(
    model: Model, prompts: Prompts, grid: Grid | None = None, *, own: Prompts | None = None
) -> SelfTuning:
    """Compare every setting of a grid on the self-test.

    Args:
        model: the version; its own setting is among the choices, and what they are compared with.
        prompts: the labels.
        grid: what is tried beside the model's own setting; all recipes unless it names some.
        own: the labels as the model asks by itself; `prompts` unless given.

    Raises:
        InputError: an unknown recipe, an empty grid, a single label, or too few pairs for a
            self-test.
    """
    if len(prompts.names) < 2:
        raise InputError("whatever answers is right about a single label: give at least two")
    grid, own = grid or Grid(), own or prompts
    grid = replace(
        grid,
        ensembles=grid.ensembles or (prompts.ensemble,),
        recipes=grid.recipes or tuple(RECIPES),
    )
    test = sample_self_test(model, prompts)
    tried = [found for name in grid.recipes for found in _try(model, test, prompts, grid, name)]
    reference = _try_own(model, test, own, tried)
    best = min(tried, key=lambda entry: (entry[0].log_loss, entry is not reference))
    losses = best[1] - reference[1]
    return SelfTuning(
        model=model.version.name,
        labels=len(prompts.names),
        pictures=len(test.truths),
        choices=tuple(setting for setting, _ in tried),
        best=best[0],
        reference=reference[0],
        difference=float(losses.mean()),
        interval=bootstrap_mean(losses),
    )


def _try(
    model: Model, test: SelfTest, prompts: Prompts, grid: Grid, name: str
) -> Iterator[tuple[SelfTriedSetting, Float64Array]]:
    """Every setting of one recipe, and its (m,) losses."""
    settings = score_settings(model, test.queries, [prompts], grid, name, test.neighbors)
    for setting, scores in settings:
        yield _judge(setting, scores, test)


def _try_own(
    model: Model,
    test: SelfTest,
    own: Prompts,
    tried: list[tuple[SelfTriedSetting, Float64Array]],
) -> tuple[SelfTriedSetting, Float64Array]:
    setting = own_setting(model, own)
    for entry in tried:
        if answer_alike(entry[0], setting, model, own):
            return entry
    scores, _ = test.scores(model, model.compile(own))
    tried.append(_judge(setting, scores, test))
    return tried[-1]


def _judge(
    setting: TriedSetting, scores: Float64Array, test: SelfTest
) -> tuple[SelfTriedSetting, Float64Array]:
    losses = log_losses(scores, test.truths, fit_sharpness(scores, test.truths))
    right = (scores.argmax(axis=1) == test.truths) & (scores.max(axis=1) > 0)
    judged = SelfTriedSetting(
        recipe=setting.recipe,
        k=setting.k,
        p=setting.p,
        templates=setting.templates,
        ensemble=setting.ensemble,
        top_1=float(right.mean()),
        log_loss=float(losses.mean()),
    )
    return judged, losses
