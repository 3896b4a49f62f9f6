"""Sweeps, tuning and growth, each against models really asked or really built."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import polars as pl
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame
from PIL import Image

import asif_lance
from asif_lance.errors import InputError
from asif_lance.evaluation.labelled_pictures import Labelled, read_labelled
from asif_lance.evaluation.scaling_curve import scaling, sizes_up_to
from asif_lance.evaluation.sweep import sweep
from asif_lance.evaluation.tuning import Grid, confirm, store_best, tune
from asif_lance.model.labels import Ensemble, Prompts, prompts_from_vectors
from asif_lance.model.model import Model
from asif_lance.model.stored_settings import StoredSetting, load_setting, store_setting
from asif_lance.relative.recipes import DEFAULT, RECIPES, make_recipe

DB = ("--db", "t.lancedb")
VERDICTS = ("confirmed", "worse", "not confirmed: the difference may be chance")


@pytest.fixture
def task(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> tuple[Model, Labelled, Prompts]:
    """300 pairs about five things, 60 pictures of them, two prompts each; on disk as files too."""
    image, text = (rng.standard_normal((5, d)).astype(np.float32) for d in (IMAGE_DIM, TEXT_DIM))

    def around(centres: np.ndarray, kinds: np.ndarray, noise: float) -> np.ndarray:
        own = centres[kinds]
        return own + noise * rng.standard_normal(own.shape).astype(np.float32)

    kinds, asked = rng.integers(5, size=300), rng.integers(5, size=60)
    pairs_frame(300, rng).with_columns(
        image_vector=around(image, kinds, 1.0), text_vector=around(text, kinds, 1.0)
    ).write_parquet(tmp_path / "pairs.parquet")
    rows = {"label": [f"c{i}" for i in asked], "vector": around(image, asked, 1.5)}
    pl.DataFrame(rows).write_parquet(tmp_path / "test.parquet")
    names = [f"c{i}" for i in range(5) for _ in range(2)]
    labels = {"label": names, "vector": around(text, np.repeat(np.arange(5), 2), 0.5)}
    pl.DataFrame(labels).write_parquet(tmp_path / "labels.parquet")
    cli(*DB, "ingest", "pairs.parquet")
    cli(*DB, "delete", "p7")
    model = asif_lance.open(tmp_path / "t.lancedb")
    vectors = labels["vector"].reshape(5, 2, TEXT_DIM)
    prompts = prompts_from_vectors({f"c{i}": vectors[i] for i in range(5)})
    return model, read_labelled(tmp_path / "test.parquet"), prompts


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("ensemble", get_args(Ensemble))
def test_a_sweep_gives_the_scores_of_a_model_opened_so(
    task: tuple[Model, Labelled, Prompts], ensemble: Ensemble, name: str
) -> None:
    model, labelled, prompts = task
    found = sweep(model.under(make_recipe(name)), labelled.queries, prompts, (299, 100))
    for k, p in (((3, 7), (1.0, 8.0)), ((299, 100), (4.0, 2.0))):
        own = model.under(make_recipe(name, k=k, p=p))
        asked = Prompts(prompts.names, prompts.owner, prompts.vectors, ensemble)
        answers = own.classify_vectors(labelled.names, labelled.embeddings, own.compile(asked))
        expected = [[dict(a.ranking)[name] for name in prompts.names] for a in answers]
        assert found.scores(k, p, ensemble).tolist() == expected


def test_tuning_finds_the_best_of_its_grid_and_confirms_it_elsewhere(
    task: tuple[Model, Labelled, Prompts],
) -> None:
    model, labelled, prompts = task
    grid = Grid(k=(1, 10, 1000, 2000), p=(1, 4), ensembles=("max", "mean-relative"), per_side=True)
    found = tune(model, labelled, prompts, grid, holdout=0.5)
    assert len(found.choices) == len(set(found.choices)) == (3 * 2) ** 2 * 2 + 1
    assert found.choices[-1] == found.reference  # the model's own setting is none of the grid
    assert found.best.top_1 == max(c.top_1 for c in found.choices) == found.on_tuning.top_1
    assert {c.k[0] for c in found.choices[:-1]} == {1, 10, 1000}  # 2,000 is the same here
    assert found.held_out is not None
    assert found.on_tuning.pictures + found.held_out.pictures == 60
    assert (found.reference.recipe, found.reference.k) == (DEFAULT, RECIPES[DEFAULT].k)
    assert found.on_tuning.difference == pytest.approx(found.best.top_1 - found.reference.top_1)


def test_the_models_own_setting_is_a_choice_once_and_wins_where_no_other_is_better(
    task: tuple[Model, Labelled, Prompts],
) -> None:
    model, labelled, prompts = task
    own = model.under(make_recipe("paper", k=900, p=3))
    found = tune(own, labelled, prompts, Grid(k=(5, 299, 700), p=(3,)))
    assert [c.k for c in found.choices] == [(5, 5), (299, 299)]
    assert found.reference is found.choices[1]  # 299 are all pairs, as 900 would be
    found = tune(own, labelled, prompts, Grid(k=(299,), p=(2.9999, 3)))
    assert len({c.top_1 for c in found.choices}) == 1
    assert (found.best, found.verdict) == (found.reference, "the model's own setting")
    with pytest.raises(InputError, match="no choice is better than the model's own setting"):
        store_best(own, found)


def test_the_setting_that_a_version_answers_with_is_compared_whatever_is_asked(
    task: tuple[Model, Labelled, Prompts],
) -> None:
    model, labelled, prompts = task
    wrong = replace(prompts, vectors=prompts.vectors[::-1].copy(), templates="a wrong {}.")
    found = tune(model, labelled, wrong, Grid(k=(299,), p=(4,)), own=prompts)
    assert found.best == found.reference == found.choices[-1]
    assert (found.best.templates, found.reference.top_1 > found.choices[0].top_1) == ("", True)


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"), [(9, 0, "confirmed"), (0, 9, "worse"), (5, 4, VERDICTS[2])]
)
def test_a_choice_is_confirmed_where_chance_does_not_explain_the_difference(
    gained: int, lost: int, verdict: str
) -> None:
    correct, reference = np.zeros(60, dtype=bool), np.zeros(60, dtype=bool)
    correct[:gained] = True
    reference[gained : gained + lost] = True
    assert confirm(correct, reference).verdict == verdict


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        ({"k": ()}, "at least one k"),
        ({"k": (0,)}, "k must be at least 1"),
        ({"p": (8.0, float("nan"))}, "p must be above 0 and finite"),
        ({"recipes": ("none",)}, "no recipe 'none'"),
        ({"ensembles": ("median",)}, "no ensemble 'median'"),
    ],
)
def test_grids_without_meaning_are_refused(
    grid: dict[str, tuple[object, ...]], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        Grid(**grid)  # type: ignore[arg-type]


def test_growth_is_what_models_of_so_many_pairs_score(
    task: tuple[Model, Labelled, Prompts], cli: Cli, tmp_path: Path
) -> None:
    model, labelled, prompts = task
    settings = [((20, 20), (4.0, 4.0)), ((299, 299), (1.0, 1.0))]
    points = scaling(model, labelled, prompts, settings, [40, 299], repetitions=2, seed=5)
    assert [(p.pairs, len(p.top_1)) for p in points] == [(40, 2), (40, 2), (299, 1), (299, 1)]
    ids = np.array(sorted(model.anchors.pair_ids.to_pylist()))
    ids = ids[ids != "p7"]
    chosen = ids[np.random.default_rng([5, 0]).permutation(len(ids))[:40]]
    frame = pl.read_parquet(tmp_path / "pairs.parquet")
    frame.filter(pl.col("pair_id").is_in(chosen)).write_parquet(tmp_path / "few.parquet")
    cli("--db", "few.lancedb", "ingest", "few.parquet")
    few = asif_lance.open(tmp_path / "few.lancedb", k=20, p=4)
    answers = few.classify_vectors(labelled.names, labelled.embeddings, few.compile(prompts))
    hits = [a.label == truth for a, truth in zip(answers, labelled.truths, strict=True)]
    assert points[0].top_1[0] == np.mean(hits)


def test_sizes_grow_threefold_up_to_all() -> None:
    assert sizes_up_to(1500) == (30, 100, 300, 1000, 1500)
    assert sizes_up_to(20) == (20,)


def test_impossible_sizes_are_refused(task: tuple[Model, Labelled, Prompts]) -> None:
    with pytest.raises(InputError, match="between 1 and the 299 pairs"):
        scaling(*task, [((1, 1), (1.0, 1.0))], [300])
    with pytest.raises(InputError, match="at least one setting"):
        scaling(*task, [])
    with pytest.raises(InputError, match="p must be above 0 and finite"):
        scaling(*task, [((1, 1), (1.0, float("nan")))])
    with pytest.raises(InputError, match="a seed is a whole number"):
        scaling(*task, [((1, 1), (1.0, 1.0))], seed=-1)


def test_the_commands_print_tables_json_and_plots(
    task: tuple[Model, Labelled, Prompts], cli: Cli, tmp_path: Path
) -> None:
    asked = (*DB, "tune", "test.parquet", "--label-vectors", "labels.parquet", "--ks", "1,50,299")
    shown = cli(*asked, "--plot", "heat.png")
    assert shown.status == 0
    assert "best of 21 choices on v2: the model's own setting, --recipe " in shown.out
    assert "optimistic: chosen on this set" in shown.err
    assert "the choice is" not in shown.out
    held_out = cli(*asked, "--holdout", "0.5").out.splitlines()
    assert held_out[-1].startswith("on held-out pictures (")
    (told,) = cli(*asked, "--holdout", "0.5", "--format", "json").objects
    assert told["verdict"] == "the model's own setting"
    assert told["comparisons"] == len(told["choices"]) == 21  # the own setting is in the grid
    assert told["held_out"]["pictures"] == 60 - told["on_tuning"]["pictures"]
    grown = (*DB, "scaling", "test.parquet", "--label-vectors", "labels.parquet", "--setting")
    told = cli(*grown, "50,20:4,2", "--sizes", "50,299", "--format", "json", "--plot", "g.svg")
    assert [(o["pairs"], o["k"], o["p"]) for o in told.objects] == [
        (50, [50, 20], [4.0, 2.0]),
        (299, [50, 20], [4.0, 2.0]),
    ]
    assert [o["deviation"] is None for o in told.objects] == [False, True]  # all pairs: once
    assert "±" in cli(*grown, "50:4", "--sizes", "50").out
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "g.svg").read_text()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--ks", "1,x"), "'1,x' is not a list of whole numbers"),
        (("--holdout", "1"), "is not in the range"),
        (("--plot", "a.gif"), "has to end in .png or .svg or .pdf"),
        (("--try-ensemble", "median"), "'median' is not one of"),
        (("--labels", "a", "--labels-file", "test.parquet"), "one of them"),
    ],
)
def test_wrong_usage_is_told(
    task: tuple[Model, Labelled, Prompts], cli: Cli, options: tuple[str, ...], reason: str
) -> None:
    done = cli(*DB, "tune", "test.parquet", *options)
    assert done.status == 2
    assert reason in done.err


def test_plots_have_a_known_suffix(task: tuple[Model, Labelled, Prompts], cli: Cli) -> None:
    asked = ("evaluate", "test.parquet", "--label-vectors", "labels.parquet")
    done = cli(*DB, *asked, "--plot", "result.doc")
    assert done.status == 2
    assert "'result.doc': its name has to end in .png or .svg or .pdf" in done.err
    (told,) = cli(*DB, *asked, "--format", "json", "--plot", "result.pdf").objects
    assert (told["recipe"], told["k"], told["templates"]) == (DEFAULT, [*RECIPES[DEFAULT].k], "")
    assert sum(b["pictures"] for b in told["reliability"]) == 60
    assert json.dumps(told)


def test_a_stored_choice_is_its_versions_default_and_no_others(
    task: tuple[Model, Labelled, Prompts], cli: Cli, tmp_path: Path
) -> None:
    asked = ("--vectors", "test.parquet", "--label-vectors", "labels.parquet", "--format", "json")
    frame = pl.read_parquet(tmp_path / "test.parquet").with_row_index("id")
    frame.with_columns(pl.col("id").cast(pl.String)).write_parquet(tmp_path / "test.parquet")
    before = cli(*DB, "classify", *asked).out
    poor = StoredSetting("v2", make_recipe("paper", k=1, p=1.0), "max", "", 0.2, 60, 1, None)
    store_setting(task[0].store, poor)
    tuned = (*DB, "tune", "test.parquet", "--label-vectors", "labels.parquet", "--ks", "90,299")
    grid = ("--ps", "3", "--try-ensemble", "mean-relative", "--holdout", "0.5", "--store")
    shown = cli(*tuned, *grid[:-1], "--try-recipe", DEFAULT)
    said = "against the model's own setting, the choice is confirmed"
    assert shown.out.splitlines()[-1] == said
    done = cli(*tuned, *grid, "--try-recipe", DEFAULT, "--format", "json")
    assert done.err == "stored with v2, which answers so where no recipe, k or p is given\n"
    assert (done.objects[0]["verdict"], done.objects[0]["stored"]) == ("confirmed", True)
    assert done.objects[0]["reference"]["k"] == [1, 1]
    best = done.objects[0]["best"]
    (first, *_) = cli(*DB, "classify", *asked).objects
    assert (first["k"], first["p"]) == (best["k"][0], 3.0)
    assert asif_lance.open(tmp_path / "t.lancedb").ensemble == "mean-relative"
    (told,) = cli(*DB, "evaluate", "test.parquet", *asked[2:]).objects
    assert (told["k"], told["ensemble"]) == (best["k"], "mean-relative")
    assert cli(*DB, "classify", *asked, "--recipe", DEFAULT).out == before
    (first, *_) = cli(*DB, "classify", *asked, "--k", "7").objects
    assert (first["k"], first["p"]) == (7, _told(RECIPES[DEFAULT].p))
    assert cli(*DB, "delete", "p8").status == 0
    (first, *_) = cli(*DB, "classify", *asked).objects
    default = RECIPES[DEFAULT]
    assert (first["model"], first["k"]) == ("v3", _told(default.k))
    assert first["p"] == _told(default.p)


def test_a_choice_that_held_out_pictures_do_not_confirm_is_not_stored(
    task: tuple[Model, Labelled, Prompts], cli: Cli
) -> None:
    tuned = (*DB, "tune", "test.parquet", "--label-vectors", "labels.parquet", "--store")
    done = cli(*tuned, "--ks", "30,40,50", "--try-recipe", "paper", "--holdout", "0.1")
    assert done.status == 0
    assert done.err.startswith("not stored: ")
    assert load_setting(task[0].store, "v2") is None
    (told,) = cli(*tuned, "--ks", "1", "--format", "json").objects
    assert (told["verdict"], told["stored"]) == ("the model's own setting", False)


@pytest.mark.encoders
def test_template_sets_are_tried_and_the_best_is_stored_with_the_version(
    cli: Cli, tmp_path: Path
) -> None:
    for name, color in {"red": (255, 0, 0), "blue": (0, 0, 255), "lime": (0, 255, 0)}.items():
        for folder in (tmp_path / "pairs", tmp_path / "test" / name):
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), color).save(folder / f"{name}.png")
        (tmp_path / "pairs" / f"{name}.txt").write_text(f"{name}")
    assert cli(*DB, "ingest", "pairs").status == 0
    beyond = "and " * 300 + "{}"  # the encoder reads no label of it: a poor setting
    recipe, store = make_recipe(), asif_lance.open(tmp_path / "t.lancedb").store
    poor = StoredSetting("v1", recipe, "max", beyond, 0.3, 3, 1, None)
    store_setting(store, poor)
    tuned = (*DB, "tune", "test", "--template", "not {}", "--ks", "2,3", "--ps", "4")
    tries = ("--try-templates", "general", "--try-templates", "lit", "--try-ensemble")
    grid = (*tries, "mean-relative", "--try-ensemble", "max", "--store", "--format", "json")
    (told,) = cli(*tuned, *grid).objects
    asked = [(c["templates"], c["ensemble"]) for c in told["choices"] if c["k"] == [2, 2]]
    assert asked == [
        ("not {}", "mean-relative"),  # of one prompt all ensembles make the same
        *product(("general", "lit"), ("mean-relative", "max")),
    ]
    assert (told["reference"]["templates"], told["stored"]) == (beyond, True)
    model = asif_lance.open(tmp_path / "t.lancedb")
    assert (model.templates, model.ensemble) == (told["best"]["templates"], "mean-relative")
    picture = ("classify", "test/red/red.png", "--labels", "red,blue", "--format", "json")
    for choice in told["choices"][:-1]:  # the last is the poor one, which says nothing
        own = model.under(make_recipe(choice["recipe"], k=tuple(choice["k"]), p=tuple(choice["p"])))
        labels = own.labels(sorted(set(found_names())), choice["templates"], choice["ensemble"])
        answers = own.classify([f"test/{n}/{n}.png" for n in found_names()], labels)
        right = [a.label == n for a, n in zip(answers, found_names(), strict=True)]
        assert choice["top_1"] == pytest.approx(np.mean(right))
    (said,) = cli(*DB, *picture, "--record").objects
    assert (said["templates"], said["ensemble"]) == (model.templates, "mean-relative")
    (run,) = cli(*DB, "runs", "--format", "json").objects
    assert run["templates"] == model.templates
    (said,) = cli(*DB, *picture, "--templates", "general").objects
    assert said["templates"] == "general"
    (said,) = cli(*DB, *picture, "--recipe", DEFAULT).objects
    assert said["templates"] == "a photo of a {}."
    shown = cli(*tuned)
    assert "--p 4,4 --template 'not {}' --ensemble " in shown.out
    assert asif_lance.open(tmp_path / "t.lancedb").templates == model.templates
    assert "not stored: no choice is better" in cli(*tuned, "--store").err
    store_setting(store, poor)
    cli(*tuned, "--store")
    assert asif_lance.open(tmp_path / "t.lancedb").templates == "not {}"
    assert cli(*DB, *picture).objects[0]["templates"] == "not {}"


def found_names() -> tuple[str, ...]:
    """The classes of the pictures above, as they are listed."""
    return "blue", "lime", "red"


def _told(sides: tuple[float, float]) -> float | list[float]:
    return sides[0] if sides[0] == sides[1] else list(sides)
