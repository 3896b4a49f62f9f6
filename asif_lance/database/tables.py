"""Lance tables of one database: where they lie, how they are opened, what their errors mean.

A database is a directory (or object-store prefix) that LanceDB also reads: `URI/pairs.lance` is
what `lancedb.connect(URI).open_table("pairs")` opens.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import lance
import pyarrow as pa
from lance import LanceOperation
from lance.fragment import FragmentMetadata, write_fragments

from asif_lance.database.attached import AttachedState, find_attachment
from asif_lance.database.commits import commit, committing, keep_excluding
from asif_lance.database.digests import (
    READ_ERRORS,
    find_damage,
    find_damaged_tag,
    one_line,
)
from asif_lance.database.registry import find_missing_columns
from asif_lance.errors import (
    CorruptDatabaseError,
    DatabaseError,
    StorageError,
    is_panic,
    printable,
)
from asif_lance.forks import check_not_forked
from asif_lance.object_stores import (
    SCHEMES,
    check_address,
    explain_refusal,
    is_remote,
    is_store_error,
)

# Above this many fragments a bookkeeping table is compacted; one commit makes one fragment.
_TIDY_FRAGMENTS = 16
#: How long upkeep leaves alone what readers of plain Lance may have open.
GRACE = timedelta(minutes=10)

_READ_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.02

_STORAGE_SIGNS = ("LanceError(IO)", "Not found:", "was not found", "Commit conflict")
# Of an error whose cause lies elsewhere: upkeep took a file that is read without a lock, say.
_OTHER_SIGNS = ("not found", "os error", "commit conflict")
_DAMAGE_SIGNS = (
    *("corrupt", "Protobuf", "Parser error", "Task was aborted", "invalid magic"),
    *("External error", "LanceError(Arrow)", "LanceError(Schema)", "Invalid range"),
)
_FILE = re.compile(r"\w+\.lance/\w+/[^\s,]+")

Result = TypeVar("Result")


def resolve_uri(uri: str | Path) -> str:
    """A database's address in its one spelling: absolute for local paths, as given otherwise.

    Raises:
        StorageError: it has bytes that are not UTF-8, and Lance opens no such path; or not all
            libraries take it for the same objects, see `check_address`.
    """
    address = str(uri).removeprefix("file://")
    if not address:
        raise StorageError("the address of the database is empty")
    if is_remote(address):
        scheme, mark, rest = address.partition("://")
        address = scheme + mark + rest.rstrip("/")
    elif address.partition(":/")[0].lower() in SCHEMES:
        raise StorageError(f"{printable(address)}: such an address begins as s3:// does")
    else:
        path = Path(address).expanduser().absolute()
        address = str(path)
        if os.path.isfile(path):  # noqa: PTH113 - `Path.is_file` fails where a name is too long
            raise StorageError(f"{printable(address)} is a file: a database is a folder")
    if any("\ud800" <= character <= "\udfff" for character in address):
        raise StorageError(f"{printable(address)}: the address of a database has to be UTF-8")
    if is_remote(address):
        check_address(address)
    return address


def local_path(uri: str) -> Path | None:
    """The database's directory, or None when it is in an object store."""
    return None if is_remote(uri) else Path(uri)


def table_uri(uri: str, table: str) -> str:
    """Where LanceDB keeps the table of this name."""
    return f"{uri}/{table}.lance"


def open_table(uri: str, table: str, version: int | str | None = None) -> lance.LanceDataset:
    """Opens a table at its head, or at a Lance version or tag.

    The pairs of a database that is attached to a table are that table's, see `attached`.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    attachment = find_attachment(uri) if table == "pairs" else None
    with storage_errors(uri):
        if attachment is not None:
            return AttachedState(uri, attachment, None if version is None else int(version))
        return lance.dataset(table_uri(uri, table), version=version)


def open_own_pairs(uri: str) -> lance.LanceDataset:
    """The database's own table of pairs, which is empty where it is attached to another one."""
    with storage_errors(uri):
        return lance.dataset(table_uri(uri, "pairs"))


def find_table(uri: str, table: str) -> lance.LanceDataset | None:
    """Opens a table, or returns None when there is none of this name."""
    with storage_errors(uri):
        try:
            return lance.dataset(table_uri(uri, table))
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turns what Lance and the operating system raise into an error of one line.

    Lance raises OSError for failed writes, and ValueError (or its child ArrowInvalid) with a
    telling text for failed reads; damaged files cause these too, RuntimeErrors, and panics. Other
    ValueErrors are somebody's mistake and pass, if no file is found to be damaged.

    Raises:
        StorageError: the disk or object store refused.
        CorruptDatabaseError: a file is damaged.
        ForkedProcessError: Lance or torch was used before this process was forked.
    """
    check_not_forked()
    try:
        yield
    except READ_ERRORS as error:
        found = _explain(uri, error)
        if found is None:
            raise
        raise found from error
    except BaseException as error:
        if is_store_error(error):
            raise StorageError(f"{uri}: {explain_refusal(error)}") from error
        if not is_panic(error):
            raise
        raise (_find_damage(uri, error) or StorageError(f"{uri}: {one_line(error)}")) from error


def _explain(uri: str, error: Exception) -> DatabaseError | None:
    """What an error means; None for one that is not about files."""
    text = str(error)
    damage = None
    of_system = isinstance(error, OSError) and error.errno is not None
    if not of_system and not any(sign in text.lower() for sign in _OTHER_SIGNS):
        damage = _find_damage(uri, error)
    if damage is None and (isinstance(error, OSError) or any(s in text for s in _STORAGE_SIGNS)):
        return StorageError(f"{uri}: {one_line(error)}")
    return damage


def _find_damage(uri: str, error: BaseException) -> CorruptDatabaseError | None:
    """The damaged file that an error comes from, by the digests or by what its text says."""
    root = local_path(uri)
    if root is None:
        return None
    text = str(error)
    told = is_panic(error) or any(sign in text for sign in _DAMAGE_SIGNS)
    file = find_damage(root, thorough=told or isinstance(error, pa.ArrowException))
    if file is None and told:
        named = _FILE.search(text)
        file = named[0] if named else find_damaged_tag(root) or _find_empty(root)
    return None if file is None else CorruptDatabaseError(uri, file, one_line(error))


def _find_empty(root: Path) -> str:
    """A file without content, as a copy has that ran out of room."""
    files = (path for path in root.glob("*.lance/*/*") if path.is_file())
    empty = (path.relative_to(root).as_posix() for path in files if not path.stat().st_size)
    return next(empty, "one of its files")


def retry_read(uri: str, read: Callable[[], Result]) -> Result:
    """Reads again when files are gone: readers take no lock, and upkeep removes old files.

    Args:
        uri: the database, for the error.
        read: has to open what it reads anew each time.

    Raises:
        StorageError: it is not there or cannot be read.
    """
    for attempt in range(_READ_ATTEMPTS - 1):
        try:
            with storage_errors(uri):
                return read()
        except StorageError as error:
            if "not found" not in str(error).lower():
                raise
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    with storage_errors(uri):
        return read()


def read_table(
    uri: str,
    name: str,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
) -> pa.Table:
    """Rows of a bookkeeping table; read again when upkeep removed its files meanwhile.

    Args:
        uri: the database.
        name: a table without model versions, so not `pairs`.
        columns: only these.
        where: only rows for which this SQL predicate of our own holds.
        limit: no more rows than this.

    Raises:
        StorageError: it is not there or cannot be read.
        CorruptDatabaseError: it is damaged, or another program took columns away.
    """
    names = None if columns is None else list(columns)

    def read() -> pa.Table:
        table = open_table(uri, name)
        for missing in find_missing_columns(name, table.schema.names):
            raise CorruptDatabaseError(uri, f"{name}.lance", f"it has no column {missing!r}")
        return table.to_table(columns=names, filter=where, limit=limit)

    return retry_read(uri, read)


def append_rows(uri: str, name: str, rows: pa.Table) -> None:
    """Adds rows to a bookkeeping table in one commit, or none for none.

    Raises:
        StorageError: the disk refused.
    """
    if len(rows):
        table = open_table(uri, name)
        with storage_errors(uri), committing(uri):
            _tidy(lance.write_dataset(rows, table, mode="append"))


def write_rows_apart(uri: str, name: str, rows: pa.Table) -> list[FragmentMetadata]:
    """Writes rows into files that no state of a bookkeeping table names yet.

    Raises:
        StorageError: the disk refused.
    """
    with storage_errors(uri):
        return list(write_fragments(rows, open_table(uri, name), mode="append"))


def append_fragments(uri: str, name: str, fragments: list[FragmentMetadata]) -> None:
    """Adds rows that were written apart to a bookkeeping table in one commit, or none for none.

    Raises:
        StorageError: the disk refused.
    """
    if fragments:
        with storage_errors(uri):
            _tidy(commit(open_table(uri, name), LanceOperation.Append(fragments)))


def upsert_rows(uri: str, name: str, rows: pa.Table, key: str) -> None:
    """Inserts rows, or replaces those with the same key, in one commit.

    Raises:
        StorageError: the disk refused.
    """
    table = open_table(uri, name)
    with storage_errors(uri), committing(uri):
        merge = table.merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows)
        _tidy(table)


def _tidy(table: lance.LanceDataset) -> None:
    """Keeps a bookkeeping table small: few fragments, no old versions (it has no tags)."""
    if len(table.get_fragments()) <= _TIDY_FRAGMENTS:
        return
    with committing(table.uri):
        table.optimize.compact_files()
    old = find_replaced(table, GRACE)
    if old:
        table = keep_excluding(table)
        with committing(table.uri):
            table.cleanup_old_versions(versions=old, error_if_tagged_old_versions=False)


def find_replaced(dataset: lance.LanceDataset, grace: timedelta) -> list[int]:
    """The Lance versions of a table that were replaced by the next one longer ago than this.

    Lance's own cleaning goes by when a version was made. A reader minds when another one took its
    place: a version of last year may have been head a second ago.
    """
    limit = datetime.now(UTC) - grace
    # Times without a zone are the local ones.
    made = [(v["version"], v["timestamp"].astimezone(UTC)) for v in dataset.versions()]
    return [version for (version, _), (_, replaced) in pairwise(made) if replaced <= limit]
