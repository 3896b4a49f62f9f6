"""Every commit to a table goes through here, so that no writer who was overtaken makes one.

In a folder the lock sees to that. In an object store a writer may stand still, lose its lease, and
go on, at any moment. So

- the lease is checked before each commit, after the state that it builds on was opened;
- a commit of ours carries the epoch of its lease;
- whoever takes over a lease that was not given back keeps out what was begun before, see
  `overtaken`; and so does whoever removes old states after that, see `keep_excluding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import lance
from lance import LanceOperation

from asif_lance.database.lease import check_lease, confirm_lease, find_lease
from asif_lance.database.transactions import read_transaction

#: What a commit says which lease it was made under, in Lance's transaction.
EPOCH_PROPERTY = "asif_lance.epoch"


@contextmanager
def committing(uri: str) -> Iterator[None]:
    """Around a call with which Lance commits, of a state that was opened before.

    Args:
        uri: of the database or of a table of it.

    Raises:
        StorageError: the lease has run out.
    """
    check_lease(uri)
    try:
        yield
    except BaseException:
        confirm_lease(uri)  # whoever was overtaken is told so, whatever stood in the way
        raise


def commit(
    state: lance.LanceDataset,
    operation: LanceOperation.BaseOperation,
    properties: Mapping[str, str] | None = None,
) -> lance.LanceDataset:
    """Commits an operation that was prepared on a state; returns the table after it.

    Raises:
        StorageError: the lease has run out.
    """
    lease = find_lease(state.uri)
    named = {EPOCH_PROPERTY: str(lease.state.epoch)} if lease else {}
    named |= properties or {}
    transaction = lance.Transaction(state.version, operation, transaction_properties=named)
    with committing(state.uri):
        return lance.LanceDataset.commit(state, transaction)


def exclude_begun(head: lance.LanceDataset, version: int) -> lance.LanceDataset:
    """Restores a state of a table, head as a rule: Lance lets nothing in that was begun before.

    No rows, fragments or indices, that is; see `overtaken` for the rest.
    """
    return commit(head, LanceOperation.Restore(version))


def keep_excluding(head: lance.LanceDataset) -> lance.LanceDataset:
    """Before states of a table are removed: the same head, by which overtaken writers stay out.

    Lance asks the states that are there what has been done since a change was begun. Where the one
    is gone that kept out what was begun before, it would let that in, with files that are gone too.
    """
    return exclude_begun(head, find_sound(head)) if find_excluded(head.uri) else head


def find_sound(head: lance.LanceDataset) -> int:
    """The newest state of a table that no overtaken writer has made: head, as a rule."""
    if not is_overtaken(head, head.version):
        return int(head.version)
    older = (int(version["version"]) for version in reversed(head.versions()))
    return next(v for v in older if not is_overtaken(head, v))


def is_overtaken(table: lance.LanceDataset, version: int) -> bool:
    """Whether a state was made under a lease from before the last taking over.

    What carries no epoch was not made by `commit`, and Lance has kept it out.
    """
    excluded = find_excluded(table.uri)
    if not excluded:
        return False
    transaction = read_transaction(table, version)
    properties = transaction.transaction_properties if transaction else None
    epoch = (properties or {}).get(EPOCH_PROPERTY)
    return epoch is not None and int(epoch) < excluded


def find_excluded(uri: str) -> int:
    """The epoch before which no commit counts any more; 0 where all do, as in folders."""
    lease = find_lease(uri)
    return lease.state.excluded if lease else 0


def update_config(state: lance.LanceDataset, values: Mapping[str, str | None]) -> None:
    """Changes settings of a table; None takes one away."""
    updates = LanceOperation.UpdateMap(dict(values))
    commit(state, LanceOperation.UpdateConfig(config_updates=updates))
