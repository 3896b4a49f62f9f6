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


def exclude_begun(head: lance.LanceDataset) -> lance.LanceDataset:
    """Restores head to what it is: with that Lance lets nothing go together that was begun before.

    No rows, fragments or indices, that is; see `overtaken` for the rest.
    """
    return commit(head, LanceOperation.Restore(head.version))


def keep_excluding(head: lance.LanceDataset) -> lance.LanceDataset:
    """Before states of a table are removed: the same head, by which overtaken writers stay out.

    Lance asks the states that are there what has been done since a change was begun. Where the one
    is gone that kept out what was begun before, it would let that in, with files that are gone too.
    """
    lease = find_lease(head.uri)
    return exclude_begun(head) if lease and lease.state.excluded else head


def update_config(state: lance.LanceDataset, values: Mapping[str, str | None]) -> None:
    """Changes settings of a table; None takes one away."""
    updates = LanceOperation.UpdateMap(dict(values))
    commit(state, LanceOperation.UpdateConfig(config_updates=updates))
