"""One ingest shared by many processes or machines; its model is the one that a single one makes.

`plan_ingest` cuts the sources into shards and writes the plan down in the database's folder,
`list_tasks` says what is to be done now, `run_task` does one of these anywhere, and `commit` adds
what all of them have written in one commit, as one model version. Which engine carries tasks to
workers does not matter; `ingest_with_ray` is one.

Promises: each of these may be killed anywhere and called again, by several at once; a task is done
once, whoever is first. Rows, ids and order are those of `ingest_sources`, whatever the shards and
the workers; vectors too, where sources bring them, while an encoder rounds by its batches.
Assumes: all processes see the sources and the database's folder under the same names, and files
stay as they are, while objects that do not are noticed. Never holds the rows of more than a
fragment, or reads them again.
"""

from asif_lance.cluster.committing import commit
from asif_lance.cluster.plan import SHARD_ROWS, Plan, abandon, list_plans, plan_ingest
from asif_lance.cluster.ray_engine import ingest_with_ray
from asif_lance.cluster.tasks import Task, list_tasks, run_task

# fmt: off
__all__ = [
    "SHARD_ROWS", "Plan", "Task", "abandon", "commit", "ingest_with_ray", "list_plans",
    "list_tasks", "plan_ingest", "run_task",
]
# fmt: on
