"""Pictures that many processes classify and record: the run is the one that a single one makes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import picture
from recorded_rows import record_alone, recorded
from shared_sources import DIMENSION, row, write_rows

from asif_lance.audit import Audit, list_runs, prune_runs
from asif_lance.audit.recorder import Recorder
from asif_lance.audit.replay import load_replay
from asif_lance.audit.run_rows import read_predictions
from asif_lance.cluster import (
    RecordedRun,
    RecordingPlan,
    Task,
    abandon,
    commit_recording,
    list_plans,
    list_recordings,
    list_tasks,
    plan_recording,
    run_task,
)
from asif_lance.database import list_open_ingests
from asif_lance.encoders import read_vectors
from asif_lance.errors import DatabaseError, InputError, StaleModelError
from asif_lance.ingest import ingest_sources
from asif_lance.model import Prompts, open_model, prompts_from_vectors
from asif_lance.store.forget import forget

COUNT = 23


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Four fragments."""
    for number in range(4):
        rows = [row(n % 40, n) for n in range(15 * number, 15 * number + 15)]
        source = write_rows(tmp_path / f"{number}.parquet", rows)
        ingest_sources(tmp_path / "t.lancedb", [source])
    return tmp_path / "t.lancedb"


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    found = rng.standard_normal((COUNT, DIMENSION)).astype("f4").tolist()
    ids = [f"picture {number}" for number in range(COUNT)]
    pq.write_table(pa.table({"id": ids, "vector": found}), tmp_path / "vectors.parquet")
    return tmp_path / "vectors.parquet"


@pytest.fixture
def prompts() -> Prompts:
    rng = np.random.default_rng(5)
    found = rng.standard_normal((6, 2, DIMENSION)).astype("f4")
    return prompts_from_vectors(dict(zip("abcdef", found, strict=True)), "mean-embedding")


def finish(plan: RecordingPlan, seed: int = 0) -> RecordedRun:
    """Run all tasks in this process, in any order."""
    order = random.Random(seed)
    while True:
        while tasks := list_tasks(plan):
            for task in order.sample(tasks, len(tasks)):
                run_task(task)
        if (found := commit_recording(plan)) is not None:
            return found


@pytest.mark.parametrize("size", [3, 10, 100])
def test_rows_of_a_shared_run_are_those_of_one_process_bit_by_bit(
    database: Path, vectors: Path, prompts: Prompts, size: int
) -> None:
    model = open_model(database, k=20)
    expected = recorded(database, record_alone(model, prompts, vectors, top=3, pairs=7))
    how = {"top": 3, "pairs": 7, "shard_pictures": size}
    plan = plan_recording(model, prompts, vectors=vectors, **how)
    done = finish(plan, seed=size)
    assert recorded(database, done.run.run_id) == expected
    assert len(expected["predictions"]) == 3 * COUNT
    assert len(expected["attributions"]) > 100
    assert done.run in list_runs(model.store)
    assert not list_open_ingests(str(database))


@pytest.mark.slow
def test_processes_share_a_recording(database: Path, vectors: Path, prompts: Prompts) -> None:
    model = open_model(database, k=20)
    expected = recorded(database, record_alone(model, prompts, vectors))
    plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=5)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(run_task, list_tasks(plan)))
    done = commit_recording(plan)
    assert done is not None
    assert recorded(database, done.run.run_id) == expected


def test_what_is_asked_of_records_is_answered_of_a_shared_run(
    database: Path, vectors: Path, prompts: Prompts
) -> None:
    model = open_model(database, k=20)
    alone = record_alone(model, prompts, vectors)
    done = finish(plan_recording(model, prompts, vectors=vectors, shard_pictures=7))
    expected, found = (load_replay(model.store, run, 6) for run in (alone, done.run.run_id))
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.queries, expected.queries)
    labels = model.compile(prompts)
    answers = model.classify_vectors(*read_vectors(vectors), labels)
    for one, answer in zip(read_predictions(model.store, done.run), answers, strict=True):
        assert (one.image, one.ranking) == (answer.image, tuple(answer.ranking[:5]))
    with Audit(model.store) as audit:
        query = f"""
            SELECT count(DISTINCT prediction_id) AS many, count(*) AS rows
            FROM predictions JOIN attributions USING (prediction_id, label)
            JOIN pairs USING (pair_id) WHERE run_id = '{done.run.run_id}'
        """
        (counted,) = audit.query(query).to_pylist()
    assert counted["many"] == COUNT


def test_forgetting_takes_a_pair_out_of_a_shared_run(
    database: Path, vectors: Path, prompts: Prompts, tmp_path: Path
) -> None:
    model = open_model(database, k=20)
    done = finish(plan_recording(model, prompts, vectors=vectors, shard_pictures=7))
    shares = recorded(database, done.run.run_id)["attributions"]
    doomed = shares[0]["pair_id"]
    receipt = forget(model.store, [doomed], reason="asked to", folder=tmp_path / "keys")
    left = recorded(database, done.run.run_id)["attributions"]
    assert left == [one for one in shares if one["pair_id"] != doomed]
    assert receipt is not None
    assert not find_bytes(database, doomed)


def test_forgetting_ends_an_open_recording_and_leaves_nothing_of_it(
    database: Path, vectors: Path, prompts: Prompts, tmp_path: Path
) -> None:
    model = open_model(database, k=20)
    plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=7)
    tasks = list_tasks(plan)
    run_task(tasks[0])
    doomed = model.anchors.ids(np.arange(len(model.anchors)))
    (one,) = [i for i in doomed if find_bytes(database / "attributions.lance", i)][:1]
    forget(model.store, [one], reason="asked to", folder=tmp_path / "keys")
    assert not find_bytes(database, one)
    with pytest.raises((DatabaseError, StaleModelError)):
        run_task(tasks[1])
    again = open_model(database, k=20)
    done = finish(plan_recording(again, prompts, vectors=vectors, shard_pictures=7))
    expected = recorded(database, record_alone(again, prompts, vectors))
    assert recorded(database, done.run.run_id) == expected


def find_bytes(folder: Path, text: str) -> list[Path]:
    """The files that have a text in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]


def test_a_recording_that_is_planned_again_goes_on(
    database: Path, vectors: Path, prompts: Prompts
) -> None:
    model = open_model(database, k=20)
    first = plan_recording(model, prompts, vectors=vectors, shard_pictures=7)
    run_task(list_tasks(first)[0])
    again = plan_recording(open_model(database, k=20), prompts, vectors=vectors, shard_pictures=7)
    assert again == first
    assert [task.shards for task in list_tasks(again)] == [(1,), (2,), (3,)]
    others = [
        plan_recording(open_model(database, k=19), prompts, vectors=vectors, shard_pictures=7),
        plan_recording(model, prompts, vectors=vectors, shard_pictures=7, top=2),
    ]
    assert len({plan.ingest_id for plan in (first, *others)}) == 3
    assert list_plans(database) == []
    for plan in list_recordings(database):
        abandon(plan)
    assert not list_open_ingests(str(database))
    with pytest.raises(DatabaseError, match="not open any more"):
        run_task(list_tasks_of(first)[1])


def test_a_worker_of_a_run_that_is_over_writes_nothing_into_the_next_one(
    database: Path, vectors: Path, prompts: Prompts
) -> None:
    model = open_model(database, k=20)
    first = plan_recording(model, prompts, vectors=vectors, shard_pictures=7)
    tasks = list_tasks(first)
    finish(first)
    second = plan_recording(model, prompts, vectors=vectors, shard_pictures=7)
    assert second.ingest_id == first.ingest_id
    with pytest.raises(DatabaseError, match="not open any more"):
        run_task(tasks[0])
    done = finish(second)
    assert done.run.run_id == second.run.run_id != first.run.run_id
    own = [recorded(database, run.run_id) for run in list_runs(model.store)]
    assert own[0] == own[1]


def list_tasks_of(plan: RecordingPlan) -> list[Task]:
    return [Task(plan.uri, plan.ingest_id, plan.commit_id, "record", (n,)) for n in plan.shards]


def test_upkeep_spares_what_an_open_recording_has_written(
    database: Path, vectors: Path, prompts: Prompts
) -> None:
    model = open_model(database, k=20)
    record_alone(model, prompts, vectors)
    plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=7)
    for task in list_tasks(plan):
        run_task(task)
    prune_runs(model.store, keep_last=0)
    done = commit_recording(plan)
    assert done is not None
    assert done.run.predictions == COUNT


def test_shards_whose_files_are_gone_are_done_again(
    database: Path, vectors: Path, prompts: Prompts
) -> None:
    model = open_model(database, k=20)
    expected = recorded(database, record_alone(model, prompts, vectors))
    before = set((database / "queries.lance" / "data").iterdir())
    plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=7)
    for task in list_tasks(plan):
        run_task(task)
    new = set((database / "queries.lance" / "data").iterdir()) - before
    assert len(new) == 4
    new.pop().unlink()
    assert commit_recording(plan) is None
    assert len(list_tasks(plan)) == 1
    done = finish(plan)
    assert recorded(database, done.run.run_id) == expected


def test_it_is_not_committed_before_all_shards_are_done(
    database: Path, vectors: Path, prompts: Prompts
) -> None:
    plan = plan_recording(open_model(database), prompts, vectors=vectors, shard_pictures=7)
    run_task(list_tasks(plan)[0])
    with pytest.raises(DatabaseError, match="not all shards of recording"):
        commit_recording(plan)


KILLED = """
import os, sys
import lance
from asif_lance.cluster import commit_recording, list_tasks, open_work, recording, run_task
from asif_lance.cluster.recording_plan import load_recording

uri, recording_id, side = sys.argv[1:4]
left = int(sys.argv[4])

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
recording.write_rows_apart = dying(recording.write_rows_apart)
recording.finish_run = dying(recording.finish_run)
recording.close_ingest = dying(recording.close_ingest)
plan = load_recording(uri, recording_id)
for task in list_tasks(plan):
    run_task(task)
commit_recording(plan)
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_anywhere_it_is_one_run_when_it_is_done_again(
    database: Path, vectors: Path, prompts: Prompts, side: str
) -> None:
    """Each file of rows that is written, each manifest, each commit, the run, and the end."""
    model = open_model(database, k=20)
    expected = recorded(database, record_alone(model, prompts, vectors))
    status, closed = 7, list[bool]()
    while status:  # until it comes to its end before the next event
        plan = plan_recording(model, prompts, vectors=vectors, shard_pictures=12)
        command = [sys.executable, "-c", KILLED, plan.uri, plan.ingest_id, side, str(len(closed))]
        died = subprocess.run(command, capture_output=True, text=True, check=False)
        status = died.returncode
        assert status in (0, 7), died.stderr
        closed.append(not list_open_ingests(str(database)))
        run = plan.run.run_id if closed[-1] else finish(plan).run.run_id
        assert run == plan.run.run_id
        assert recorded(database, run) == expected
        assert [one.run_id for one in list_runs(model.store)].count(run) == 1
    assert len(closed) > 13
    assert closed == [False] * (len(closed) - 2) + [side == "after", True]


@pytest.mark.encoders
def test_pictures_are_named_refused_and_told_true_as_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        photo = picture(tmp_path / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    uri = tmp_path / "t.lancedb"
    ingest_sources(uri, [tmp_path / "photos"])
    (tmp_path / "photos" / "2a.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    names = [f"photos/{name}.png" for name in ("0", "1", "2a", "3", "gone", "4", "5")]
    model = open_model(uri)
    asked, rejects = model.prompts(["cat", "dog"]), []
    labels = model.compile(asked)
    with Recorder(model.store, labels, model.recipe) as recorder:
        for found in model.classify(names, labels, rejects=rejects, batch_size=32):
            recorder.add(found, truth="photos")
    plan = plan_recording(model, asked, pictures=names, truth_is_folder=True, shard_pictures=32)
    monkeypatch.chdir(os.sep)
    done = finish(plan)
    assert list(done.rejects) == rejects
    assert recorded(uri, done.run.run_id) == recorded(uri, recorder.run_id)


def test_what_cannot_be_shared_is_refused(database: Path, vectors: Path, prompts: Prompts) -> None:
    model = open_model(database)
    with pytest.raises(InputError, match="one of the two"):
        plan_recording(model, prompts)
    with pytest.raises(InputError, match="only pictures in files"):
        plan_recording(model, prompts, pictures=[b"bytes"])
    with pytest.raises(InputError, match="at least one label"):
        plan_recording(model, prompts, vectors=vectors, top=0)
