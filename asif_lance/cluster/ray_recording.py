"""Pictures classified and recorded by actors of Ray: some encode, others search."""

from __future__ import annotations

from asif_lance.anchors import SharedAnchors
from asif_lance.cluster.ray_cluster import import_ray, size_workers, start_ray
from asif_lance.cluster.ray_engine import Worker, WorkerPool, drive
from asif_lance.cluster.ray_search import SearchActors
from asif_lance.cluster.recording import RecordedRun, commit_recording
from asif_lance.cluster.recording_plan import RecordingPlan


def record_with_ray(
    plan: RecordingPlan,
    *,
    workers: int | None = None,
    shards: int | None = None,
    cpus: float = 1,
    gpus: float | None = None,
) -> RecordedRun:
    """Classifies and records pictures on a Ray cluster, or on this machine where there is none.

    Of each worker's cores one half is asked for to encode and one to search: who encodes waits
    while others search for it.

    Args:
        plan: from `plan_recording`.
        workers: how many encode, and how many search; as many as there is room for when None.
        shards: into how many the pairs are cut; see `SearchActors.share`.
        cpus: of each worker.
        gpus: of each that encodes; by default one where the cluster has any.

    Raises:
        InputError: Ray is not installed.
        ShardsFailedError: some shards failed again and again; others are done, and stay so.
        AsifError: as for `commit_recording`.
    """
    ray = import_ray()
    start_ray(ray)
    encodes = plan.vectors is None
    count, gpus = size_workers(ray, workers, cpus, gpus if encodes else 0)
    # All of a GPU is the encoder's: shards are compared on the processor.
    with SearchActors.start(count, cpus=cpus / 2, gpus=0) as searchers:
        shared = searchers.share(plan.open_model(), shards)
        assert isinstance(shared.anchors, SharedAnchors)
        shared.compile(plan.read_prompts())  # once: a large label set is kept, and workers read it
        actor = ray.remote(num_cpus=cpus / 2, num_gpus=gpus, max_restarts=0)(Worker)
        given = searchers.map, len(shared.anchors.shards)
        pool = WorkerPool(ray, actor, min(count, len(plan.shards)), given)
        try:
            return drive(plan, pool, lambda: commit_recording(plan))
        finally:
            pool.close()
