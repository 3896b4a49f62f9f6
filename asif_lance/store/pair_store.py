"""PairStore: the pairs of one database and the model versions made of them.

Writers change Lance's head; `publish` gives head a name. Readers go by name and never see head.
An ingest that is killed leaves chunks at head that no name has: running it again skips what is
there, and whatever is at head is part of the next version that any command publishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceOperation

from asif_lance.arguments import PATH, TEXT, instance_of, take_texts, takes
from asif_lance.database import (
    GRACE,
    KnownPairs,
    Ledger,
    WriteLock,
    append_rows,
    check_migrated,
    check_opened,
    clean_up,
    commit,
    is_made,
    join_fragments,
    make_tables,
    open_own_pairs,
    pair_rows,
    read_pins,
    resolve_uri,
    schemas,
    storage_errors,
    write_pins,
)
from asif_lance.errors import DatabaseExistsError
from asif_lance.forgetting import ForgottenPairs, Waiver
from asif_lance.progress import step
from asif_lance.records import EncoderPin, ModelVersion, Reject
from asif_lance.store.changes import begin_change, name_head
from asif_lance.store.opening import finish_forget, is_foreign, make_directory
from asif_lance.store.refusal import (
    check_addable,
    check_added,
    check_own,
    check_unpublished,
    find_new_fragments,
)
from asif_lance.store.stored_versions import StoredVersions
from asif_lance.store.unpublished import BadRow, find_bad_rows

_PIN = instance_of("an EncoderPin of asif_lance.records", EncoderPin)


@dataclass(frozen=True)
class PairStore(StoredVersions):
    """One open database.

    Any number of processes may use one database at once: a lock (see `database.lock`) puts
    changes in a row, each is atomic. Objects are immutable and may be shared between threads.

    Attributes:
        uri, image, text: as in `StoredVersions`.
        lock_timeout: seconds to wait for another writer before `DatabaseBusyError`.
        notice: what opening had to repair, for the user to know.
    """

    lock_timeout: float = 60.0
    notice: str | None = field(default=None, compare=False)

    @classmethod
    @takes(uri=PATH, image=_PIN, text=_PIN)
    def create(cls, uri: str, *, image: EncoderPin, text: EncoderPin) -> PairStore:
        """Makes a new database for the vectors of these two encoders.

        One whose making was cut short is none, and is finished.

        Raises:
            DatabaseExistsError: there is one, or a `pairs` table that somebody else made.
            EncoderMismatchError, DimensionError: it was begun for other encoders.
            StorageError: the place cannot be written to.
        """
        uri = resolve_uri(uri)
        make_directory(uri)
        with WriteLock(uri).hold("create"):
            if is_made(uri) or is_foreign(uri):
                raise DatabaseExistsError(uri)
            make_tables(uri, {"image": image, "text": text})
            pins = read_pins(open_own_pairs(uri))
        store = cls(uri, pins["image"], pins["text"])
        store.check_encoders(image, text)
        return store

    @classmethod
    @takes(uri=PATH)
    def open(cls, uri: str) -> PairStore:
        """Opens a database.

        Raises:
            DatabaseNotFoundError: there is none.
            MigrationNeededError: it was made by an older release.
            NewerDatabaseError: it was made by a newer release.
            CorruptDatabaseError: a file that says what the others are is damaged.
        """
        uri = resolve_uri(uri)
        check_migrated(uri)
        notice = finish_forget(uri)
        pins = read_pins(check_opened(open_own_pairs(uri)))
        return cls(uri, pins["image"], pins["text"], notice=notice)

    def add(
        self,
        pairs: pa.Table,
        *,
        known: KnownPairs | None = None,
        replace: bool = False,
        since: int | None = None,
        looked_up: ForgottenPairs | None = None,
        waiver: Waiver | None = None,
    ) -> int:
        """Adds pairs that are not there yet, in one commit; forgotten ones are refused.

        Args:
            pairs: columns as in `schema.pairs_schema`; the nullable ones may be missing, and so
                may `ingested_at`. Of several rows with one id the first counts.
            known: spares who adds again and again the reading of all ids each time.
            replace: pairs that are there get their new rows.
            since: the `epoch` at which they began to be made.
            looked_up: what says already that none of them was forgotten.
            waiver: lets forgotten ones in, on record.

        Returns:
            How many pairs were not there before.

        Raises:
            ForgottenPairError: some were forgotten; nothing is added.
            KeysError: the key is missing with which it could be told what was forgotten.
            DimensionError: vectors of another size.
            InputError: columns that do not fit.
            StaleModelError: something was forgotten since, which may be among them.
        """
        schema = schemas.pairs_schema(self.image.dimension, self.text.dimension)
        rows = pair_rows.drop_repeats(
            pair_rows.conform(pair_rows.add_ingest_time(pairs), schema), "pair_id"
        )
        known = known or KnownPairs()
        with self.writing("add", since=since, midway=True):
            head = self._head()
            check_addable(head)
            known.refresh(head)
            found = known.find(rows["pair_id"].combine_chunks())
            new = len(rows) - len(found.places)
            if new < len(rows) and not replace:
                there = pc.is_in(rows["pair_id"], found.rows["pair_id"].combine_chunks())
                rows = rows.filter(pc.invert(there))
            check_added(self.uri, rows, looked_up, waiver)
            if replace:
                pair_rows.replace(head, rows, found.addresses)
            else:
                new = pair_rows.append(head, rows)
            if looked_up is not None:
                looked_up.follow(head, self._head(), looked=True)
            return new

    def join_fragments(self, looked_up: ForgottenPairs | None = None) -> None:
        """Joins small fragments at head that no version has yet, and frees the joined ones."""
        with self.writing("join", midway=True):
            latest, head = self._latest(), self._head()
            if join_fragments(head, latest):
                if looked_up is not None:
                    looked_up.follow(head, self._head(), looked=False)
                clean_up(self.uri, grace=GRACE, passing_after=latest.version if latest else 0)

    def delete(self, pair_ids: Sequence[str]) -> int:
        """Takes pairs out of head in one commit; returns how many were there.

        Named versions keep them: see `forget` for those. Nothing of the pairs is logged.
        """
        ids = take_texts("pair_ids", pair_ids)
        with self.writing("delete"), step(f"delete {len(ids):,} pairs"):
            return pair_rows.delete(self._head(), pa.array(ids, pa.string()))

    # Model versions

    @takes(command=TEXT, message=TEXT)
    def publish(
        self,
        *,
        command: str,
        message: str = "",
        since: int | None = None,
        looked_up: ForgottenPairs | None = None,
        waiver: Waiver | None = None,
        like: ModelVersion | None = None,
    ) -> ModelVersion | None:
        """Names what is at head as the next version; None when `latest` holds the same pairs.

        `since` is the epoch at which the message was made, if it may quote pairs. With `like` the
        version gets the number and time of one of another database, and is made in any case.

        Raises:
            BadRowsError: rows that others put at head cannot be pairs.
            ForgottenPairError, KeysError: as for `add`, of pairs that others put at head.
        """
        with self.writing("publish", since=since):
            check_unpublished(self.uri, self._latest(), self._head(), looked_up, waiver)
            return name_head(self.uri, self._latest(), command, message, like)

    def drop_bad_rows(self) -> tuple[BadRow, ...]:
        """Takes rows out of head that others put there and that cannot be pairs; says which."""
        with self.writing("publish"):
            head = self._head()
            bad = find_bad_rows(head, find_new_fragments(self._latest(), head))
            if bad:
                pair_rows.delete_at(head, np.array([row.address for row in bad], dtype=np.uint64))
            return tuple(bad)

    @takes(alias=TEXT, version=TEXT)
    def tag(self, alias: str, version: str) -> None:
        """Gives a version a further name, taking it from the one that had it.

        Raises:
            InvalidNameError: the alias is reserved or has characters that cannot be used.
            VersionNotFoundError: there is no such version.
        """
        with self.writing("tag"):
            Ledger(self.uri).tag(alias, version)

    @takes(alias=TEXT)
    def untag(self, alias: str) -> None:
        """Takes an alias away; InvalidNameError and VersionNotFoundError as for `tag`."""
        with self.writing("untag"):
            Ledger(self.uri).untag(alias)

    @takes(version=TEXT, message=TEXT)
    def rollback(self, version: str, *, message: str = "") -> ModelVersion:
        """Makes a new version with the content of an old one, and returns it.

        Unpublished rows at head go. When `latest` has that content already, it is returned.

        Raises:
            VersionNotFoundError: there is no such version.
        """
        with self.writing("rollback"):
            old, pins = self.version(version), read_pins(self._head())
            with storage_errors(self.uri):
                commit(self._head(), LanceOperation.Restore(old.lance_version))
                pair_rows.complete_columns(self._head())
                write_pins(self._head(), pins)
            message = message or f"back to {old.name}"
            return name_head(self.uri, self._latest(), "rollback", message) or self.version()

    # Rejects

    def add_rejects(
        self, ingest_id: str, rejects: Iterable[Reject], *, since: int | None = None
    ) -> None:
        """Keeps what an ingest refused, in one commit; `since` is the epoch at which it began."""
        common = {"ingest_id": ingest_id, "created_at": datetime.now(UTC)}
        rows = [{"source": r.source, "item": r.item, "reason": r.reason, **common} for r in rejects]
        if rows:
            with self.writing("add_rejects", since=since):
                append_rows(self.uri, "rejects", pa.Table.from_pylist(rows, schema=schemas.REJECTS))

    def adopt_head(self) -> bool:
        """Lets `latest` mean head, with its new index, if both hold the same pairs; tells if so."""
        with self.writing("adopt"):
            return Ledger(self.uri).adopt(self._head())

    def check_own(self, command: str) -> None:
        """Passes if the pairs are the database's own; writing pairs checks it, too.

        Args:
            command: what is wanted.

        Raises:
            AttachedDatabaseError: they are those of somebody else's table.
        """
        check_own(self.uri, command)

    def check_addable(self, command: str = "add") -> None:
        """Passes if pairs can be added, as far as the table's columns tell.

        Args:
            command: what is wanted.

        Raises:
            AttachedDatabaseError: they are those of somebody else's table.
            DatabaseError: another program has a column there that every row must fill.
        """
        self.check_own(command)
        check_addable(self._head())

    def writing(
        self,
        command: str,
        *,
        since: int | None = None,
        beside: bool = False,
        midway: bool = False,
    ) -> AbstractContextManager[None]:
        """Holds the write lock around a change, after finishing a forget that was killed.

        Args:
            command: what others are told who wait in vain.
            since: the `epoch` of before what will be written was read.
            beside: only what lies beside the pairs is written: runs, settings.
            midway: more is written soon; new files get their digests only then, see `settle`.

        Raises:
            AttachedDatabaseError: the pairs are not the database's own.
            DatabaseBusyError: another writer kept the lock for too long.
            StaleModelError: pairs were forgotten since.
            NewerDatabaseError: a newer release has migrated the database meanwhile.
        """
        if not beside:
            self.check_own(command)
        timeout = self.lock_timeout
        return begin_change(self.uri, command, timeout=timeout, since=since, midway=midway)

    def settle(self) -> None:
        """Gives files their digests that were written `midway` in a change."""
        with self.writing("settle", beside=True):
            pass
