"""Tasks carried to workers by Ray: an actor per worker, which loads its encoders once.

A task whose actor dies, or whose machine goes, is given to another one. Towards the end, when
actors are idle, tasks that run for long are given to a second one; who is done first counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from asif_lance.cluster.committing import commit
from asif_lance.cluster.open_work import OpenWork
from asif_lance.cluster.plan import SHARD_ROWS, plan_ingest
from asif_lance.cluster.ray_cluster import (
    ATTEMPTS,
    describe_loss,
    import_ray,
    size_workers,
    start_ray,
)
from asif_lance.cluster.tasks import Task, list_tasks, run_task
from asif_lance.errors import AsifError, ShardsFailedError
from asif_lance.ingest import IngestOptions, IngestReport
from asif_lance.progress import track

if TYPE_CHECKING:
    from asif_lance.anchors import Mapper

Found = TypeVar("Found")

# A task is given to a second actor when it has run so many times as long as the usual one.
_STRAGGLES, _STRAGGLES_SECONDS = 3.0, 2.0
_WAIT_SECONDS = 1.0


def ingest_with_ray(
    uri: str | Path,
    sources: Sequence[Any],
    options: IngestOptions | None = None,
    *,
    workers: int | None = None,
    shard_rows: int = SHARD_ROWS,
    cpus: float = 1,
    gpus: float | None = None,
) -> IngestReport:
    """Does what `ingest_sources` does on a Ray cluster, or on this machine where there is none.

    Args:
        uri: the database, in a folder that all machines see or in an object store.
        sources: as for `plan_ingest`.
        options: likewise.
        workers: how many actors; as many as there is room for when None.
        shard_rows: see `plan_ingest`.
        cpus: of each actor.
        gpus: of each actor; by default one where the cluster has any, see `size_workers`.

    Raises:
        InputError: Ray is not installed.
        ShardsFailedError: some shards failed again and again; others are done, and stay so.
        AsifError: as for `plan_ingest` and `commit`.
    """
    ray = import_ray()
    plan = plan_ingest(uri, sources, options, shard_rows=shard_rows)
    start_ray(ray)
    count, gpus = size_workers(ray, workers, cpus, gpus)
    actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Worker)
    pool = WorkerPool(ray, actor, count)
    try:
        return drive(plan, pool, lambda: commit(plan))
    finally:
        pool.close()


def drive(plan: OpenWork, pool: WorkerPool, finish: Callable[[], Found | None]) -> Found:
    """Have workers do all tasks of a plan, until it can be finished."""
    while True:
        while tasks := list_tasks(plan):
            pool.run(tasks)
        if (found := finish()) is not None:
            return found


class Worker:
    """A process at work; what a task raises goes to the driver as text, if it is an answer."""

    def __init__(self, mapper: Mapper | None = None, shards: int = 1) -> None:
        """Get ready; see `run_task`."""
        self._mapper, self._shards = mapper, shards

    def run(self, task: Task) -> str | None:
        """Do a task; says why it failed, if it did."""
        try:
            run_task(task, self._mapper, self._shards)
        except AsifError as error:
            return str(error)
        return None


@dataclass
class WorkerPool:
    """Actors, each with one task at a time, made with what is `given`."""

    ray: Any
    actor: Any
    size: int
    given: tuple[Any, ...] = ()
    idle: list[Any] = field(default_factory=list)
    busy: dict[Any, tuple[Any, Task, float]] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)

    def run(self, tasks: Sequence[Task]) -> None:
        """Do all tasks.

        Raises:
            ShardsFailedError: some failed as often as they may; the others are done.
        """
        left, attempts = list(reversed(tasks)), Counter[Task]()
        undone, failed = set(tasks), dict[Task, str]()
        for _ in track(f"{tasks[0].kind} shards", range(len(tasks)), len(tasks)):
            begin = len(undone)
            while undone and len(undone) == begin:
                self._give_all(left, undone, attempts)
                for task, why in self._gather():
                    if task not in undone:
                        continue  # a second worker was faster
                    if why is None or attempts[task] >= ATTEMPTS:
                        undone.discard(task)
                        failed |= {task: why} if why is not None else {}
                    else:
                        left.append(task)
        self._drop_busy()
        if failed:
            shards = sorted(number for task in failed for number in task.shards)
            raise ShardsFailedError(tuple(shards), next(iter(failed.values())))

    def close(self) -> None:
        """End all actors."""
        self._drop_busy()
        for actor in self.idle:
            self.ray.kill(actor)

    def _drop_busy(self) -> None:
        """End those that still work: for nothing, as others have done it."""
        for actor, _, _ in self.busy.values():
            self.ray.kill(actor)
        self.busy.clear()

    def give(self, task: Task) -> None:
        """Give a task to an actor that is idle."""
        actor = self.idle.pop()
        self.busy[actor.run.remote(task)] = (actor, task, time.monotonic())

    def _give_all(self, left: list[Task], undone: set[Task], attempts: Counter[Task]) -> None:
        """Give what is left, then what takes too long, as far as actors are idle."""
        while len(self.idle) + len(self.busy) < self.size:
            self.idle.append(self.actor.remote(*self.given))
        while self.idle and (task := left.pop() if left else self._find_straggler(undone)):
            attempts[task] += 1
            self.give(task)

    def _find_straggler(self, undone: set[Task]) -> Task | None:
        """A task that runs on one actor only, and for much longer than others took."""
        usual = median(self.took) if self.took else float("inf")
        longest = max(_STRAGGLES * usual, _STRAGGLES_SECONDS)
        running = Counter(task for _, task, _ in self.busy.values())
        now = time.monotonic()
        late = (
            task
            for _, task, since in self.busy.values()
            if task in undone and running[task] == 1 and now - since > longest
        )
        return next(late, None)

    def _gather(self) -> list[tuple[Task, str | None]]:
        """Tasks that have ended since, and why those failed that did."""
        ended, _ = self.ray.wait(list(self.busy), timeout=_WAIT_SECONDS)
        found = []
        for answer in ended:
            actor, task, since = self.busy.pop(answer)
            try:
                why = self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                why = describe_loss(error)
                self.ray.kill(actor)
            else:
                self.idle.append(actor)
                self.took += [time.monotonic() - since] if why is None else []
            found.append((task, why))
        return found
