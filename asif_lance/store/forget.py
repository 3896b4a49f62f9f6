"""Forgetting in an open database: find the pairs, plan, forget them, check a receipt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from asif_lance.forgetting import ForgetPlan, Receipt, VerifyReport, execution, planning
from asif_lance.store.pair_store import PairStore


def plan(store: PairStore, pair_ids: Iterable[str]) -> ForgetPlan:
    """Says what forgetting these pairs would touch; changes nothing.

    Raises:
        DatabaseError: the database is one that cannot forget.
    """
    return planning.plan(store.uri, pair_ids)


def forget(store: PairStore, pair_ids: Sequence[str], *, reason: str) -> Receipt:
    """Removes pairs from every model version, cache and log, physically.

    Versions keep their names, aliases, messages and times, and answer as if the pairs had never
    been in them. Takes the write lock; readers go on with the versions that they have open, and
    find their names again afterwards.

    Raises:
        InputError: none of the pairs is in the database.
        DatabaseError: the database is one that cannot forget.
        StorageError: the disk refused; what was begun is finished when the database is opened.
    """
    with store.writing("forget"):
        return execution.execute(store.uri, pair_ids, reason=reason)


def verify_receipt(store: PairStore, receipt_id: str) -> VerifyReport:
    """Searches the database for what a receipt says is gone; pairs that came back are found.

    Raises:
        InputError: there is no such receipt.
    """
    return execution.verify_receipt(store.uri, receipt_id)
