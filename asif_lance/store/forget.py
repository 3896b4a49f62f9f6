"""Forgetting in an open database: find the pairs, plan, forget them, check a receipt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from asif_lance.arguments import TEXT, take_texts, takes
from asif_lance.forgetting import ForgetPlan, Keys, Receipt, Report, execution, planning
from asif_lance.store.pair_store import PairStore


def plan(
    store: PairStore,
    pair_ids: Iterable[str],
    *,
    twins: bool = True,
    with_twins: bool = False,
    folder: Path | None = None,
) -> ForgetPlan:
    """Says what forgetting these pairs would touch; changes nothing.

    Args:
        store: the database.
        pair_ids: which.
        twins: look for pairs that would stay and share something with these, which reads the
            image vectors of head and the newest version.
        with_twins: the pairs with the same picture are to be forgotten with them.
        folder: of the keys, which tell what was forgotten before; by default the user's.

    Raises:
        DatabaseError: the database is one that cannot forget.
    """
    store.check_own("forget")
    how = {"twins": twins, "with_twins": with_twins}
    wanted = take_texts("pair_ids", pair_ids)
    return planning.plan(store.uri, wanted, **how, folder=folder)


@takes(reason=TEXT)
def forget(
    store: PairStore,
    pair_ids: Sequence[str],
    *,
    reason: str,
    keys: Keys | None = None,
    folder: Path | None = None,
    twins: bool = True,
) -> Receipt:
    """Removes pairs from every model version, cache and log, physically.

    Versions keep their names, aliases, messages and times, and answer as if the pairs had never
    been in them. Takes the write lock; readers go on with the versions that they have open, and
    find their names again afterwards. The receipt is made with `keys`; by default with those of
    `folder` (by default the user's), which are made if there are none. It counts the pairs that
    stay and have the same picture, unless `twins` is false: that reads the image vectors of head
    and the newest version.

    Raises:
        InputError: none of the pairs is in the database.
        KeysError: the keys are damaged, or cannot be made.
        DatabaseError: the database is one that cannot forget.
        StorageError: the disk refused; what was begun is finished when the database is opened.
    """
    wanted = take_texts("pair_ids", pair_ids)
    # No digest is made after the receipt: it would be in no file that the receipt vouches for.
    with store.writing("forget", midway=True):
        return execution.execute(
            store.uri, wanted, reason=reason, keys=keys, folder=folder, twins=twins
        )


def verify_receipt(store: PairStore, receipt_id: str, *, folder: Path | None = None) -> Report:
    """Checks a receipt with the user's keys, as far as they are there; pairs that came back count.

    Raises:
        InputError: there is no such receipt.
        ReceiptError: it is damaged.
    """
    return execution.verify_receipt(store.uri, receipt_id, folder=folder)
