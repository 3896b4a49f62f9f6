"""Which pairs an SQL predicate names: `--where` means what `audit` means by the same words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asif_lance.audit.sql import HEAD, Audit
from asif_lance.errors import AuditError, PredicateError
from asif_lance.store import PairStore

# What is quoted is left as it is.
_LIKE = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|\blike\b""", re.IGNORECASE)


def matching_ids(
    store: PairStore, where: str, versions: str | Sequence[str] = "latest"
) -> list[str]:
    """Ids of the pairs of some versions that a predicate holds for, sorted.

    Args:
        store: the database.
        where: what stands after `WHERE` in `SELECT pair_id FROM pairs WHERE …`.
        versions: model versions, or `HEAD` for the pairs that no version may have yet.

    Raises:
        PredicateError: it is not one yes-or-no expression over the pairs.
        VersionNotFoundError: there is no such version.
    """
    if not where.strip():
        raise PredicateError(where, "it is empty")
    asked = (versions,) if isinstance(versions, str) else versions
    with Audit(store, HEAD) as audit:
        try:
            return audit.matching_ids(where, asked)
        except AuditError as error:
            raise PredicateError(where, " ".join(str(error).split())) from None


def matching_ids_anywhere(store: PairStore, where: str) -> list[str]:
    """Ids of the pairs that a predicate holds for in any version or at head, sorted.

    Raises:
        PredicateError: it is not one yes-or-no expression over the pairs.
    """
    return matching_ids(store, where, [HEAD, *(version.name for version in store.versions())])


def find_other_spellings(store: PairStore, where: str) -> list[str]:
    """Ids of the pairs that `ILIKE` would name besides, where a predicate says `LIKE`, sorted.

    Raises:
        PredicateError: it is not one yes-or-no expression over the pairs.
    """
    folded = _LIKE.sub(lambda found: found[1] or "ILIKE", where)
    if folded == where:
        return []
    found = set(matching_ids_anywhere(store, where))
    return [i for i in matching_ids_anywhere(store, folded) if i not in found]
