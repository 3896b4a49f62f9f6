"""Work on one database shared by many processes or machines; the result is that of a single one.

*Ingest.* `plan_ingest` cuts the sources into shards and writes the plan down in the database's
folder, `list_tasks` says what is to be done now, `run_task` does one of these anywhere, and
`commit` adds what all of them have written in one commit, as one model version. Which engine
carries tasks to workers does not matter; `ingest_with_ray` is one.

*Search.* `share_with_ray` has actors of Ray encode pictures and compare a model's pairs.

*Recording.* `plan_recording` cuts pictures into shards, `list_tasks` and `run_task` are as above,
and `commit_recording` makes one run of what all workers have recorded; or `record_with_ray`.

Promises: each of these may be killed anywhere and called again, by several at once; a task is done
once, whoever is first. Rows, ids and order are those of `ingest_sources`, whatever the shards and
the workers; vectors too, where sources bring them, while an encoder rounds by its batches. Answers
have the bits of one process.
Assumes: all processes see the sources and the database's folder under the same names, and files
stay as they are, while objects that do not are noticed. Never holds the rows of more than a
fragment, or reads them again.
"""

from typing import TYPE_CHECKING

from asif_lance.on_demand import import_on_demand

if TYPE_CHECKING:
    from asif_lance.cluster.committing import commit
    from asif_lance.cluster.open_work import OpenWork
    from asif_lance.cluster.plan import SHARD_ROWS, Plan, abandon, list_plans, plan_ingest
    from asif_lance.cluster.ray_cluster import check_ray
    from asif_lance.cluster.ray_engine import ingest_with_ray
    from asif_lance.cluster.ray_recording import record_with_ray
    from asif_lance.cluster.ray_search import SearchActors, share_with_ray
    from asif_lance.cluster.recording import RecordedRun, commit_recording
    from asif_lance.cluster.recording_plan import (
        SHARD_PICTURES,
        RecordingPlan,
        list_recordings,
        plan_recording,
    )
    from asif_lance.cluster.tasks import Task, list_tasks, run_task
else:
    __getattr__ = import_on_demand(
        __name__,
        {
            "committing": "commit",
            "open_work": "OpenWork",
            "plan": "SHARD_ROWS Plan abandon list_plans plan_ingest",
            "ray_cluster": "check_ray",
            "ray_engine": "ingest_with_ray",
            "ray_recording": "record_with_ray",
            "ray_search": "SearchActors share_with_ray",
            "recording": "RecordedRun commit_recording",
            "recording_plan": "SHARD_PICTURES RecordingPlan list_recordings plan_recording",
            "tasks": "Task list_tasks run_task",
        },
    )

# fmt: off
__all__ = [
    "SHARD_PICTURES", "SHARD_ROWS", "OpenWork", "Plan", "RecordedRun", "RecordingPlan",
    "SearchActors", "Task", "abandon", "check_ray", "commit", "commit_recording",
    "ingest_with_ray", "list_plans", "list_recordings", "list_tasks", "plan_ingest",
    "plan_recording", "record_with_ray", "run_task", "share_with_ray",
]
# fmt: on
