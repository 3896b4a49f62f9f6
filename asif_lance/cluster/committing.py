"""The end of a shared ingest: one commit of what all workers have written, and one version.

The commit names the ingest, and is looked for before it is made: whoever was killed after it, or
never got its answer, finds it and goes on with the version.
"""

from __future__ import annotations

from lance import LanceOperation

from asif_lance.cluster.plan import Plan
from asif_lance.cluster.settling import find_taken, read_groups
from asif_lance.cluster.written_rows import (
    COMMIT_PROPERTY,
    ShardManifest,
    has_commit,
    rows_file,
)
from asif_lance.database import (
    ROWS_PER_FRAGMENT,
    close_ingest,
    name_files,
    open_table,
    storage_errors,
)
from asif_lance.database import commit as commit_to
from asif_lance.errors import DatabaseError, StorageError
from asif_lance.forgetting import ForgottenPairs
from asif_lance.ingest import IngestReport
from asif_lance.object_stores import is_there
from asif_lance.records import ModelVersion, Reject
from asif_lance.store import PairStore


def commit(plan: Plan) -> IngestReport | None:
    """Adds all rows that workers have written, in one commit, and publishes one version.

    Returns:
        What became of all items. None where files are gone, or others have added the same pairs
        meanwhile: then `list_tasks` has the shards that are to be encoded again.

    Raises:
        DatabaseError: a task is not done yet, or the ingest is not open any more.
        StaleModelError: pairs were forgotten since it was planned.
        StorageError: the disk refused; calling again goes on.
    """
    store = plan.open_store()
    looked_up = ForgottenPairs(plan.uri, plan.options.keys_folder)
    with store.writing("ingest", since=plan.epoch), storage_errors(plan.uri):
        plan.check_open()
        manifests = _read_manifests(plan)
        if not has_commit(plan):
            void = _find_void(plan, manifests)
            for number in void:
                (plan.folder / rows_file(number)).unlink()
                plan.remove_files(manifests[number].fragments)
            if void:
                return None
            _append(plan, list(manifests.values()))
        for manifest in manifests.values():
            looked_up.trust(map(name_files, manifest.list_fragments()))  # workers looked
    rejects = [one for manifest in manifests.values() for one in manifest.list_rejects()]
    version = _publish(plan, store, list(manifests.values()), rejects, looked_up)
    close_ingest(plan.folder)
    return _report(list(manifests.values()), rejects, version)


def _read_manifests(plan: Plan) -> dict[int, ShardManifest]:
    """What became of each shard, by the first of those that were read as one."""
    try:
        numbers = [group[0] for group in read_groups(plan)]
        return {number: ShardManifest.read(plan.folder / rows_file(number)) for number in numbers}
    except FileNotFoundError as error:
        raise DatabaseError(
            f"{plan.uri}: not all shards of ingest {plan.ingest_id} are done"
        ) from error


def _find_void(plan: Plan, manifests: dict[int, ShardManifest]) -> list[int]:
    """Shards whose files are gone, or with pairs that are in the table by now."""
    files = {number: plan.list_paths(one.fragments) for number, one in manifests.items()}
    gone = {number for number, paths in files.items() if not all(map(is_there, paths))}
    written = {number: paths for number, paths in files.items() if number not in gone}
    rows = sum(one.rows for one in manifests.values())
    return sorted(gone | find_taken(plan, open_table(plan.uri, "pairs"), written, rows))


def _append(plan: Plan, manifests: list[ShardManifest]) -> None:
    """The one commit; the caller holds the lock.

    Raises:
        StorageError: the table has not as many rows more as the manifests say.
    """
    fragments = [one for manifest in manifests for one in manifest.list_fragments()]
    rows = sum(manifest.rows for manifest in manifests)
    if not rows:
        return
    head = open_table(plan.uri, "pairs")
    if sum(fragment.physical_rows for fragment in fragments) != rows:
        raise StorageError(f"{plan.uri}: its shards do not add up to {rows:,} rows")
    named = {COMMIT_PROPERTY: plan.commit_id}
    commit_to(head, LanceOperation.Append(fragments), named)


def _publish(
    plan: Plan,
    store: PairStore,
    manifests: list[ShardManifest],
    rejects: list[Reject],
    looked_up: ForgottenPairs,
) -> ModelVersion | None:
    """The version of what is committed, whichever driver made it; None when nothing was."""
    rows, fragments = (sum(found) for found in zip(*map(_count, manifests), strict=True))
    if rows < fragments * ROWS_PER_FRAGMENT // 2:  # others were written to be whole ones
        store.join_fragments(looked_up)
    version = store.publish(
        command="ingest", message=plan.message, since=plan.epoch, looked_up=looked_up
    )
    if not len(store.rejects(plan.commit_id)):
        store.add_rejects(plan.commit_id, rejects, since=plan.epoch)
    return version or (store.version() if rows else None)


def _count(manifest: ShardManifest) -> tuple[int, int]:
    return manifest.rows, len(manifest.fragments["pairs"])


def _report(
    manifests: list[ShardManifest], rejects: list[Reject], version: ModelVersion | None
) -> IngestReport:
    return IngestReport(
        added=sum(one.rows for one in manifests),
        already_there=sum(one.already_there for one in manifests),
        changed=sum(one.changed for one in manifests),
        updated=0,
        rejects=tuple(rejects),
        version=version,
        cut_captions=sum(one.cut_captions for one in manifests),
        max_tokens=next((one.max_tokens for one in manifests if one.max_tokens), None),
        apart=sum(one.apart for one in manifests),
    )
