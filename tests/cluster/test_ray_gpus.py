"""GPUs of a Ray cluster, which here are only said to be there: who encodes has them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from shared_sources import DIMENSION, row, write_rows

from asif_lance.cluster import (
    SearchActors,
    Task,
    ingest_with_ray,
    plan_recording,
    ray_engine,
    ray_recording,
    record_with_ray,
    share_with_ray,
)
from asif_lance.cluster.ray_cluster import size_workers
from asif_lance.errors import InputError
from asif_lance.ingest import ingest_sources
from asif_lance.model import open_model

ray = pytest.importorskip("ray", reason="Ray is not installed: `make cluster` has it")
pytestmark = pytest.mark.slow

RECORD = "ASIF_LANCE_TEST_RECORD"


class RecordingActor(ray_engine.Worker):
    """A worker that writes down which GPUs it has."""

    def run(self, task: Task) -> str | None:
        gpus = "+".join(map(str, ray.get_gpu_ids()))
        Path(os.environ[RECORD], f"{task.kind} {os.getpid()} {gpus}").touch()
        return super().run(task)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray on this machine, which is told of four cores and two GPUs; where workers write."""
    record = tmp_path_factory.mktemp("record")
    with pytest.MonkeyPatch.context() as patch:
        settings = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        for name, value in {**settings, "OMP_NUM_THREADS": "1", RECORD: str(record)}.items():
            patch.setenv(name, value)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        for module in (ray_engine, ray_recording):
            patch.setattr(module, "Worker", RecordingActor)
        how = {"include_dashboard": False, "object_store_memory": 10**8}
        ray.init("local", num_cpus=4, num_gpus=2, **how)
        yield record
        ray.shutdown()


@pytest.fixture(autouse=True)
def nothing_recorded(cluster: Path) -> None:
    for path in cluster.iterdir():
        path.unlink()


def tell_gpus(_: int) -> tuple[list[int], str]:
    return ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES", "")


def test_each_actor_has_a_gpu_where_there_are_any() -> None:
    with SearchActors.start() as actors:
        found = sorted(actors.map(tell_gpus, range(2)))
        assert found == [([0], "0"), ([1], "1")]
        assert len(actors.actors) == 2  # of four cores


def test_actors_share_gpus_where_more_are_asked_for() -> None:
    with SearchActors.start(4) as actors:
        found = [gpus for gpus, _ in actors.map(tell_gpus, range(4))]
        assert sorted(found) == [[0], [0], [1], [1]]


@pytest.mark.parametrize(
    ("workers", "gpus", "expected"),
    [
        (None, None, (2, 1)),
        (1, None, (1, 1)),
        (3, None, (3, 0.5)),
        (14, None, (14, 0.1428)),
        (30_000, None, (30_000, 0)),
        (None, 0, (4, 0)),
        (None, 0.5, (4, 0.5)),
        (None, 0.7, (2, 0.7)),
        (None, 0.3333, (4, 0.3333)),
    ],
)
def test_workers_are_as_many_as_there_is_room_for(
    workers: int | None, gpus: float | None, expected: tuple[int, float]
) -> None:
    assert size_workers(ray, workers, 1, gpus) == expected


def test_more_than_one_gpu_for_a_worker_is_refused() -> None:
    with pytest.raises(InputError, match="a worker computes on one GPU or a part of it, not on 2"):
        SearchActors.start(gpus=2)


def test_actors_that_cannot_encode_have_no_gpu(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", [row(n, n) for n in range(20)])
    ingest_sources(tmp_path / "t.lancedb", [source])
    model = open_model(tmp_path / "t.lancedb")
    with share_with_ray(model) as shared:
        assert next(iter(shared.anchors._map(tell_gpus, range(4))))[0] == []
        found = shared.anchors.top_k("image", np.ones((1, DIMENSION), "f4"), 3)
        assert found.indices.shape == (1, 3)


def list_gpus(record: Path, kind: str) -> set[str]:
    """The GPUs on which tasks of a kind were done."""
    found = (path.name.split(" ") for path in record.iterdir())
    return {gpus for done, _, gpus in found if done == kind}


@pytest.mark.encoders
def test_workers_of_an_ingest_and_of_a_recording_have_gpus_and_those_that_search_none(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        photo = picture(tmp_path / "photos" / f"{number}.png", number)
        photo.with_suffix(".txt").write_text(f"A cat, or dog number {number}.")
    uri, photos = tmp_path / "t.lancedb", sorted((tmp_path / "photos").glob("*.png"))
    report = ingest_with_ray(uri, [tmp_path / "photos"], shard_rows=2)
    assert report.added == 6
    assert list_gpus(cluster, "encode") <= {"0", "1"}
    assert list_gpus(cluster, "encode")
    model = open_model(uri)
    plan = plan_recording(model, model.prompts(["cat", "dog"]), pictures=photos, shard_pictures=3)
    searched = []
    share = SearchActors.share

    def share_and_ask(actors: SearchActors, *given: object) -> object:
        searched.extend(actors.map(tell_gpus, range(2)))
        return share(actors, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(SearchActors, "share", share_and_ask)
    assert record_with_ray(plan).run.predictions == 6
    assert list_gpus(cluster, "record") <= {"0", "1"}
    assert list_gpus(cluster, "record")
    assert [gpus for gpus, _ in searched] == [[], []]
