"""Forgotten pairs stay out: what is added, and what others put at head, is looked up in receipts.

The caller holds the write lock, so no receipt comes between the look and the write.
"""

from __future__ import annotations

import lance
import pyarrow as pa

from asif_lance.database import content_files, find_attachment, find_changes
from asif_lance.database.schemas import PAIR_COLUMNS
from asif_lance.errors import AttachedDatabaseError, BadRowsError, DatabaseError
from asif_lance.forgetting import LOOKED_UP_COLUMNS, ForgottenPairs, Waiver
from asif_lance.store.unpublished import find_bad_rows

_SHOWN = 3

_ADD = "add the rows with LanceDB, and its next version is the model with them"
# What to do instead where the table is somebody else's; a new version is what LanceDB makes of it.
_INSTEAD = {
    "delete": "delete the rows with LanceDB, and its next version is the model without them",
    **dict.fromkeys(("add", "ingest", "adapt --keep"), _ADD),
    "index build": "somebody else's table has no index of ours, and `--search exact` needs none",
    "forget": "its versions and files are its owner's to erase, no receipt could speak of them",
    "tag": "tag the table's version with LanceDB, and the tag is a name here",
    "untag": "untag the table's version with LanceDB",
    "rollback": "restore the version with LanceDB",
    "publish": "every version of the table is a model version already",
    "reencode": "`asif-lance ingest` the table into a database of its own",
}


def check_own(uri: str, command: str) -> None:
    """Passes where the pairs are the database's own.

    Raises:
        AttachedDatabaseError: they are those of somebody else's table.
    """
    attachment = find_attachment(uri)
    if attachment is not None:
        instead = _INSTEAD.get(command, "its owner keeps it in order with LanceDB")
        raise AttachedDatabaseError(uri, attachment.table, command, instead)


def check_addable(head: lance.LanceDataset) -> None:
    """Passes a table that takes pairs of ours.

    Raises:
        DatabaseError: another program has a column there that every row must fill, or dropped one
            of ours.
    """
    gone = [name for name in PAIR_COLUMNS if name not in head.schema.names]
    if gone:
        raise DatabaseError(
            f"another program dropped the column {gone[0]!r}: no pair can be added until it is "
            "there again, as LanceDB's add_columns or restore can do"
        )
    for field in head.schema:
        if field.name not in PAIR_COLUMNS and not field.nullable:
            raise DatabaseError(
                f"the column {field.name!r} of another program must not be null, and new pairs "
                "have nothing for it: let it be null, with LanceDB's "
                f"alter_columns({{'path': {field.name!r}, 'nullable': True}})"
            )


def check_added(
    uri: str, rows: pa.Table, looked_up: ForgottenPairs | None, waiver: Waiver | None
) -> None:
    """Passes pairs that may be added, and keeps on record what a waiver lets in.

    Args:
        uri: the database.
        rows: with the columns of `pairs`.
        looked_up: what the caller has looked the rows up in; they are looked up again only if a
            receipt came since.
        waiver: where the caller has not.

    Raises:
        ForgottenPairError: some were forgotten.
        KeysError: nobody can tell, for a key is missing.
    """
    if not len(rows):
        return
    if looked_up is not None:
        looked_up.record()
        if looked_up.is_current():
            return
    forgotten = looked_up.renew() if looked_up else ForgottenPairs(uri, waiver=waiver)
    forgotten.refuse(forgotten.find(rows))
    forgotten.record()


def check_unpublished(
    uri: str,
    latest: lance.LanceDataset | None,
    head: lance.LanceDataset,
    looked_up: ForgottenPairs | None,
    waiver: Waiver | None,
) -> None:
    """Passes a head whose rows that `latest` has not are pairs, none of them forgotten.

    Read are only files that `latest` does not have and the caller has not looked at.

    Args:
        uri: the database.
        latest: the pairs table as the newest version has it.
        head: the same as it is.
        looked_up: knows the files that the caller added itself.
        waiver: where the caller has no such thing.

    Raises:
        BadRowsError: there are rows that cannot be pairs.
        ForgottenPairError: there are some.
        KeysError: nobody can tell, for a key is missing.
    """
    if looked_up is not None and not looked_up.is_current():
        looked_up = looked_up.renew()
    new = find_new_fragments(latest, head)
    if looked_up is not None:
        new = [fragment for fragment in new if not looked_up.has_seen(fragment)]
    if not new:
        return
    bad = find_bad_rows(head, new)
    if bad:
        raise BadRowsError(len(bad), tuple((row.pair_id, row.reason) for row in bad[:_SHOWN]))
    forgotten = looked_up or ForgottenPairs(uri, waiver=waiver)
    found = _find_forgotten(forgotten, head, new)
    if found:  # moved to other files, what `latest` has already is nothing new
        changes = find_changes(latest, head)
        found = {i: found[i] for i in (*changes.added, *changes.changed) if i in found}
    forgotten.refuse(found, at_head=True)
    forgotten.record()


def find_new_fragments(
    latest: lance.LanceDataset | None, head: lance.LanceDataset
) -> list[lance.LanceFragment]:
    """Fragments of head with files of pairs that the newest version has not."""
    published = set(content_files(latest).values()) if latest else set()
    files = content_files(head)
    return [f for f in head.get_fragments() if files[f.fragment_id] not in published]


def _find_forgotten(
    forgotten: ForgottenPairs, head: lance.LanceDataset, fragments: list[lance.LanceFragment]
) -> dict[str, str]:
    found: dict[str, str] = {}
    if forgotten.knows_any():
        there = [name for name in LOOKED_UP_COLUMNS if name in head.schema.names]
        scanner = head.scanner(columns=there, fragments=fragments)
        for batch in scanner.to_batches():
            found |= forgotten.find(pa.Table.from_batches([batch]))
    return found
