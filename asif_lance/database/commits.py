"""Every commit to a table goes through here, so that no writer who was overtaken makes one.

In a folder the lock sees to that. In an object store a writer may stand still, lose its lease, and
go on, at any moment. So

- the lease is checked before each commit, after the state that it builds on was opened;
- a commit of ours carries the epoch of its lease;
- whoever takes over a lease that was not given back keeps out what was begun before, see
  `overtaken`.
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


def exclude_older(state: lance.LanceDataset) -> lance.LanceDataset:
    """A table's head anew, which keeps out what overtaken writers had begun; see `overtaken`.

    Lance compares a commit with the later states that it still finds. So whoever removes states
    first puts one like this behind them. As it is where no lease was ever taken over.
    """
    lease = find_lease(state.uri)
    if lease is None or not lease.state.excluded:
        return state
    return commit(state, LanceOperation.Restore(state.version))


def update_config(state: lance.LanceDataset, values: Mapping[str, str | None]) -> None:
    """Changes settings of a table; None takes one away."""
    updates = LanceOperation.UpdateMap(dict(values))
    commit(state, LanceOperation.UpdateConfig(config_updates=updates))
