"""An ingest that several processes share makes what one makes, whoever dies on the way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import lance
import numpy as np
import pytest
import timm
import torch
from shared_sources import (
    DIMENSION,
    as_frame,
    content,
    finish,
    refused,
    row,
    write_rows,
    write_sources,
)
from source_archives import noise, samples, write_tar
from timm.models import save_for_hf

from asif_lance.cluster import (
    Plan,
    Task,
    abandon,
    commit,
    id_buckets,
    list_plans,
    list_tasks,
    plan_ingest,
    run_task,
)
from asif_lance.cluster import plan as plan_module
from asif_lance.cluster.open_work import begin_work
from asif_lance.database import PLAN_FILE, put_if_absent
from asif_lance.errors import DatabaseError, InputError, SourceError, StaleModelError, StorageError
from asif_lance.ingest import IngestOptions, IngestReport, ingest_sources
from asif_lance.model import open_model
from asif_lance.object_stores import list_sizes, open_path
from asif_lance.store import PairStore, optimize
from asif_lance.store.forget import forget, verify_receipt


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return write_sources(tmp_path / "sources")


def rows_files(uri: Path) -> set[str]:
    return {path.name for path in (uri / "pairs.lance" / "data").iterdir()}


def check_like_one_process(uri: Path, report: IngestReport, expected: IngestReport) -> None:
    alone = uri.parent / "alone.lancedb"
    assert as_frame(content(uri)).equals(as_frame(content(alone)))
    assert content(uri).equals(content(alone))  # the vectors' bits, too
    assert refused(report) == refused(expected)
    assert (report.added, report.already_there) == (expected.added, expected.already_there)
    store = PairStore.open(str(uri))
    assert [version.name for version in store.versions()] == ["v1"]
    assert store.versions()[0].pairs == report.added
    assert len(store.rejects()) == len(expected.rejects)
    assert not list_plans(uri)


@pytest.mark.parametrize("captions", ["mean", "each"])
@pytest.mark.parametrize("rows", [1_000, 20, 5])
def test_the_model_is_that_of_one_process_for_any_number_of_shards(
    tmp_path: Path, sources: list[Path], rows: int, captions: str
) -> None:
    options = IngestOptions(captions=captions)
    expected = ingest_sources(tmp_path / "alone.lancedb", sources, options)
    uri = tmp_path / "shared.lancedb"
    plan = plan_ingest(uri, sources, options, shard_rows=rows)
    assert len(plan.shards) == {1_000: 5, 20: 9, 5: 14}[rows]
    check_like_one_process(uri, finish(plan, seed=rows), expected)


def test_ids_are_compared_in_as_many_buckets_as_there_is_room_for(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_buckets, "BUCKET_BYTES", 3_000)
    ingest_sources(tmp_path / "alone.lancedb", sources[1:2])
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = tmp_path / "shard=x" / "it's [1]?.lancedb"
    ingest_sources(uri, sources[1:2])
    report = finish(plan_ingest(uri, sources, shard_rows=10))
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert refused(report) == refused(expected)
    assert (report.added, report.already_there) == (expected.added, expected.already_there)


def classify(uri: Path, recipe: str | None) -> list[tuple]:
    """Labels, scores and the pairs that they rest on, of some questions to the newest model."""
    model = open_model(uri, recipe=recipe, k=20)
    rng = np.random.default_rng(5)
    questions, labels = (rng.standard_normal((n, DIMENSION)).astype(np.float32) for n in (9, 4))
    compiled = model.label_vectors(dict(zip("abcd", labels, strict=True)))
    found = model.classify_vectors([str(n) for n in range(9)], questions, compiled)
    return [(p.ranking, p.attributions(20)) for p in found]


@pytest.mark.parametrize("recipe", ["paper", None])
def test_answers_have_the_bits_of_one_process_for_1_2_and_7_shards(
    tmp_path: Path, recipe: str | None
) -> None:
    # Seven row groups; every picture and every text is in four of them, under ids of their own.
    rows = [row(n % 18, n % 18, pair_id=f"own-{n * 7 % 71:02}") for n in range(70)]
    source = write_rows(tmp_path / "sources" / "a.parquet", rows)
    options = IngestOptions(captions="each")
    ingest_sources(tmp_path / "alone.lancedb", [source], options)
    expected = classify(tmp_path / "alone.lancedb", recipe)
    for number, shard_rows in {1: 70, 2: 40, 7: 10}.items():
        uri = tmp_path / f"{number}.lancedb"
        plan = plan_ingest(uri, [source], options, shard_rows=shard_rows)
        assert len(plan.shards) == number
        finish(plan, seed=number)
        assert content(uri).equals(content(tmp_path / "alone.lancedb"))
        assert classify(uri, recipe) == expected


def test_an_ingest_into_a_model_passes_over_what_is_there(
    tmp_path: Path, sources: list[Path]
) -> None:
    reports = []
    for name in ("alone.lancedb", "shared.lancedb"):
        ingest_sources(tmp_path / name, sources[1:2])
        changed = write_rows(tmp_path / "f.parquet", [row(900, 900, pair_id="own-3")])
        everything = [*sources, changed]
        reports.append(
            ingest_sources(tmp_path / name, everything)
            if name == "alone.lancedb"
            else finish(plan_ingest(tmp_path / name, everything, shard_rows=10))
        )
    expected, report = reports
    assert content(tmp_path / "shared.lancedb").equals(content(tmp_path / "alone.lancedb"))
    assert refused(report) == refused(expected)
    for name in ("added", "already_there", "changed", "updated"):
        assert getattr(report, name) == getattr(expected, name), name
    again = finish(plan_ingest(tmp_path / "shared.lancedb", everything))
    assert (again.added, again.version) == (0, None)


@pytest.mark.slow
def test_processes_of_a_plain_pool_share_an_ingest(tmp_path: Path, sources: list[Path]) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = tmp_path / "shared.lancedb"
    plan, report = plan_ingest(uri, sources, shard_rows=10), None
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        while report is None:
            while tasks := list_tasks(plan):
                list(pool.map(run_task, tasks))
            report = commit(plan)
    check_like_one_process(uri, report, expected)


@pytest.mark.encoders
@pytest.mark.slow
def test_pictures_of_folders_and_archives_are_cut_into_shards_and_encoded_alike(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_resnet"), tmp_path / "tiny", safe_serialization=True)
    for number in range(24):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{number:02}.jpg").write_bytes(noise(number % 20))
        if number != 7:
            (tmp_path / "photos" / f"{number:02}.txt").write_text(f"Picture {number % 20}.")
    (tmp_path / "photos" / "x.psd").write_bytes(b"8BPS")
    (tmp_path / "photos" / "11.jpg").write_bytes(b"damaged")
    write_tar(tmp_path / "tars" / "0.tar", samples(6, first=15))
    write_tar(tmp_path / "tars" / "1.tar", samples(6, first=19))
    sources = [tmp_path / "photos", tmp_path / "tars"]
    options = IngestOptions(image_encoder=f"timm/{tmp_path}/tiny", batch_size=4)
    expected = ingest_sources(tmp_path / "alone.lancedb", sources, options)
    plan = plan_ingest(tmp_path / "t.lancedb", sources, options, shard_rows=5)
    assert len(plan.shards) == 5 + 2
    report = finish(plan)
    assert sorted(refused(report)) == sorted(refused(expected))
    tables = [content(tmp_path / name) for name in ("t.lancedb", "alone.lancedb")]
    assert as_frame(tables[0]).equals(as_frame(tables[1]))
    for side in ("image_vector", "text_vector"):  # alike up to float noise, rounded to float16
        both = [np.vstack(table[side].to_numpy()).astype(np.float32) for table in tables]
        assert np.abs(both[0] - both[1]).max() < 1e-3


# Deaths

# For each event (each file that is put, the commit, the joining of fragments, the version, the
# rejects and the end) a database, where an ingest dies before or after it and another one goes on.
# Each life is a fork of a process that has only imported.
DYING = """
import os, sys
import lance
from asif_lance.cluster import committing, open_work, plan as planning
from asif_lance.store import PairStore
from shared_sources import finish

side, folder, sources = sys.argv[1], sys.argv[2], sys.argv[3:]
left = None

def dying(act):
    def call(*args, **kwargs):
        global left
        if side == "before" and left == 0:
            os._exit(7)
        result = act(*args, **kwargs)
        if side == "after" and left == 0:
            os._exit(7)
        left -= 1
        return result
    return call

open_work.put_if_absent = dying(open_work.put_if_absent)
lance.LanceDataset.commit = staticmethod(dying(lance.LanceDataset.commit))
PairStore.publish = dying(PairStore.publish)
PairStore.add_rejects = dying(PairStore.add_rejects)
committing.close_ingest = dying(committing.close_ingest)

def live(uri, events):
    global left
    child = os.fork()
    if not child:
        left = events
        finish(planning.plan_ingest(uri, sources, shard_rows=100))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for event in range(30):
    uri = f"{folder}/{side}-{event}.lancedb"
    code = live(uri, event)
    again = live(uri, 1_000) if code else 0
    print(event, code, again)
    if code == 0:
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", ["before", "after"])
def test_whoever_is_killed_at_any_step_the_next_one_goes_on(
    tmp_path: Path, sources: list[Path], side: str
) -> None:
    some = sources[1:3]
    expected = ingest_sources(tmp_path / "alone.lancedb", some)
    command = [sys.executable, "-c", DYING, side, str(tmp_path), *map(str, some)]
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(command, cwd=tests, check=True, capture_output=True, text=True)
    lives = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(lives) >= 11
    assert [life[1:] for life in lives] == [(7, 0)] * (len(lives) - 1) + [(0, 0)], done.stderr
    for event, _, _ in lives:
        uri = tmp_path / f"{side}-{event}.lancedb"
        assert content(uri).equals(content(tmp_path / "alone.lancedb"))
        store = PairStore.open(str(uri))
        assert [(v.name, v.pairs) for v in store.versions()] == [("v1", expected.added)]
        # Killed after it was closed, the same command is an ingest of its own.
        times = 2 if (side, event) == ("after", lives[-2][0]) else 1
        assert len(store.rejects()) == len(expected.rejects) * times
        assert not list_plans(uri)


def test_a_commit_whose_answer_is_lost_is_not_made_again(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = tmp_path / "shared.lancedb"
    plan = plan_ingest(uri, sources, shard_rows=20)
    while tasks := list_tasks(plan):
        for task in tasks:
            run_task(task)
    done = lance.LanceDataset.commit

    def lose(*args: object, **kwargs: object) -> None:
        done(*args, **kwargs)
        raise OSError("the connection was reset")

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "commit", staticmethod(lose))
        with pytest.raises(StorageError, match="connection was reset"):
            commit(plan)
    again = plan_ingest(uri, sources, shard_rows=20)
    assert again == plan
    check_like_one_process(uri, finish(again), expected)


def drive(uri: str, sources: list[Path]) -> str:
    try:
        finish(plan_ingest(uri, sources, shard_rows=20))
    except DatabaseError as error:
        return str(error)
    return "done"


@pytest.mark.slow
def test_of_two_drivers_at_once_one_makes_the_version(tmp_path: Path, sources: list[Path]) -> None:
    ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = tmp_path / "shared.lancedb"
    plan_ingest(uri, sources, shard_rows=20)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        ended = list(pool.map(drive, [str(uri)] * 2, [sources] * 2))
    assert "done" in ended
    assert all(one == "done" or "is not open any more" in one for one in ended), ended
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert len(PairStore.open(str(uri)).versions()) == 1


def test_of_two_workers_at_one_shard_the_second_leaves_nothing(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tmp_path / "shared.lancedb"
    plan = plan_ingest(uri, sources[1:2])
    for task in list_tasks(plan):
        run_task(task)
    (task,) = list_tasks(plan)
    run_task(task)
    (manifest,) = plan.folder.glob("rows-*.json")
    first, files = manifest.read_bytes(), rows_files(uri)
    manifest.unlink()

    def come_second(path: Path, write: Callable[[Path], object]) -> bool:
        path.write_bytes(first)
        return put_if_absent(path, write)

    with monkeypatch.context() as patch:
        patch.setattr("asif_lance.cluster.open_work.put_if_absent", come_second)
        run_task(task)
    assert rows_files(uri) == files


def test_a_shard_that_fails_surfaces_and_the_others_stay(tmp_path: Path) -> None:
    good = write_rows(tmp_path / "good.parquet", [row(n, n) for n in range(30)])
    uri = tmp_path / "shared.lancedb"
    plan = plan_ingest(uri, [good], shard_rows=10)
    damaged = good.read_bytes()
    good.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="not readable Parquet"):
        run_task(list_tasks(plan)[0])
    with pytest.raises(DatabaseError, match="not all shards of ingest"):
        commit(plan)
    good.write_bytes(damaged)
    assert finish(plan).added == 30


# Forgetting, and upkeep


def test_a_forget_ends_open_ingests_and_nothing_of_the_pair_comes_in(
    tmp_path: Path, sources: list[Path]
) -> None:
    uri = tmp_path / "shared.lancedb"
    ingest_sources(uri, sources[1:2])
    plan = plan_ingest(uri, sources, shard_rows=20)
    tasks = []
    while fresh := list_tasks(plan):
        tasks += fresh
        for task in fresh:
            run_task(task)
    before = rows_files(uri)
    store = PairStore.open(str(uri))
    receipt = forget(store, ["own-4"], reason="asked to")
    assert receipt.clean, receipt.findings
    assert receipt.elsewhere["open ingests"] > 0
    assert not list_plans(uri)
    assert len(rows_files(uri)) < len(before)  # what was written for the ingest is gone, too
    for act in (lambda: run_task(tasks[-1]), lambda: list_tasks(plan), lambda: commit(plan)):
        with pytest.raises((DatabaseError, StaleModelError)):
            act()
    again = plan_ingest(uri, sources, shard_rows=20)
    assert (again.ingest_id, again.epoch) == (plan.ingest_id, plan.epoch + 1)
    for task in list_tasks(again):
        run_task(task)
    assert not verify_receipt(store, receipt.receipt_id).findings  # names leave it out
    report = finish(again)
    assert "own-4" not in content(uri)["pair_id"].to_pylist()
    assert sum(one.forgotten for one in report.rejects) >= 1
    assert not verify_receipt(store, receipt.receipt_id).findings


def test_a_plan_that_was_made_while_another_forgot_is_not_put(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tmp_path / "shared.lancedb"
    ingest_sources(uri, sources[1:2])

    def forget_and_begin(store: PairStore, *arguments: object) -> None:
        forget(store, ["own-3"], reason="asked to")
        begin_work(store, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(plan_module, "begin_work", forget_and_begin)
        with pytest.raises(StaleModelError):
            plan_ingest(uri, sources)
    assert not list_plans(uri)
    assert finish(plan_ingest(uri, sources)).added


def test_upkeep_spares_what_an_open_ingest_has_written(tmp_path: Path, sources: list[Path]) -> None:
    uri = tmp_path / "shared.lancedb"
    plan = plan_ingest(uri, sources[:2], shard_rows=20)
    while tasks := list_tasks(plan):
        for task in tasks:
            run_task(task)
    store = PairStore.open(str(uri))
    optimize(store)
    assert finish(plan).added == len(content(uri))
    given_up = plan_ingest(uri, sources, shard_rows=20)
    while tasks := list_tasks(given_up):
        for task in tasks:
            run_task(task)
    before = rows_files(uri)
    abandon(given_up)
    optimize(store)
    assert rows_files(uri) < before


def test_workers_read_no_ids_of_a_table_that_is_as_it_was(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = tmp_path / "shared.lancedb"
    ingest_sources(uri, sources[1:2])
    plan = plan_ingest(uri, sources, shard_rows=10)
    run_all(list_tasks(plan))
    tasks = list_tasks(plan)
    assert {task.kind for task in tasks} == {"encode"}
    scan = lance.LanceDataset.scanner

    def refuse(table: lance.LanceDataset, *args: object, **asked: object) -> object:
        assert asked.get("columns") != ["pair_id"], "a worker read all ids"
        return scan(table, *args, **asked)

    with monkeypatch.context() as patched:
        patched.setattr(lance.LanceDataset, "scanner", refuse)
        run_all(tasks)
    assert commit(plan).already_there == 14


def run_all(tasks: list[Task]) -> None:
    for task in tasks:
        run_task(task)


@pytest.mark.parametrize("upkeep", [False, True])
def test_pairs_that_come_while_it_is_encoded_are_passed_over(
    tmp_path: Path, sources: list[Path], upkeep: bool
) -> None:
    for part in (sources[2:4], sources[1:2]):
        ingest_sources(tmp_path / "alone.lancedb", part)
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = tmp_path / "shared.lancedb"
    ingest_sources(uri, sources[2:4])
    plan = plan_ingest(uri, sources, shard_rows=10)
    run_all(list_tasks(plan))
    tasks = list_tasks(plan)
    ingest_sources(uri, sources[1:2])
    if upkeep:
        optimize(PairStore.open(str(uri)))
    run_all(tasks)
    report = commit(plan)
    assert report is not None
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert (report.added, report.already_there) == (expected.added, expected.already_there)


def test_rows_with_several_captions_that_are_there_are_not_added_again(tmp_path: Path) -> None:
    rows = [row(n, n, pair_id=f"own-{n}", caption=[f"caption {n}", "another"]) for n in range(30)]
    rows = [{key: one[key] for key in one if key != "text_vector"} for one in rows]
    source = write_rows(tmp_path / "a.parquet", rows)
    uri = tmp_path / "shared.lancedb"
    finish(plan_ingest(uri, [source], shard_rows=10))
    new = {**rows[0], "pair_id": "new", "image_uri": "photos/new.jpg"}
    again = write_rows(tmp_path / "b.parquet", [*rows[:5], new])
    report = finish(plan_ingest(uri, [again], shard_rows=10))
    ids = content(uri)["pair_id"].to_pylist()
    assert len(set(ids)) == len(ids) == 31
    assert report.added == 1


def test_pairs_that_others_add_meanwhile_are_not_added_again(
    tmp_path: Path, sources: list[Path]
) -> None:
    uri = tmp_path / "shared.lancedb"
    plan = plan_ingest(uri, sources, shard_rows=10)
    while tasks := list_tasks(plan):
        for task in tasks:
            run_task(task)
    ingest_sources(uri, sources[1:2])
    assert commit(plan) is None
    assert list_tasks(plan)
    report = finish(plan)
    ids = content(uri)["pair_id"].to_pylist()
    assert len(set(ids)) == len(ids) == report.added + 14
    assert report.already_there == 14


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (IngestOptions(on_conflict="update"), "--on-conflict: not for an ingest"),
        (IngestOptions(checks={"same-picture": "refuse"}), "--check: not for an ingest"),
    ],
)
def test_what_takes_one_process_is_refused(
    tmp_path: Path, sources: list[Path], options: IngestOptions, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        plan_ingest(tmp_path / "t.lancedb", sources, options)


def test_tables_in_memory_are_refused(tmp_path: Path) -> None:
    import polars as pl

    with pytest.raises(InputError, match="name files or folders"):
        plan_ingest(tmp_path / "t.lancedb", [pl.DataFrame([row(1, 1)])])


def test_a_plan_is_plain_values(tmp_path: Path, sources: list[Path]) -> None:
    plan = plan_ingest(tmp_path / "t.lancedb", sources)
    assert isinstance(plan, Plan)
    assert list_plans(tmp_path / "t.lancedb") == [plan]


@pytest.mark.slow
def test_processes_share_an_ingest_into_an_object_store(
    bucket: str, tmp_path: Path, sources: list[Path]
) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = f"{bucket}/shared.lancedb"
    plan, report = plan_ingest(uri, sources, shard_rows=20), None
    assert list_plans(uri) == [plan]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        while report is None:
            while tasks := list_tasks(plan):
                list(pool.map(run_task, tasks))
            report = commit(plan)
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert refused(report) == refused(expected)
    assert [version.name for version in PairStore.open(uri).versions()] == ["v1"]
    assert not list_plans(uri)
    assert not list_sizes(open_path(uri), "ingests")


@pytest.mark.slow
def test_what_died_while_it_was_closed_in_an_object_store_is_no_open_ingest(
    bucket: str, tmp_path: Path, sources: list[Path]
) -> None:
    uri = f"{bucket}/shared.lancedb"
    plan = plan_ingest(uri, sources[1:2], shard_rows=20)
    while tasks := list_tasks(plan):
        for task in tasks:
            run_task(task)
    (plan.folder / PLAN_FILE).unlink()
    assert not list_plans(uri)
    report = finish(plan_ingest(uri, sources[1:2], shard_rows=20))
    ids = content(uri)["pair_id"].to_pylist()
    assert report.added == len(ids) == len(set(ids))
