"""Model versions: names that users give to states of the pairs table.

The table `versions` says which names exist; a Lance tag per name says which Lance version it is
and keeps that version from being cleaned up. Publishing sets the tag first and then adds the row,
one atomic commit: killed in between, a tag is left that no row names and the next version takes.
A table rather than metadata on the tags: creating a tag and describing it are two steps in Lance,
and listing hundreds of tags reads hundreds of files where the table is one. The tags of aliases
and of `latest` repeat the table for those who open the table with plain LanceDB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database.attached import find_attachment
from asif_lance.database.diff import find_changes
from asif_lance.database.epoch import read_epoch
from asif_lance.database.integrity import keep_digests
from asif_lance.database.lease import allot_number
from asif_lance.database.pair_rows import delete_at
from asif_lance.database.schemas import VERSIONS
from asif_lance.database.tables import (
    open_table,
    read_table,
    retry_read,
    storage_errors,
    upsert_rows,
)
from asif_lance.database.tags import drop_tag, set_tag
from asif_lance.errors import InvalidNameError, StorageError, VersionNotFoundError
from asif_lance.records import LATEST, ModelVersion

# ASCII only: Lance accepts a tag named é and can then list no tags any more.
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_ALIAS_LENGTH = 100
_NUMBERED = re.compile(r"v\d+", re.IGNORECASE)

Row = dict[str, Any]


class _Tags(dict[str, int]):
    """Lance versions by tag; one that is missing is an error of the database."""

    def __init__(self, uri: str, versions: dict[str, int]) -> None:
        super().__init__(versions)
        self._uri = uri

    def __missing__(self, name: str) -> int:
        raise StorageError(f"{self._uri}: the tag of model version {name} was not found")


@dataclass(frozen=True, slots=True)
class Ledger:
    """The named versions of one database. Those who write hold the write lock."""

    uri: str

    def rows(self) -> list[Row]:
        """All rows of the table, oldest first."""
        if attachment := find_attachment(self.uri):
            return retry_read(self.uri, attachment.version_rows)
        return sorted(read_table(self.uri, "versions").to_pylist(), key=lambda row: row["number"])

    def state(self) -> tuple[int, int] | None:
        """Differs from before once versions were made, renamed or pruned, or pairs forgotten."""
        if find_attachment(self.uri):
            return None
        return open_table(self.uri, "versions").version, read_epoch(self.uri)

    def find(self, name: str) -> Row:
        """The version of this name or alias.

        Raises:
            VersionNotFoundError: none has it.
        """
        rows = self.rows()
        if name == LATEST and rows:
            return rows[-1]
        for row in rows:
            if name == row["name"] or name in row["aliases"]:
                return row
        aliases = tuple(alias for row in rows for alias in row["aliases"])
        raise VersionNotFoundError(name, tuple(row["name"] for row in rows), aliases=aliases)

    def find_as_of(self, when: datetime) -> Row:
        """The newest version made at or before this time; a time without a zone is UTC.

        Raises:
            VersionNotFoundError: the oldest version is younger.
        """
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        rows = self.rows()
        older = [row for row in rows if row["created_at"] <= when]
        if not older:
            first = (f"{row['name']} was made at {row['created_at']:%FT%TZ}" for row in rows)
            message = f"no model version is as old as {when:%FT%TZ}: {next(first, 'there is none')}"
            known = tuple(row["name"] for row in rows)
            raise VersionNotFoundError(f"as of {when.isoformat()}", known, message)
        return older[-1]

    def lance_version(self, name: str) -> int:
        """Which Lance version the tag of `vN` names now; forgetting changes it."""
        if find_attachment(self.uri):
            return int(name)
        tags = open_table(self.uri, "pairs").tags
        try:
            return int(tags.get_version(name))
        except (ValueError, RuntimeError) as error:  # RuntimeError: it is there and damaged
            raise StorageError(
                f"{self.uri}: the tag of model version {name} was not found"
            ) from error

    def lance_versions(self) -> dict[str, int]:
        """All Lance tags, those of aliases too, and the Lance versions that they name."""
        if find_attachment(self.uri):
            rows = self.rows()
            names = {name: row["number"] for row in rows for name in (row["name"], *row["aliases"])}
            return _Tags(self.uri, names | ({LATEST: rows[-1]["number"]} if rows else {}))
        # Lance lists the tags' files and then reads each, and pruning may be faster.
        tags = retry_read(self.uri, lambda: open_table(self.uri, "pairs").tags.list())
        return _Tags(self.uri, {name: int(tag["version"]) for name, tag in tags.items()})

    def foreign_tags(self) -> tuple[str, ...]:
        """Lance tags that are no name of a version: somebody else's; sorted."""
        ours = {LATEST, *(name for row in self.rows() for name in (row["name"], *row["aliases"]))}
        return tuple(sorted(self.lance_versions().keys() - ours))

    def publish(self, head: lance.LanceDataset, row: Row) -> Row:
        """Names the state `head`, of now and by the next number unless the row has its own.

        Returns the completed row.
        """
        rows = self.rows()
        following = int(rows[-1]["number"]) + 1 if rows else 1
        number = allot_number(self.uri, row.get("number", following))
        row = {"created_at": datetime.now(UTC), **row, "number": number}
        row["name"] = f"v{row['number']}"
        self.point(row["name"], head.version)
        self.write([{**row, "aliases": []}])
        self.point(LATEST, head.version)
        keep_digests(self.uri)
        return {**row, "aliases": []}

    def tag(self, alias: str, version: str) -> None:
        """Gives a version a further name, taking it from the version that had it.

        Raises:
            InvalidNameError: the alias cannot be used.
            VersionNotFoundError: there is no such version.
        """
        check_alias(alias)
        row = self.find(version)
        moved = [row, *(other for other in self.rows() if alias in other["aliases"])]
        self.write(_with_alias(moved, alias, row["name"]))
        self.point(alias, self.lance_version(row["name"]))
        keep_digests(self.uri)

    def untag(self, alias: str) -> None:
        """Takes an alias away.

        Raises:
            InvalidNameError: it is a version's own name, or no version has it.
        """
        check_alias(alias)
        aliases = sorted(name for row in self.rows() for name in row["aliases"])
        if alias not in aliases:
            known = ", ".join(aliases) or "none"
            raise InvalidNameError(f"no alias {alias!r}; there are: {known}")
        row = self.find(alias)
        self.unpoint(alias)
        self.write(_with_alias([row], alias, None))
        keep_digests(self.uri)

    def remove(self, names: list[str]) -> None:
        """Takes versions off the list in one commit; `mend` then drops their tags.

        Their aliases' tags go first: `mend` would set them again, but could not
        distinguish one that has no row any more from a tag of somebody else.
        """
        for alias in (a for row in self.rows() if row["name"] in names for a in row["aliases"]):
            self.unpoint(alias)
        with storage_errors(self.uri):
            table = open_table(self.uri, "versions")
            scanner = table.scanner(columns=["name"], with_row_address=True)
            rows = scanner.to_table()
            gone = rows.filter(pc.is_in(rows["name"], pa.array(names, pa.string())))
            if len(gone):
                delete_at(table, gone["_rowaddr"].to_numpy())

    def adopt(self, head: lance.LanceDataset) -> bool:
        """Lets the newest version's name mean head, if head holds the same pairs.

        For maintenance that changes only the form: compaction, a new index. Says whether it did.
        """
        rows = self.rows()
        if not rows or find_attachment(self.uri):
            return False
        old = self.lance_version(rows[-1]["name"])
        if old == head.version or find_changes(open_table(self.uri, "pairs", old), head):
            return False
        self.point(rows[-1]["name"], head.version)
        self.mend()
        keep_digests(self.uri)
        return True

    def mend(self) -> None:
        """Makes Lance's tags agree with the table, after a kill in between or for good order."""
        tags, rows = self.lance_versions(), self.rows()
        for row in (row for row in rows if row["name"] in tags):
            further = [*row["aliases"], *([LATEST] if row is rows[-1] else [])]
            for name in further:
                if tags.get(name) != tags[row["name"]]:
                    self.point(name, tags[row["name"]])
        known = {row["name"] for row in rows}
        for name in tags:
            if _NUMBERED.fullmatch(name) and name not in known:
                self.unpoint(name)

    def write(self, rows: list[Row]) -> None:
        """Adds or replaces rows, all in one commit."""
        table = pa.Table.from_pylist(rows, schema=VERSIONS)
        upsert_rows(self.uri, "versions", table, "name")

    def point(self, tag: str, lance_version: int) -> None:
        """Makes the Lance tag name this Lance version."""
        with storage_errors(self.uri):
            set_tag(open_table(self.uri, "pairs"), tag, lance_version)

    def unpoint(self, tag: str) -> None:
        """Drops a Lance tag, if it is there."""
        with storage_errors(self.uri):
            drop_tag(open_table(self.uri, "pairs"), tag)


def check_alias(alias: str) -> None:
    """Passes names that can be aliases.

    Raises:
        InvalidNameError: the name is reserved or has characters that cannot be used.
    """
    if _NUMBERED.fullmatch(alias) or alias.lower() == LATEST:
        raise InvalidNameError(f"{alias!r} is reserved for the versions themselves")
    if not _ALIAS.fullmatch(alias) or len(alias) > _ALIAS_LENGTH or alias.endswith(".lock"):
        raise InvalidNameError(
            f"{alias[:_ALIAS_LENGTH]!r} cannot be an alias: use letters, digits, '-', '_' and "
            f"single dots, {_ALIAS_LENGTH} at most"
        )


def version_record(row: Row, lance_version: int) -> ModelVersion:
    """The frozen value that other packages see."""
    aliases = tuple(sorted(row["aliases"]))
    return ModelVersion(**{**row, "aliases": aliases}, lance_version=lance_version)


def _with_alias(rows: list[Row], alias: str, owner: str | None) -> list[Row]:
    """The rows with the alias on the owner alone, each row once."""
    unique = {row["name"]: row for row in rows}
    return [
        {**row, "aliases": [a for a in row["aliases"] if a != alias] + [alias] * (name == owner)}
        for name, row in unique.items()
    ]
