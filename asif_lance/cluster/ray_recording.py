"""Pictures classified and recorded by actors of Ray: some encode, others search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asif_lance.anchors import SharedAnchors
from asif_lance.audit.run_rows import LABELS, PAIRS
from asif_lance.cluster.ray_cluster import count_room, import_ray, start_ray
from asif_lance.cluster.ray_engine import Worker, WorkerPool, drive
from asif_lance.cluster.ray_search import SearchActors
from asif_lance.cluster.recording import RecordedRun, commit_recording
from asif_lance.cluster.recording_plan import SHARD_PICTURES, plan_recording
from asif_lance.encoders import ImageFile
from asif_lance.model import Model, Prompts


def record_with_ray(
    model: Model,
    prompts: Prompts,
    *,
    pictures: Sequence[ImageFile] = (),
    vectors: Path | None = None,
    top: int | None = LABELS,
    pairs: int | None = PAIRS,
    truth_is_folder: bool = False,
    shard_pictures: int = SHARD_PICTURES,
    workers: int | None = None,
    shards: int | None = None,
    cpus: float = 1,
    gpus: float = 0,
) -> RecordedRun:
    """Classifies and records pictures on a Ray cluster, or on this machine where there is none.

    Of each worker's cores one half is asked for to encode and one to search: who encodes waits
    while others search for it.

    Args:
        model: an opened version.
        prompts: the labels, from the model's `prompts`.
        pictures: as for `plan_recording`.
        vectors: likewise.
        top: likewise.
        pairs: likewise.
        truth_is_folder: likewise.
        shard_pictures: likewise.
        workers: how many encode, and how many search; as many as there is room for when None.
        shards: into how many the pairs are cut; see `SearchActors.share`.
        cpus: of each worker.
        gpus: of each that encodes.

    Raises:
        InputError: Ray is not installed.
        ShardsFailedError: some shards failed again and again; others are done, and stay so.
        AsifError: as for `plan_recording` and `commit_recording`.
    """
    ray = import_ray()
    plan = plan_recording(
        model,
        prompts,
        pictures=pictures,
        vectors=vectors,
        top=top,
        pairs=pairs,
        truth_is_folder=truth_is_folder,
        shard_pictures=shard_pictures,
    )
    start_ray(ray)
    count = workers or count_room(ray, cpus, gpus)
    with SearchActors.start(count, cpus=cpus / 2) as searchers:
        shared = searchers.share(model, shards)
        assert isinstance(shared.anchors, SharedAnchors)
        shared.compile(prompts)  # once: a large label set is kept, and workers read it
        actor = ray.remote(num_cpus=cpus / 2, num_gpus=gpus, max_restarts=0)(Worker)
        given = searchers.map, len(shared.anchors.shards)
        pool = WorkerPool(ray, actor, min(count, len(plan.shards)), given)
        try:
            return drive(plan, pool, lambda: commit_recording(plan))
        finally:
            pool.close()
