"""tune --self-test: a setting chosen on the pairs alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import Cli
from four_things import KINDS, things

import asif_lance
from asif_lance.errors import InputError
from asif_lance.evaluation import Grid, build_self_test, tune_by_self_test
from asif_lance.evaluation.confidence import fit_sharpness, log_losses
from asif_lance.evaluation.tuning import store_best
from asif_lance.model import Model, prompts_from_vectors
from asif_lance.relative import RECIPES, make_recipe

DB = ("--db", "t.lancedb")
SMALL = Grid(k=(1, 10, 1000), p=(1, 4))


@pytest.fixture
def task(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> tuple[Model, dict]:
    """A model of 120 pairs about four things, and a prompt for each."""
    frame, labels = things(rng, 120, noise=3.0)  # so that no setting is always right
    frame.write_parquet(tmp_path / "pairs.parquet")
    rows = {"label": list(labels), "vector": np.stack(list(labels.values()))}
    pl.DataFrame(rows).write_parquet(tmp_path / "labels.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    return asif_lance.open(tmp_path / "t.lancedb"), labels


def test_the_choice_is_the_setting_that_makes_the_labels_most_likely(
    task: tuple[Model, dict],
) -> None:
    model, labels = task
    found = tune_by_self_test(model, prompts_from_vectors(labels), SMALL)
    assert {choice.recipe for choice in found.choices} == set(RECIPES)
    assert len(found.choices) == len(RECIPES) * 3 * 2 + 1  # the model's own is none of the grid
    assert found.best.log_loss == min(choice.log_loss for choice in found.choices)
    assert found.choices[-1] == found.reference
    assert found.difference == pytest.approx(found.best.log_loss - found.reference.log_loss)
    assert (found.labels, found.pictures) == (KINDS, 10 * KINDS)


def test_a_setting_is_judged_as_a_model_opened_so_answers(task: tuple[Model, dict]) -> None:
    model, labels = task
    prompts = prompts_from_vectors(labels)
    test = build_self_test(model, prompts)
    for choice in tune_by_self_test(model, prompts, SMALL).choices:
        under = model.under(make_recipe(choice.recipe, k=choice.k, p=choice.p))
        scores, _ = test.scores(under, under.compile(prompts))
        losses = log_losses(scores, test.truths, fit_sharpness(scores, test.truths))
        assert choice.log_loss == pytest.approx(losses.mean(), abs=1e-9)
        right = (scores.argmax(axis=1) == test.truths) & (scores.max(axis=1) > 0)
        assert choice.top_1 == right.mean()


def test_a_single_label_leaves_nothing_to_choose(task: tuple[Model, dict]) -> None:
    model, labels = task
    one = dict([next(iter(labels.items()))])
    with pytest.raises(InputError, match="give at least two"):
        tune_by_self_test(model, prompts_from_vectors(one), SMALL)


def test_the_choice_is_stored_unless_it_is_the_models_own(task: tuple[Model, dict]) -> None:
    model, labels = task
    prompts = prompts_from_vectors(labels)
    found = tune_by_self_test(model, prompts, SMALL)
    store_best(model, found)
    tuned = asif_lance.open(model.store.uri)
    assert tuned.recipe == make_recipe(found.best.recipe, k=found.best.k, p=found.best.p)
    again = tune_by_self_test(tuned, prompts, SMALL)
    assert again.best == again.reference
    with pytest.raises(InputError, match="no choice is better than the model's own setting"):
        store_best(tuned, again)


def test_the_command_needs_labels_and_no_pictures(task: tuple[Model, dict], cli: Cli) -> None:
    small = ("--ks", "10,1000", "--ps", "1,4")
    asked = ("--self-test", "--label-vectors", "labels.parquet", *small)
    said = cli(*DB, "tune", *asked).out
    assert "chosen because it makes the labels of 40 pairs that stand for 4 labels" in said
    found = json.loads(cli(*DB, "tune", *asked, "--format", "json").out)
    assert found["best"]["log_loss"] <= found["reference"]["log_loss"]
    assert "stored with v1" in cli(*DB, "tune", *asked, "--store").err
    for wrong, told in (
        (("tune",), "give labelled PICTURES, or --self-test"),
        (("tune", "pairs.parquet", *asked), "one of the two"),
        (("tune", *asked, "--holdout", "0.5"), "--self-test goes without --holdout"),
        (("tune", "--self-test"), "give --labels, --labels-file or --label-vectors"),
    ):
        refused = cli(*DB, *wrong)
        assert (refused.status, told in refused.err) == (2, True), refused.err
