"""PairStore: the pairs table, its model versions, and nothing that knows what vectors mean.

The law of the table:
- A model version `vN` is a Lance tag on a Lance dataset version, with its message, command, time
  and counts as the tag's metadata. It exists from the moment that metadata is written, at once.
- Readers go by tag, never by Lance's head: head may hold the chunks of an ingest that is still
  running, or that was killed. They join the next version that is published.
- Rows are named by `pair_id` alone; Lance's row ids change when fragments are rewritten.
- A write that would change nothing is not made, since Lance makes a version of every write.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import lance
import lancedb
import polars as pl
import pyarrow as pa

from asif_lance import schema
from asif_lance.errors import (
    DatabaseExistsError,
    DatabaseNotFoundError,
    DimensionError,
    EncoderMismatchError,
    PredicateError,
    StorageError,
    VersionNotFoundError,
)
from asif_lance.locks import write_lock
from asif_lance.records import EncoderPin, ModelVersion, Reject
from asif_lance.tags import Tags

#: Ids per delete: one commit each, and Lance parses the predicate.
DELETE_BATCH = 1000


class PairStore:
    """One database. Cheap to open; safe to use from several threads and processes.

    Attributes:
        uri: the database.
        image: the pinned image encoder.
        text: the pinned text encoder.
    """

    def __init__(self, uri: str, image: EncoderPin, text: EncoderPin) -> None:
        self.uri, self.image, self.text = uri, image, text
        self._table_uri = f"{uri.rstrip('/')}/{schema.PAIRS}.lance"
        self._tags = Tags(self._table_uri)

    @classmethod
    def create(cls, uri: str, *, image: EncoderPin, text: EncoderPin) -> PairStore:
        """Make a database for vectors of two encoders.

        Raises:
            DatabaseExistsError: there is one already.
            StorageError: the place cannot be written.
        """
        with storage_errors(uri):
            connection = lancedb.connect(uri)
            if schema.applied_migrations(connection):
                raise DatabaseExistsError(uri)
            with write_lock(uri, "create"):
                schema.apply(connection, image, text)
        return cls.open(uri)

    @classmethod
    def open(cls, uri: str) -> PairStore:
        """Open a database.

        Raises:
            DatabaseNotFoundError, MigrationNeededError, NewerDatabaseError: it cannot be used.
            StorageError: the place cannot be read.
        """
        if not schema.exists(uri):
            raise DatabaseNotFoundError(uri)
        with storage_errors(uri):
            connection = lancedb.connect(uri)
            schema.check(uri, connection)
            image, text = schema.pins(connection.open_table(schema.PAIRS).schema.metadata)
        return cls(uri, image, text)

    def check_encoders(self, image: EncoderPin, text: EncoderPin) -> None:
        """Refuse vectors of other encoders than the pinned ones.

        Raises:
            EncoderMismatchError: another name, or other weights of the same name.
            DimensionError: the same name with vectors of another length.
        """
        for side, pinned, given in (("image", self.image, image), ("text", self.text, text)):
            if pinned.name != given.name:
                raise EncoderMismatchError(side, pinned.name, given.name)
            if pinned.dimension != given.dimension:
                raise DimensionError(f"{side} vectors", pinned.dimension, given.dimension)
            if pinned.revision and given.revision and pinned.revision != given.revision:
                raise EncoderMismatchError(
                    side, f"{pinned.name}@{pinned.revision}", f"{given.name}@{given.revision}"
                )

    def existing(self, pair_ids: Sequence[str]) -> set[str]:
        """Which of some pairs are in the table now, published or not."""
        head = lance.dataset(self._table_uri)
        found: set[str] = set()
        for predicate in _id_predicates(pair_ids):
            ids = head.scanner(columns=["pair_id"], filter=predicate).to_table()["pair_id"]
            found.update(ids.to_pylist())
        return found

    def add(self, pairs: pa.Table) -> int:
        """Add the pairs whose ids are new; returns how many. One commit, or none.

        Args:
            pairs: rows of `schema.pairs_schema`; about 10,000 make a good fragment.

        Raises:
            StorageError: the disk refused; the table is as it was.
        """
        frame = pl.DataFrame(pairs.select(["pair_id"])).with_row_index("row")
        first = frame.unique("pair_id", keep="first", maintain_order=True)
        with storage_errors(self.uri), write_lock(self.uri, "add"):
            known = self.existing(first["pair_id"].to_list())
            fresh = first.filter(~pl.col("pair_id").is_in(list(known)))
            if not len(fresh):
                return 0
            head = lance.dataset(self._table_uri)
            insert = head.merge_insert("pair_id").when_not_matched_insert_all()
            done = insert.execute(pairs.take(fresh["row"].to_arrow()))
        return int(done["num_inserted_rows"])

    def delete(self, pair_ids: Sequence[str]) -> int:
        """Take pairs out of the table's head; returns how many were there.

        Older versions keep them. Lance logs the predicates, so they name ids and nothing else.
        """
        with storage_errors(self.uri), write_lock(self.uri, "delete"):
            there = sorted(self.existing(pair_ids))
            head = lance.dataset(self._table_uri)
            for predicate in _id_predicates(there):
                head.delete(predicate)
        return len(there)

    def matching(self, where: str) -> list[str]:
        """The ids of the table's pairs that a SQL predicate selects, in order.

        Raises:
            PredicateError: it is no predicate over the pairs table.
        """
        head = lance.dataset(self._table_uri)
        try:
            found = head.scanner(columns=["pair_id"], filter=where).to_table()
        except (ValueError, OSError, RuntimeError) as error:  # what Lance's SQL parser raises
            raise PredicateError(where, _predicate_reason(error)) from None
        return sorted(found["pair_id"].to_pylist())

    def publish(self, *, command: str, message: str = "") -> ModelVersion | None:
        """Name the table's head as the next model version and make it the newest.

        Returns:
            The version, or None when head holds the same pairs as the newest one.
        """
        with storage_errors(self.uri), write_lock(self.uri, command):
            return self._publish(command, message)

    def versions(self) -> list[ModelVersion]:
        """All model versions, oldest first."""
        return self._tags.versions()

    def version(self, name: str = "latest") -> ModelVersion:
        """One model version by `vN`, alias or `latest`.

        Raises:
            VersionNotFoundError: there is none.
        """
        return self._tags.version(name)

    def version_as_of(self, when: datetime) -> ModelVersion:
        """The newest model version made at or before a time.

        Raises:
            VersionNotFoundError: none is that old.
        """
        versions = self.versions()
        old = [v for v in versions if v.created_at <= when]
        if not old:
            name = f"as of {when:%Y-%m-%d %H:%M:%S}"
            raise VersionNotFoundError(name, tuple(v.name for v in versions))
        return old[-1]

    def tag(self, alias: str, version: str) -> None:
        """Give a model version a further name, or move that name.

        Raises:
            InvalidNameError: a name that versions have, or with characters that tags lack.
            VersionNotFoundError: there is no such version.
        """
        with storage_errors(self.uri), write_lock(self.uri, "tag"):
            self._tags.set_alias(alias, version)

    def untag(self, alias: str) -> None:
        """Take an alias away; the version stays.

        Raises:
            InvalidNameError: it is no alias.
        """
        with storage_errors(self.uri), write_lock(self.uri, "tag"):
            self._tags.remove_alias(alias)

    def rollback(self, version: str, *, message: str = "") -> ModelVersion:
        """Make a new version with an old one's pairs; the newest itself when it has just those.

        Raises:
            VersionNotFoundError: there is no such version.
        """
        old = self.version(version)
        with storage_errors(self.uri), write_lock(self.uri, "rollback"):
            if _changes(self.dataset(version), lance.dataset(self._table_uri)) == (0, 0):
                return self._publish("rollback", message) or self.version()
            self.dataset(version).restore()
            made = self._publish("rollback", message or f"back to {old.name}")
        return made or self.version()

    def dataset(self, version: str = "latest") -> lance.LanceDataset:
        """The pairs of a model version as a read-only Lance dataset."""
        return lance.dataset(self._table_uri, version=self.version(version).name)

    def add_rejects(self, rejects: Sequence[Reject]) -> str:
        """Keep the refused items of one ingest; returns the ingest's id."""
        ingest_id, now = uuid.uuid4().hex[:12], datetime.now(UTC)
        rows = [
            {
                "ingest_id": ingest_id,
                "source": r.source,
                "item": r.item,
                "reason": r.reason,
                "rejected_at": now,
            }
            for r in rejects
        ]
        with storage_errors(self.uri):
            table = lancedb.connect(self.uri).open_table(schema.REJECTS)
            table.add(pa.Table.from_pylist(rows, schema=table.schema))
        return ingest_id

    def _publish(self, command: str, message: str) -> ModelVersion | None:
        head = lance.dataset(self._table_uri)
        self._tags.remove_unfinished()
        before = self._tags.newest()
        if before is not None:
            added, removed = _changes(self.dataset(before.name), head)
            if (added, removed) == (0, 0):
                return None
        else:
            added, removed = head.count_rows(), 0
        version = ModelVersion(
            name=f"v{before.number + 1 if before else 1}",
            number=before.number + 1 if before else 1,
            lance_version=head.version,
            message=message,
            command=command,
            created_at=datetime.now(UTC),
            pairs=head.count_rows(),
            added=added,
            removed=removed,
        )
        self._tags.publish(version)
        return version


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """What file systems and object stores refuse becomes one line."""
    try:
        yield
    except OSError as error:
        text = str(error)
        if "No space left" in text or error.errno == 28:
            raise StorageError(f"no space left for {uri}; nothing was half-written") from error
        if "ermission denied" in text:
            raise StorageError(f"permission denied at {uri}") from error
        raise StorageError(f"{uri}: {text.splitlines()[0][:300]}") from error


def _id_predicates(pair_ids: Sequence[str]) -> Iterator[str]:
    ids = list(dict.fromkeys(pair_ids))
    for start in range(0, len(ids), DELETE_BATCH):
        quoted = ("'" + i.replace("'", "''") + "'" for i in ids[start : start + DELETE_BATCH])
        yield f"pair_id IN ({', '.join(quoted)})"


def _changes(old: Any, new: Any) -> tuple[int, int]:
    """How many pairs only `new` has and only `old` has; unchanged fragments are not read."""
    before, after = _fragments(old), _fragments(new)
    gone = _ids(before[key] for key in before.keys() - after.keys())
    come = _ids(after[key] for key in after.keys() - before.keys())
    return len(come - gone), len(gone - come)


def _fragments(dataset: Any) -> dict[str, Any]:
    """Fragments by what they hold: their files and the rows deleted from them."""
    return {
        f"{[f.path for f in x.data_files()]}{x.num_deletions}{x.metadata.deletion_file}": x
        for x in dataset.get_fragments()
    }


def _ids(fragments: Iterator[Any]) -> set[str]:
    return {i for f in fragments for i in f.to_table(columns=["pair_id"])["pair_id"].to_pylist()}


def _predicate_reason(error: BaseException) -> str:
    """Lance's reason without the place in its source that it names."""
    line = str(error).splitlines()[0]
    for ending in (", /", "; ", ". Valid fields"):
        line = line.split(ending)[0]
    return line[:200]
