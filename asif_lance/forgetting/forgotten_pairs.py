"""Whether pairs that are to be added were forgotten: looked up in the receipts of a database.

A pair is forgotten if a receipt has its id, its picture (the hash of it, or its exact vector)
unless pairs that stayed had that picture too, or its picture together with its caption. An equal
caption alone is no sign. Looking up needs the key that the receipts were made with; receipts of
releases before the keys bring their own.

Receipts are large. Those with sealed hashes are read only once a pair may be in one of them.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import FragmentKey, data_files, open_table, read_table
from asif_lance.errors import ForgottenPairError, InputError, KeysError, ReceiptError
from asif_lance.forgetting.content import find_quote, list_values
from asif_lance.forgetting.fingerprint_tables import FingerprintTables, Forgetting
from asif_lance.forgetting.keys import find_fingerprint_keys, find_keys_folder
from asif_lance.forgetting.quick_hashes import HashSet
from asif_lance.forgetting.sealed_hashes import load_hashes
from asif_lance.forgetting.waivers import (
    ALLOW_FORGOTTEN,
    WITHOUT_KEY,
    Waiver,
    load_admitted,
    save_waiver,
)
from asif_lance.records import Int64Array
from asif_lance.verifier import Document, Receipt, hash_value

_SHOWN = 3  # pairs that an error names
_ID_BYTES = 4

_PICTURES = ("image_sha256", "thumbnail")

#: Columns of pairs that looking up takes; addresses and attributes are for a waiver's reason.
LOOKED_UP_COLUMNS = (
    *("pair_id", *_PICTURES, "caption", "image_vector", "text_vector"),
    *("image_uri", "attributes", "captions"),
)

Found = dict[int, Forgetting]
Find = Callable[[FingerprintTables, pa.Table], Found]


class ForgottenPairs:
    """Knows what the receipts of a database say was forgotten, as of when it was made.

    For one thread, and one command: what a waiver lets in becomes one record.

    Args:
        uri: the database.
        folder: of the keys; by default the user's.
        waiver: what is let in all the same.

    Raises:
        KeysError: the key of some receipts is missing, or some are damaged, and no waiver says
            that pairs may come in which nobody can look up.
    """

    def __init__(self, uri: str, folder: Path | None = None, waiver: Waiver | None = None) -> None:
        self._uri, self._folder, self._waiver = uri, folder, waiver
        self._receipts = open_table(uri, "receipts")
        self._cannot_tell = 0
        self._ids = read_table(uri, "receipts", ["receipt_id"])["receipt_id"].to_pylist()
        sealed = load_hashes(uri, folder)
        self._sealed = sealed.keys() & set(self._ids)
        self._hashes = HashSet(np.concatenate([np.empty(0, np.uint64), *sealed.values()]))
        self._tables = self._load_tables(set(self._ids) - self._sealed)
        self._files: set[FragmentKey] = set()
        self._waiver_id = secrets.token_hex(_ID_BYTES)
        self._unrecorded: set[str] = set()
        self._told_without_key = False

    def is_current(self) -> bool:
        """Whether no receipt came since."""
        return bool(self._receipts.latest_version == self._receipts.version)

    def renew(self) -> ForgottenPairs:
        """The same with the receipts of now."""
        return ForgottenPairs(self._uri, self._folder, self._waiver)

    def find_names(self, rows: pa.Table) -> dict[int, str]:
        """Rows that are forgotten pairs by their ids or the hashes of their pictures; and why.

        Args:
            rows: n pairs with the columns of `pairs`; those of vectors may be missing.

        Returns:
            "forgotten on DATE, receipt R", by row. Rows that a waiver lets in are left out.
        """
        pictures = [name for name in _PICTURES if _has_any(rows, name)]
        return self._refuse(rows, self._find(_find_names, rows, ["pair_id", *pictures]))

    def find_vectors(self, rows: pa.Table) -> dict[int, str]:
        """The same by the vectors and captions, which are as in `pairs_schema`."""
        return self._refuse(rows, self._find(_find_vectors, rows, ["image_vector"]))

    def find(self, rows: pa.Table) -> dict[str, str]:
        """The same by all of it, and by the pairs' ids instead of rows."""
        found = {**self.find_vectors(rows), **self.find_names(rows)}
        ids = rows["pair_id"].take(list(found)).to_pylist() if found else []
        return dict(zip(ids, found.values(), strict=True))

    def knows_any(self) -> bool:
        """Whether there is anything that could be found."""
        return bool(self._tables or self._sealed)

    def refuse(self, found: dict[str, str], *, at_head: bool = False) -> None:
        """Passes if nothing was found, in what is to be added or at head.

        Raises:
            ForgottenPairError: something was.
        """
        if found:
            raise ForgottenPairError(len(found), tuple(found.items())[:_SHOWN], at_head=at_head)

    def record(self) -> None:
        """Keeps on record what the waiver has let in so far; the caller holds the write lock."""
        if self._waiver is None:
            return
        if self._cannot_tell and not self._told_without_key:
            save_waiver(self._uri, self._waiver_id, WITHOUT_KEY, self._waiver.reason, ())
            self._told_without_key = True
        if self._unrecorded:
            ids, self._unrecorded = self._unrecorded, set()
            save_waiver(self._uri, self._waiver_id, ALLOW_FORGOTTEN, self._waiver.reason, ids)

    # Files that need no looking up any more

    def follow(
        self, before: lance.LanceDataset, after: lance.LanceDataset, *, looked: bool
    ) -> None:
        """Takes notice of a change of the pairs table.

        Args:
            before: its state until then.
            after: its state since.
            looked: the rows that came were looked up here; otherwise they came from the files that
                went.
        """
        old, new = (set(map(data_files, state.get_fragments())) for state in (before, after))
        if looked or old - new <= self._files:
            self._files |= new - old

    def trust(self, files: Iterable[FragmentKey]) -> None:
        """Takes files whose rows others have looked up in the same receipts for looked up here."""
        self._files.update(files)

    def has_seen(self, fragment: lance.LanceFragment) -> bool:
        """Whether all rows of a fragment were looked up here."""
        return data_files(fragment) in self._files

    # Inside

    @cached_property
    def _sealed_tables(self) -> list[FingerprintTables]:
        return self._load_tables(self._sealed)

    @cached_property
    def _admitted(self) -> dict[str, datetime]:
        return load_admitted(self._uri)

    def _load_tables(self, ids: Collection[str]) -> list[FingerprintTables]:
        """The fingerprints of some receipts."""
        receipts, damaged = _load_receipts(self._uri, ids) if ids else ([], 0)
        tables, unknown = _make_tables(receipts, self._folder)
        self._cannot_tell += len(unknown) + damaged
        if self._cannot_tell and not (self._waiver and self._waiver.without_key):
            raise KeysError(_ask_for_key(len(self._ids), unknown, damaged, self._folder))
        return tables

    def _find(self, find: Find, rows: pa.Table, names: list[str]) -> Iterator[Found]:
        """What each table has of some rows, of which these columns are looked up first."""
        yield from (find(tables, rows) for tables in self._tables)
        columns = (_column(rows, name) for name in names) if self._sealed else ()
        parts: list[Int64Array] = [self._hashes.find(column) for column in columns]
        suspects = np.unique(np.concatenate(parts)) if parts else ()
        if len(suspects):
            some = rows.take(pa.array(suspects))
            for tables in self._sealed_tables:
                found = find(tables, some)
                yield {int(suspects[place]): one for place, one in found.items()}

    def _refuse(self, rows: pa.Table, finds: Iterable[Found]) -> dict[int, str]:
        found = _keep_newest(finds)
        if not found:
            return {}
        ids = dict(zip(found, rows["pair_id"].take(list(found)).to_pylist(), strict=True))
        prints = {row: hash_value(found[row].key, ids[row].encode()) for row in found}
        refused = [row for row in found if not self._was_admitted(prints[row], found[row])]
        if refused and self._waiver is not None and self._waiver.allow_forgotten:
            self._check_reason(rows.take(refused))
            self._unrecorded |= {prints[row] for row in refused}
            return {}
        return {row: _tell(found[row]) for row in refused}

    def _was_admitted(self, digest: str, forgetting: Forgetting) -> bool:
        when: datetime | None = self._admitted.get(digest)
        return when is not None and when > forgetting.created_at

    def _check_reason(self, rows: pa.Table) -> None:
        assert self._waiver is not None
        # Whether others have the same source or license is not known here.
        quoted = find_quote(rows, list_values(rows), self._waiver.reason)
        if quoted is not None:
            raise InputError(
                f"the reason is kept for good, and quotes what was forgotten: {quoted!r}; "
                "say it in other words"
            )


def find_forgotten_ids(uri: str, ids: Sequence[str], folder: Path | None) -> dict[str, str]:
    """Which ids are of pairs that were forgotten, and when; receipts without a key tell nothing."""
    if not ids:
        return {}
    forgotten = ForgottenPairs(uri, folder, Waiver("only looked up", without_key=True))
    found = forgotten.find_names(pa.table({"pair_id": pa.array(ids, pa.string())}))
    return {ids[row]: told for row, told in sorted(found.items())}


def _load_receipts(uri: str, ids: Collection[str]) -> tuple[list[Receipt], int]:
    """Those of some ids that can be read, and how many cannot."""
    receipts, damaged = [], 0
    quoted = ", ".join("'" + one.replace("'", "''") + "'" for one in sorted(ids))
    rows = read_table(uri, "receipts", ["body"], where=f"receipt_id in ({quoted})")
    for body in rows["body"].to_pylist():
        try:
            receipts.append(Document.parse(body).receipt)
        except ReceiptError:
            damaged += 1
    return receipts, damaged


def _make_tables(
    receipts: list[Receipt], folder: Path | None
) -> tuple[list[FingerprintTables], list[Receipt]]:
    """The tables of the keys that are there, and the receipts that need others."""
    keys = find_fingerprint_keys(folder) if any(r.key_id for r in receipts) else {}
    known: dict[bytes, list[Receipt]] = defaultdict(list)
    unknown = []
    for receipt in receipts:
        key = bytes.fromhex(receipt.salt) if receipt.salt else keys.get(receipt.key_id)
        if key is None:
            unknown.append(receipt)
        else:
            known[key].append(receipt)
    return [FingerprintTables(key, some) for key, some in known.items()], unknown


def _ask_for_key(total: int, unknown: list[Receipt], damaged: int, folder: Path | None) -> str:
    if damaged:
        return (
            f"{damaged} of {total} receipts of forgetting are damaged, so it cannot be told what "
            "was forgotten: bring them back, or let pairs in all the same by --without-key --reason"
        )
    missing = ", ".join(sorted({receipt.key_id for receipt in unknown}))
    return (
        f"pairs were forgotten here, and without the key of {len(unknown)} of {total} receipts it "
        f"cannot be told which: no file *.key in {find_keys_folder(folder)} is {missing}; bring it "
        "(--keys FOLDER), or let pairs in all the same by --without-key --reason"
    )


def _find_names(tables: FingerprintTables, rows: pa.Table) -> Found:
    pictures = [name for name in _PICTURES if _has_any(rows, name)]
    ids = tables.find(tables.ids, _column(rows, "pair_id"))
    found = [ids, *(tables.find(tables.own_values, _column(rows, name)) for name in pictures)]
    return _keep_newest(_choose(tables, one) for one in found)


def _find_vectors(tables: FingerprintTables, rows: pa.Table) -> Found:
    """Which pictures are forgotten ones: by themselves, or as they have a forgotten caption too."""
    pictures = tables.find(tables.vectors, _column(rows, "image_vector"))
    if not pictures:
        return {}
    at = list(pictures)
    some = rows.take(at)
    own = tables.find(tables.own_vectors, _column(some, "image_vector"))
    captions = _find_captions(tables, some)
    texts = tables.find(tables.vectors, _column(some, "text_vector"))
    both = {
        place: pictures[row] & (captions.get(place, set()) | texts.get(place, set()))
        for place, row in enumerate(at)
    }
    found = _keep_newest(_choose(tables, one) for one in (both, own))
    return {at[place]: one for place, one in found.items()}


def _keep_newest(finds: Iterable[Found]) -> Found:
    """One receipt for each row, whichever way it was found, in whichever of several tables."""
    kept: Found = {}
    for row, one in (item for found in finds for item in found.items()):
        if row not in kept or one.created_at > kept[row].created_at:
            kept[row] = one
    return kept


def _find_captions(tables: FingerprintTables, rows: pa.Table) -> dict[int, set[int]]:
    """Rows with a forgotten caption, among several or alone, and the receipts that it is in."""
    found = tables.find(tables.values, _column(rows, "caption"))
    if "captions" in rows.schema.names:
        lists = _column(rows, "captions")
        parents = pc.list_parent_indices(lists).to_pylist()
        for place, numbers in tables.find(tables.values, lists.flatten()).items():
            found.setdefault(parents[place], set()).update(numbers)
    return found


def _choose(tables: FingerprintTables, found: dict[int, set[int]]) -> Found:
    """The newest of the receipts that a row was found in."""
    return {
        row: max((tables.receipts[number] for number in numbers), key=lambda r: r.created_at)
        for row, numbers in found.items()
        if numbers
    }


def _has_any(rows: pa.Table, name: str) -> bool:
    return name in rows.schema.names and rows[name].null_count < len(rows)


def _column(rows: pa.Table, name: str) -> pa.Array:
    column = rows[name]
    # Combining copies what is one array already.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _tell(forgetting: Forgetting) -> str:
    return f"forgotten on {forgetting.created_at:%Y-%m-%d}, receipt {forgetting.receipt_id}"
