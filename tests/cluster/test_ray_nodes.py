"""A Ray cluster of several nodes, here all on this machine: nodes go, and nodes come.

The database, its plans and the sources are in an object store, as they would be on a cloud.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import Server, upload
from shared_sources import content, row, write_rows

from asif_lance.cluster import Task, ingest_with_ray, ray_engine
from asif_lance.cluster.ray_engine import WorkerPool
from asif_lance.ingest import ingest_sources

ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:lance is not fork-safe")]

RECORD = "ASIF_LANCE_TEST_RECORD"


class RecordingActor(ray_engine.Worker):
    """A worker that writes down on which node it did what."""

    def run(self, task: Task) -> str | None:
        node = ray.get_runtime_context().get_node_id()
        Path(os.environ[RECORD], f"{node}-{task.kind}-{uuid.uuid4().hex}").touch()
        return super().run(task)


@pytest.fixture
def nodes(s3_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head does no work itself."""
    from ray.cluster_utils import Cluster

    settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    for name, value in {**settings, RECORD: str(tmp_path / "record")}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "record").mkdir()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(ray_engine, "Worker", RecordingActor)
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def add_node(nodes: Any) -> Any:
    return nodes.add_node(num_cpus=1, object_store_memory=10**8)


def seen(tmp_path: Path, kind: str) -> set[str]:
    """The nodes on which tasks of a kind were done."""
    found = (path.name.split("-") for path in (tmp_path / "record").iterdir())
    return {node for node, done, _ in found if done == kind}


@pytest.fixture
def source(tmp_path: Path, bucket: str) -> str:
    """Six shards of a file in a bucket."""
    rows = [row(n, n, image_uri=f"https://example.org/{n}.jpg") for n in range(60)]
    write_rows(tmp_path / "in" / "a.parquet", rows)
    ingest_sources(tmp_path / "alone.lancedb", [tmp_path / "in" / "a.parquet"])
    return f"{upload(tmp_path / 'in', f'{bucket}/in')}/a.parquet"


@pytest.fixture
def before_giving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Has something done just before a task is given to an actor."""
    give = WorkerPool.give

    def install(act: Callable[..., None]) -> None:
        def act_and_give(pool: WorkerPool, task: Task) -> None:
            act(pool, task)
            give(pool, task)

        monkeypatch.setattr(WorkerPool, "give", act_and_give)

    return install


@pytest.mark.parametrize("kind", ["name", "encode"])
def test_an_ingest_goes_on_when_a_node_is_taken_away_with_its_worker(
    nodes: Any, tmp_path: Path, bucket: str, source: str, before_giving: Any, kind: str
) -> None:
    leaving, given = [add_node(nodes), add_node(nodes)], list[Task]()

    def take_away(pool: WorkerPool, task: Task) -> None:
        given.append(task)
        if [one.kind for one in given].count(kind) == 3 and len(leaving) == 2:
            nodes.remove_node(leaving.pop(), allow_graceful=False)

    before_giving(take_away)
    uri = f"{bucket}/t.lancedb"
    report = ingest_with_ray(uri, [source], workers=2, shard_rows=10)
    assert (report.added, report.version.name if report.version else "") == (60, "v1")
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert len(leaving) == 1
    assert 6 <= len([one for one in given if one.kind == kind]) <= 9


def test_a_node_that_comes_later_takes_its_share_of_the_work(
    nodes: Any, tmp_path: Path, bucket: str, source: str, before_giving: Any
) -> None:
    add_node(nodes)
    came = []

    def come(pool: WorkerPool, task: Task) -> None:
        if task.kind == "encode" and not came:  # two workers are asked for, one waits for room
            came.append(add_node(nodes))

    before_giving(come)
    uri = f"{bucket}/t.lancedb"
    report = ingest_with_ray(uri, [source], workers=2, shard_rows=5)
    assert report.added == 60
    assert content(uri).equals(content(tmp_path / "alone.lancedb"))
    assert len(seen(tmp_path, "name")) == 1
    assert len(seen(tmp_path, "encode")) == 2
