"""Recorded predictions: complete, summing to the scores, and forgotten with their pairs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import pytest
from conftest import IMAGE_DIM, TEXT_DIM, Cli, pairs_frame
from pairs_at_hand import names, new_store, pairs

import asif_lance
from asif_lance.audit import recorder, run_rows, runs
from asif_lance.audit.reports import REPORTS
from asif_lance.audit.sql import Audit
from asif_lance.database.tables import open_table
from asif_lance.errors import InputError
from asif_lance.forgetting.content import Content
from asif_lance.model import Contributions, Prediction
from asif_lance.model.labels import Prompts
from asif_lance.model.model import Model
from asif_lance.records import Float32Array
from asif_lance.search.query_grid import unit_queries
from asif_lance.store import maintenance
from asif_lance.store.forget import forget, plan
from asif_lance.verifier import scan

DB = ("--db", "t.lancedb")
LABELS = tuple("abcde")


@pytest.fixture
def model(cli: Cli, tmp_path: Path, rng: np.random.Generator) -> Model:
    pairs_frame(300, rng).write_parquet(tmp_path / "pairs.parquet")
    assert cli(*DB, "ingest", "pairs.parquet").status == 0
    return asif_lance.open(tmp_path / "t.lancedb", k=100, p=2)


def record(
    model: Model,
    rng: np.random.Generator,
    count: int = 30,
    top: int | None = None,
    pairs: int | None = None,
) -> str:
    labels = model.label_vectors(
        {name: rng.standard_normal(TEXT_DIM).astype(np.float32) for name in LABELS}
    )
    queries = rng.standard_normal((count, IMAGE_DIM)).astype(np.float32)
    names = [f"image-{i}.jpg" for i in range(count)]
    with recorder.Recorder(model.store, labels, model.recipe, top=top, pairs=pairs) as run:
        for i, prediction in enumerate(model.classify_vectors(names, queries, labels)):
            run.add(prediction, truth=LABELS[i % 5])
    return run.run_id


@pytest.fixture
def sql(model: Model) -> Iterator[object]:
    def ask(text: str) -> list[dict[str, object]]:
        with Audit(model.store) as audit:
            rows: list[dict[str, object]] = audit.query(text).to_pylist()
            return rows

    return ask


def test_uncapped_attributions_sum_to_every_score_and_give_the_ranking(
    model: Model, rng: np.random.Generator, sql: object
) -> None:
    record(model, rng)
    rows = sql(  # type: ignore[operator]
        """WITH sums AS (
             SELECT prediction_id, p.rank, score, coverage, coalesce(sum(contribution), 0) AS total
             FROM predictions p LEFT JOIN attributions a USING (prediction_id, label)
             GROUP BY ALL)
           SELECT *, row_number() OVER (PARTITION BY prediction_id ORDER BY total DESC, rank)
             AS again FROM sums"""
    )
    assert len(rows) == 30 * len(LABELS)
    assert max(abs(r["score"] - r["total"]) for r in rows) < 1e-5
    assert all(r["rank"] == r["again"] for r in rows)
    assert min(r["coverage"] for r in rows) > 1 - 1e-5


def test_a_cap_is_stated_with_the_share_of_the_score_that_it_covers(
    model: Model, rng: np.random.Generator, sql: object
) -> None:
    record(model, rng, top=2, pairs=3)
    rows = sql(  # type: ignore[operator]
        """SELECT p.rank, score, coverage, count(*) AS pairs, sum(contribution) AS total
           FROM predictions p JOIN attributions a USING (prediction_id, label)
           GROUP BY prediction_id, label, p.rank, score, coverage"""
    )
    assert {r["rank"] for r in rows} == {1, 2}
    assert max(r["pairs"] for r in rows) == 3
    assert [r["coverage"] for r in rows] == pytest.approx([r["total"] / r["score"] for r in rows])
    assert min(r["coverage"] for r in rows) < 1


@pytest.mark.parametrize("recipe", ["paper", "centred", "white"])
def test_recorded_shares_are_bit_by_bit_those_of_each_label_alone(
    tmp_path: Path, rng: np.random.Generator, recipe: str
) -> None:
    store = new_store(tmp_path, 1280, 384)
    store.add(pairs(names(0, 400), image=1280, text=384))
    store.publish(command="ingest")
    model = asif_lance.open(store.uri, recipe=recipe, k=200, device="cpu")
    captions = rng.standard_normal((5, 384)).astype(np.float32)
    labels = model.label_vectors(dict(zip(LABELS, captions, strict=True)))
    images = rng.standard_normal((7, 1280)).astype(np.float32)
    predictions = list(model.classify_vectors([f"i{i}" for i in range(7)], images, labels))
    with recorder.Recorder(store, labels, model.recipe, top=3, pairs=9) as run:
        ids = [run.add(prediction) for prediction in predictions]
    rows = open_table(store.uri, "attributions").to_table()
    assert len(rows) > 100
    for prediction_id, prediction in zip(ids, predictions, strict=True):
        for label, _ in prediction.ranking[:3]:
            mine = (pc.field("prediction_id") == prediction_id) & (pc.field("label") == label)
            found = rows.filter(mine)
            shares = prediction.evidence.contributions(label, 9)
            assert found["pair_id"].to_pylist() == shares.pair_ids
            assert found["rank"].to_pylist() == list(range(1, len(found) + 1))
            for column, expected in (
                ("image_similarity", similarities(prediction, "image", shares, label)),
                ("text_similarity", similarities(prediction, "text", shares, label)),
                ("contribution", shares.contributions),
            ):
                assert np.array_equal(found[column].to_numpy(), expected), column
            told = [
                (a.pair_id, a.image_similarity, a.text_similarity, a.contribution)
                for a in prediction.attributions(9, label)
            ]
            columns = ["pair_id", "image_similarity", "text_similarity", "contribution"]
            assert told == [tuple(row.values()) for row in found.select(columns).to_pylist()]


def similarities(
    prediction: Prediction, side: Literal["image", "text"], shares: Contributions, label: str
) -> Float32Array:
    """Of one label's pairs alone, by their stored vectors, rounded once."""
    evidence = prediction.evidence
    query = evidence.vector
    if side == "text":
        query = evidence.labels.query(evidence.labels.names.index(label))
    vectors = evidence.anchors.vectors(side, shares.positions)
    measure = evidence.labels.recipe.measures[side == "text"]
    turned, offset, scale = evidence.anchors.terms(side, query[None], measure=measure)
    products = vectors.astype(np.float64) @ turned[0].astype(np.float64)
    if offset is None or scale is None:
        return products.astype(np.float32)
    similar = (products + offset[0]) * scale.exact_factors(vectors, shares.positions)
    return similar.astype(np.float32)


def test_a_run_says_what_was_asked_of_which_model(model: Model, rng: np.random.Generator) -> None:
    run_id = record(model, rng)
    (run,) = runs.list_runs(model.store)
    assert (run.run_id, run.model, run.recipe) == (run_id, "v1", model.recipe.name)
    assert (run.labels, run.predictions) == (5, 30)


def test_equal_label_sets_have_equal_fingerprints(model: Model, rng: np.random.Generator) -> None:
    one, other = (rng.standard_normal(TEXT_DIM).astype(np.float32) for _ in range(2))
    sets = [{"a": one, "b": other}, {"a": one, "b": other}, {"a": other, "b": one}]
    first, second, third = (run_rows.fingerprint(model.label_vectors(s).prompts) for s in sets)
    assert first == second != third


def test_a_run_that_fails_leaves_nothing(
    model: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = record(model, rng)
    monkeypatch.setattr(recorder, "_PREDICTIONS_PER_COMMIT", 10)
    labels = model.label_vectors({"a": np.ones(TEXT_DIM, np.float32)})
    queries = rng.standard_normal((15, IMAGE_DIM)).astype(np.float32)

    def interrupted() -> None:
        with recorder.Recorder(model.store, labels, model.recipe) as run:
            for prediction in model.classify_vectors(["x"] * 15, queries, labels):
                run.add(prediction)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for table in TABLES:
        assert ids_of_runs_in(model, table) == {kept}, table


def test_pruning_keeps_the_newest_runs_and_the_young(
    model: Model, rng: np.random.Generator, sql: object
) -> None:
    ids = [record(model, rng, count=4) for _ in range(3)]
    assert runs.prune_runs(model.store, keep_last=0, older_than=timedelta(days=1)) == []
    assert runs.prune_runs(model.store, keep_last=1) == sorted(ids[:2])
    found = sql("SELECT DISTINCT run_id FROM predictions")  # type: ignore[operator]
    assert found == [{"run_id": ids[2]}]
    left = sql("SELECT DISTINCT prediction_id[:-3] AS run FROM attributions")  # type: ignore[operator]
    assert len(left) == 1
    with pytest.raises(InputError, match="say which runs to keep"):
        runs.prune_runs(model.store)


def test_forgetting_takes_attributions_of_the_pair_and_predictions_of_its_picture(
    model: Model, rng: np.random.Generator, sql: object
) -> None:
    labels = model.label_vectors({"caption 7": np.ones(TEXT_DIM, np.float32)})
    queries = rng.standard_normal((2, IMAGE_DIM)).astype(np.float32)
    with recorder.Recorder(model.store, labels, model.recipe, pairs=None) as run:
        for prediction in model.classify_vectors(["photos/p7", "other"], queries, labels):
            run.add(prediction, truth="caption 7")
    before = sql("SELECT DISTINCT pair_id FROM attributions")  # type: ignore[operator]
    used = sorted(str(row["pair_id"]) for row in before)
    gone = [used[0], "p7"]
    rows = model.store.read().filter(pc.field("pair_id").isin([gone[0], "p7"]))
    assert set(plan(model.store, gone).pairs) == set(gone)

    receipt = forget(model.store, gone, reason="asked to")

    assert receipt.clean, receipt.findings
    assert receipt.elsewhere["predictions"] == 1
    assert not scan(model.store.uri, Content(b"salt", rows)).hits
    left = sql("SELECT pair_id FROM attributions")  # type: ignore[operator]
    assert left
    assert not {row["pair_id"] for row in left} & set(gone)
    images = sql("SELECT image, label FROM predictions")  # type: ignore[operator]
    assert images == [{"image": "other", "label": "caption 7"}]


def test_a_template_that_reads_like_a_forgotten_caption_is_the_askers_own(
    model: Model, rng: np.random.Generator
) -> None:
    vector = rng.standard_normal((1, TEXT_DIM)).astype(np.float32)
    asked = Prompts(("a",), np.array([0]), unit_queries(vector), templates="caption 7")
    labels = model.compile(asked)
    query = rng.standard_normal((1, IMAGE_DIM)).astype(np.float32)
    with recorder.Recorder(model.store, labels, model.recipe) as run:
        run.add(next(model.classify_vectors(["other"], query, labels)))
    receipt = forget(model.store, ["p7"], reason="asked to")
    assert receipt.clean, receipt.findings
    assert [found.templates for found in runs.list_runs(model.store)] == ["caption 7"]


def test_recording_from_the_command_feeds_every_canned_report(
    model: Model, cli: Cli, query_file: Path, label_file: Path
) -> None:
    arguments = ["--vectors", query_file, "--label-vectors", label_file, "--attributions", "4"]
    done = cli(*DB, "classify", *arguments, "--record", "--truth-is-folder", "--format", "json")
    assert done.status == 0
    assert len(done.objects) == 20
    (run,) = cli(*DB, "runs", "--format", "json").objects
    assert done.err == f"recorded as run {run['run_id']}\n"
    assert (run["model"], run["labels"], run["predictions"]) == ("v1", 5, 20)
    for report in REPORTS:
        found = cli(*DB, "audit", "--report", report.name, "--format", "json")
        assert found.status == 0, found.err
    assert cli(*DB, "runs", "prune", "--keep-last", "0").err == "dropped 1 run\n"
    assert cli(*DB, "runs", "--format", "json").objects == []
    assert cli(*DB, "runs", "prune").status == 2


TABLES = ("runs", "predictions", "prompts", "queries", "attributions")


def ids_of_runs_in(model: Model, table: str) -> set[str]:
    column = "run_id" if table in ("runs", "predictions", "prompts") else "prediction_id"
    rows = open_table(model.store.uri, table).to_table(columns=[column])[column].to_pylist()
    return {"-".join(row.split("-")[:3]) for row in rows}


def test_a_finished_run_drops_the_runs_that_are_not_to_be_kept(
    model: Model, rng: np.random.Generator
) -> None:
    first = record(model, rng, 3)
    runs.set_retention(model.store, runs.RetentionRule(last=2))
    assert runs.retention_rule(model.store) == runs.RetentionRule(last=2)
    newer = [record(model, rng, 3) for _ in range(3)]
    for table in TABLES:
        assert ids_of_runs_in(model, table) == set(newer[1:]), table
    assert first not in {run.run_id for run in runs.list_runs(model.store)}
    runs.set_retention(model.store, runs.RetentionRule())
    record(model, rng, 3)
    assert len(runs.list_runs(model.store)) == 3


def test_a_run_stays_while_it_is_young_or_among_the_newest_and_is_never_dropped_by_itself(
    model: Model, rng: np.random.Generator
) -> None:
    record(model, rng, 3)
    runs.set_retention(model.store, runs.RetentionRule(last=1, younger_than=timedelta(hours=1)))
    record(model, rng, 3)
    assert len(runs.list_runs(model.store)) == 2
    runs.set_retention(model.store, runs.RetentionRule(younger_than=timedelta(0)))
    last = record(model, rng, 3)
    assert [run.run_id for run in runs.list_runs(model.store)] == [last]
    with pytest.raises(InputError, match="at least the newest run"):
        runs.set_retention(model.store, runs.RetentionRule(last=0))
    with pytest.raises(InputError, match="negative"):
        runs.RetentionRule(last=-1)


def test_what_is_to_be_kept_outlives_forgetting_and_upkeep(
    model: Model, rng: np.random.Generator
) -> None:
    rule = runs.RetentionRule(last=5, younger_than=timedelta(days=90))
    runs.set_retention(model.store, rule)
    for _ in range(3):
        record(model, rng, 2)
    forget(model.store, ["p7"], reason="asked to")
    maintenance.optimize(model.store)
    assert runs.retention_rule(model.store) == rule


def test_a_run_under_way_loses_nothing_when_others_are_dropped(
    model: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_PREDICTIONS_PER_COMMIT", 1)
    record(model, rng, 2)
    runs.set_retention(model.store, runs.RetentionRule(last=1))
    labels = model.label_vectors({"a": rng.standard_normal(TEXT_DIM).astype(np.float32)})
    queries = rng.standard_normal((2, IMAGE_DIM)).astype(np.float32)
    with recorder.Recorder(model.store, labels, model.recipe) as run:
        for prediction in model.classify_vectors(["x", "y"], queries, labels):
            run.add(prediction)
        assert ids_of_runs_in(model, "predictions") > {run.run_id}
        other = record(model, rng, 2)  # drops the first, and not what is half-written
        assert runs.prune_runs(model.store, keep_last=1) == []
        assert ids_of_runs_in(model, "predictions") == {run.run_id, other}
    assert run.dropped == []  # the other one began later
    record(model, rng, 2)
    assert len(ids_of_runs_in(model, "predictions")) == 1


def test_what_a_killed_run_left_goes_when_runs_are_pruned_a_day_later(
    model: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_PREDICTIONS_PER_COMMIT", 1)
    labels = model.label_vectors({"a": rng.standard_normal(TEXT_DIM).astype(np.float32)})
    queries = rng.standard_normal((1, IMAGE_DIM)).astype(np.float32)
    killed = recorder.Recorder(model.store, labels, model.recipe)
    killed.add(next(model.classify_vectors(["x"], queries, labels)))
    stays = record(model, rng, 2)
    runs.prune_runs(model.store, keep_last=1)
    assert ids_of_runs_in(model, "attributions") == {killed.run_id, stays}
    monkeypatch.setattr(runs, "_UNDER_WAY", -timedelta(minutes=1))
    runs.prune_runs(model.store, keep_last=1)
    for table in TABLES:
        assert ids_of_runs_in(model, table) == {stays}, table


def test_the_command_says_what_is_kept_and_each_recording_says_what_it_dropped(
    model: Model, cli: Cli, query_file: Path, label_file: Path
) -> None:
    classify = [*DB, "classify", "--vectors", query_file, "--label-vectors", label_file, "--record"]
    assert cli(*DB, "runs", "keep").err == "kept: all runs\n"
    kept = "kept: the newest run and runs younger than 90d\n"
    assert cli(*DB, "runs", "keep", "--last", "1", "--younger-than", "90d").err == kept
    assert cli(*DB, "runs", "keep").err == kept
    assert cli(*classify).status == 0
    assert cli(*DB, "runs", "keep", "--last", "1").err == "kept: the newest run\n"
    assert cli(*classify).err.endswith("dropped 1 older run, see `runs keep`\n")
    assert cli(*DB, "runs", "keep", "--everything").err == "kept: all runs\n"
    assert "dropped" not in cli(*classify).err
    assert cli(*DB, "runs", "keep", "--everything", "--last", "1").status == 2
    assert cli(*DB, "runs", "keep", "--last", "0").status == 2


def test_pairs_that_drive_wrong_answers_are_told_apart_from_those_that_help(
    cli: Cli, tmp_path: Path
) -> None:
    """Two kinds of pictures, x and y; two of three pairs with pictures of x are captioned as y."""
    image = np.eye(IMAGE_DIM, dtype=np.float32)[[0, 0, 0, 1]] + np.float32(0.01)
    text = np.eye(TEXT_DIM, dtype=np.float32)[[1, 1, 0, 1]]
    frame = pairs_frame(4, np.random.default_rng(0))
    frame.with_columns(image_vector=image, text_vector=text).write_parquet(tmp_path / "p.parquet")
    cli(*DB, "ingest", "p.parquet")
    model = asif_lance.open(tmp_path / "t.lancedb", k=3, p=1)
    labels = model.label_vectors(dict(zip("xy", np.eye(TEXT_DIM, dtype=np.float32), strict=False)))
    with recorder.Recorder(model.store, labels, model.recipe) as run:
        names = [f"{kind}{i}.jpg" for kind in "xy" for i in range(5)]
        for prediction in model.classify_vectors(names, image[[0] * 5 + [3] * 5], labels):
            run.add(prediction, truth=prediction.image[0])
    said = "SELECT image, label FROM predictions WHERE rank = 1 ORDER BY image"
    answers = cli(*DB, "audit", said, "--format", "json").objects
    assert {row["label"] for row in answers} == {"y"}
    found = cli(*DB, "audit", "--report", "wrong-drivers", "--format", "json").objects
    assert [row["pair_id"] for row in found] == ["p0", "p1"]
    assert all(row["pictures"] >= 5 for row in found)
    assert all(row["right_weight"] < row["by_chance"] < row["wrong_weight"] for row in found)
