"""The same on a real Ray of two workers, of which some are lost and some are slow."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from shared_sources import DIMENSION, content, refused, row, write_rows, write_sources

from asif_lance.cluster import Task, ingest_with_ray, plan_ingest, ray_engine
from asif_lance.cluster.ray_engine import ATTEMPTS, WorkerPool
from asif_lance.errors import ShardsFailedError
from asif_lance.ingest import ingest_sources
from asif_lance.model import Model, open_model, share_model

ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ray on this machine, with room for two; its workers know the S3 server, if there is one."""
    with suppress(pytest.skip.Exception):
        request.getfixturevalue("s3_server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # it listens on this machine alone
        patch.setenv("OMP_NUM_THREADS", "1")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8)
        yield
        ray.shutdown()


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return write_sources(tmp_path / "sources")


def test_ray_makes_the_model_of_one_process(cli: Cli, tmp_path: Path, sources: list[Path]) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    done = cli("--db", "t.lancedb", "ingest", *sources, "--engine", "ray", "--format", "json")
    assert done.status == 0, done.err
    assert done.objects[0]["added"] == expected.added
    assert done.objects[0]["rejected"] == len(expected.rejects)
    assert content(tmp_path / "t.lancedb").equals(content(tmp_path / "alone.lancedb"))


def test_a_lost_worker_costs_no_more_than_its_shard(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ingest_sources(tmp_path / "alone.lancedb", sources)
    given: list[Task] = []
    lost: list[Task] = []
    give = WorkerPool.give

    def give_and_lose(pool: WorkerPool, task: Task) -> None:
        give(pool, task)
        given.append(task)
        if not any(one.kind == task.kind for one in lost):
            lost.append(task)
            (actor,) = (actor for actor, own, _ in pool.busy.values() if own == task)
            ray.kill(actor)

    monkeypatch.setattr(WorkerPool, "give", give_and_lose)
    report = ingest_with_ray(tmp_path / "t.lancedb", sources, workers=2, shard_rows=20)
    assert [task.kind for task in lost] == ["name", "encode"]
    again = {task for task in given if given.count(task) > 1}
    assert set(lost) <= again
    assert content(tmp_path / "t.lancedb").equals(content(tmp_path / "alone.lancedb"))
    assert refused(report) == refused(expected)


def test_a_shard_that_fails_everywhere_surfaces_when_the_others_are_done(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [row(n, n, pair_id=f"{name}{n}") for n in range(30)]
        write_rows(tmp_path / f"{name}.parquet", rows)
    uri, path = tmp_path / "t.lancedb", tmp_path / "b.parquet"
    sources, whole = [tmp_path / "a.parquet", path], path.read_bytes()
    plan = plan_ingest(uri, sources, shard_rows=10)
    pool = WorkerPool(ray, ray.remote(Failing), 2)
    tasks = [Task(str(uri), plan.ingest_id, plan.epoch, "name", (n,)) for n in range(6)]
    with pytest.raises(ShardsFailedError, match=r"^1 shard failed \(no such luck\); what is done"):
        pool.run(tasks)
    pool.close()
    path.write_bytes(whole)


class Failing:
    """Answers for a worker, of which one shard always fails."""

    def run(self, task: Task) -> str | None:
        return "no such luck" if task.shards == (4,) else None


class Sleeping:
    """Answers for a worker that sleeps over the first shard, where nobody had it before."""

    def run(self, task: Task) -> str | None:
        place = Path(task.uri)
        begun = any(place.glob("*-0"))
        (place / f"{os.getpid()}-{time.time_ns()}-{task.shards[0]}").touch()
        if task.shards == (0,) and not begun:
            time.sleep(300)
        time.sleep(0.05)
        return None


def test_a_worker_that_takes_long_is_given_up_for_another(tmp_path: Path) -> None:
    tasks = [Task(str(tmp_path), "", 0, "encode", (n,)) for n in range(6)]
    pool = WorkerPool(ray, ray.remote(Sleeping), 2)
    pool.run(tasks)
    pool.close()
    begun = [path.name.split("-")[-1] for path in tmp_path.iterdir()]
    assert begun.count("0") == 2
    assert len(begun) == 7


def test_ray_that_is_not_there_is_told_in_one_line(
    cli: Cli, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(ray_engine.importlib, "import_module", fail)
    done = cli("--db", "t.lancedb", "ingest", pairs_file, "--engine", "ray")
    assert (done.status, done.out) == (1, "")
    assert "--engine ray needs Ray: pip install 'asif-lance[ray]'" in done.err
    assert ATTEMPTS > 1


def test_ray_shares_the_search_of_a_model(tmp_path: Path) -> None:
    from ray.util.multiprocessing import Pool

    for number in range(3):  # a fragment each
        rows = [row(n, n) for n in range(20 * number, 20 * number + 20)]
        source = write_rows(tmp_path / f"{number}.parquet", rows)
        ingest_sources(tmp_path / "t.lancedb", [source])
    rng = np.random.default_rng(5)
    questions, prompts = (rng.standard_normal((n, DIMENSION)).astype("f4") for n in (5, 3))

    def predict(model: Model) -> list[tuple]:
        labels = model.label_vectors(dict(zip("abc", prompts, strict=True)))
        found = model.classify_vectors([str(n) for n in range(5)], questions, labels)
        return [(one.ranking, one.attributions(20)) for one in found]

    model = open_model(tmp_path / "t.lancedb", k=10)
    with Pool(2) as pool:
        assert predict(share_model(model, pool.map, 3)) == predict(model)


def test_ray_shares_an_ingest_into_an_object_store(
    cli: Cli, bucket: str, tmp_path: Path, sources: list[Path]
) -> None:
    ingest_sources(tmp_path / "alone.lancedb", sources)
    uri = f"{bucket}/t.lancedb"
    done = cli("--db", uri, "ingest", *sources, "--engine", "ray", "--workers", "2")
    assert done.status == 0, done.err
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
