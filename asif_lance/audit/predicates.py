"""Which pairs an SQL predicate names: `--where` means what `audit` means by the same words."""

from __future__ import annotations

from asif_lance.audit.sql import Audit
from asif_lance.errors import AuditError, PredicateError
from asif_lance.store import PairStore


def matching_ids(store: PairStore, where: str, version: str | None = "latest") -> list[str]:
    """Ids of the pairs of a version that a predicate holds for, sorted.

    Args:
        store: the database.
        where: what stands after `WHERE` in `SELECT pair_id FROM pairs WHERE …`.
        version: the model version; None for head, with pairs that no version has yet.

    Raises:
        PredicateError: it is not one yes-or-no expression over the pairs.
        VersionNotFoundError: there is no such version.
    """
    with Audit(store, version) as audit:
        try:
            return audit.matching_ids(where)
        except AuditError as error:
            raise PredicateError(where, " ".join(str(error).split())) from None


def matching_ids_anywhere(store: PairStore, where: str) -> list[str]:
    """Ids of the pairs that a predicate holds for in any version or at head, sorted.

    Raises:
        PredicateError: it is not one yes-or-no expression over the pairs.
    """
    found = set(matching_ids(store, where, None))
    for version in store.versions():
        found.update(matching_ids(store, where, version.name))
    return sorted(found)
