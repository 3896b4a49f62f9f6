"""What can be read of an open database: its versions, their pairs, what is at head, rejects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import lance
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.arguments import TEXT, instance_of, takes
from asif_lance.database import (
    LATEST,
    AttachedState,
    Attachment,
    Changes,
    Diff,
    FoundPairs,
    KnownPairs,
    Ledger,
    Result,
    check_manifest,
    check_opened,
    check_pin,
    diff_states,
    find_attachment,
    find_changes,
    open_table,
    pair_rows,
    read_epoch,
    read_table,
    retry_read,
    storage_errors,
    version_record,
)
from asif_lance.progress import step
from asif_lance.records import EncoderPin, ModelVersion


@dataclass(frozen=True)
class StoredVersions:
    """The reading side of a database; see `PairStore`.

    Attributes:
        uri: directory or object-store address.
        image: the encoder whose vectors `image_vector` holds.
        text: the encoder whose vectors `text_vector` holds.
    """

    uri: str
    image: EncoderPin
    text: EncoderPin

    @property
    def attachment(self) -> Attachment | None:
        """The table of somebody else's that the pairs are read from; None if they are our own."""
        return find_attachment(self.uri)

    def check_encoders(self, image: EncoderPin, text: EncoderPin) -> None:
        """Passes when these encoders made the vectors of this database.

        An empty revision, on either side, is unknown and fits any.

        Raises:
            EncoderMismatchError: another encoder or another revision of it.
            DimensionError: the same encoder with vectors of another size.
        """
        check_pin("image", self.image, image)
        check_pin("text", self.text, text)

    def epoch(self) -> int:
        """A number that every forget raises: see `writing`."""
        return read_epoch(self.uri)

    def existing(self, pair_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are at head already."""
        with storage_errors(self.uri):
            found = pair_rows.find_rows(self._head(), pa.array(pair_ids, pa.string()))
            return {pair_id for batch in found for pair_id in batch["pair_id"].to_pylist()}

    def find_known(
        self, known: KnownPairs, ids: pa.Array, columns: Sequence[str], *, anew: bool = False
    ) -> FoundPairs:
        """Those of n distinct ids that are at head, with columns of their rows.

        Args:
            known: what the caller knows of head; brought up to date where it has one of the ids.
            ids: (n,) strings.
            columns: besides `pair_id`.
            anew: bring `known` up to date in any case.
        """

        def find() -> FoundPairs:
            if anew or known.may_have(ids):
                known.refresh(self._head())
            return known.find(ids, columns)

        return retry_read(self.uri, find)

    def versions(self) -> list[ModelVersion]:
        """All model versions, oldest first."""
        ledger = Ledger(self.uri)
        rows = ledger.rows()
        tags = ledger.lance_versions()
        return [version_record(row, tags[row["name"]]) for row in rows if row["name"] in tags]

    @takes(name=TEXT)
    def version(self, name: str = LATEST) -> ModelVersion:
        """The version of this name or alias.

        Raises:
            VersionNotFoundError: there is none.
        """
        return retry_read(self.uri, lambda: self._find_version(name))

    def versions_state(self) -> tuple[int, int] | None:
        """Changes whenever a name may mean another version, or another state of one.

        Much faster to read than versions are. None where that is not known: attached tables.
        """
        return retry_read(self.uri, Ledger(self.uri).state)

    @takes(when=instance_of("a datetime", datetime))
    def version_as_of(self, when: datetime) -> ModelVersion:
        """The newest version made at or before this time; a time without a zone is UTC.

        Raises:
            VersionNotFoundError: the oldest version is younger.
        """
        return self.version(Ledger(self.uri).find_as_of(when)["name"])

    def dataset(self, version: str = LATEST) -> lance.LanceDataset:
        """A version's rows, to be scanned; read-only.

        A version that is forgotten from or pruned meanwhile may raise "Not found" while it is
        read: `read` opens it anew and tries again.
        """
        return self._read_version(version, lambda dataset: dataset)

    def read(self, version: str = LATEST, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a version, read again when they were rewritten under the reader's hands.

        Raises:
            VersionNotFoundError: there is no such version.
        """
        names = list(columns) if columns is not None else None
        return self._read_version(version, lambda state: state.to_table(columns=names))

    def rejects(self, ingest_id: str | None = None) -> pa.Table:
        """Rejected items (`ingest_id, source, item, reason, created_at`), of one ingest or all."""
        rows = read_table(self.uri, "rejects")
        return rows if ingest_id is None else rows.filter(pc.field("ingest_id") == ingest_id)

    def diff(self, old: str, new: str = LATEST) -> Diff:
        """Pairs that one version has and the other has not, or has with other content.

        Raises:
            VersionNotFoundError: one of them is not there.
        """
        with step("compare versions"):
            return retry_read(self.uri, lambda: diff_states(self.dataset(old), self.dataset(new)))

    def unpublished(self, *, most: int | None = None) -> Changes:
        """What head has changed since the newest version; `most` as in `find_changes`."""
        return retry_read(self.uri, lambda: find_changes(self._latest(), self._head(), most=most))

    def _head(self) -> lance.LanceDataset:
        return open_table(self.uri, "pairs")

    def _latest(self) -> lance.LanceDataset | None:
        return self.dataset() if Ledger(self.uri).rows() else None

    def _find_version(self, name: str) -> ModelVersion:
        ledger = Ledger(self.uri)
        row = ledger.find(name)
        return version_record(row, ledger.lance_version(row["name"]))

    def _read_version(self, name: str, read: Callable[[lance.LanceDataset], Result]) -> Result:
        """Applies `read` to a version's rows, again when its files were removed meanwhile."""

        def find() -> lance.LanceDataset:
            version = self._find_version(name).lance_version
            check_manifest(self.uri, version)
            found = open_table(self.uri, "pairs", version)
            if isinstance(found, AttachedState):
                return found.check_dimensions(self.image.dimension, self.text.dimension)
            return check_opened(found)

        return retry_read(self.uri, lambda: read(find()))
