"""Finds, verifies and runs the migrations that lead to today's tables.

Migrations are the modules `mNNNN_name` of `asif_lance.migrations`, each with `up(uri, pins)`.
The table `migrations` records each one that is done, with the hash of its source; that record is
written last, so a step cut short is simply run again: `up` must cope with its own leftovers.
"""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module

import lance
import pyarrow as pa

from asif_lance.database.commits import committing
from asif_lance.database.encoder_pins import read_pins
from asif_lance.database.integrity import check_naming_tables, keep_digests
from asif_lance.database.lock import WriteLock
from asif_lance.database.registry import TABLES
from asif_lance.database.schemas import MIGRATIONS
from asif_lance.database.tables import (
    find_table,
    open_table,
    resolve_uri,
    storage_errors,
    table_uri,
)
from asif_lance.errors import (
    CorruptDatabaseError,
    DatabaseError,
    DatabaseNotFoundError,
    MigrationNeededError,
    NewerDatabaseError,
)
from asif_lance.object_stores import open_path
from asif_lance.progress import track
from asif_lance.records import EncoderPin
from asif_lance.verifier import find_lost_receipts

Pins = Mapping[str, EncoderPin]

# Tables that hold rows before anything was put in.
_OF_MAKING = ("migrations", "digests")

# Databases whose migrations were right, and the Lance version of the table that said so.
_right: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: its module's name, the sha256 of its source, and what it does."""

    id: str
    hash: str
    up: Callable[[str, Mapping[str, Mapping[str, object]]], None]


def find_migrations() -> list[Migration]:
    """The steps that this release brings along, in order."""
    # By name: they are found rather than listed, and no module imports them.
    package = import_module("asif_lance.migrations")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return [_load(name) for name in names if re.fullmatch(r"m\d{4}_\w+", name)]


def _load(name: str) -> Migration:
    module = import_module(f"asif_lance.migrations.{name}")
    digest = hashlib.sha256(inspect.getsource(module).encode()).hexdigest()
    return Migration(name, digest, module.up)


def check_migrated(uri: str) -> None:
    """Passes when the database has exactly the steps that this release knows.

    Raises:
        DatabaseNotFoundError: nothing is there, or its creation was cut short.
        MigrationNeededError: it lacks steps.
        NewerDatabaseError: it has steps unknown to this release.
        DatabaseError: a step that it went through has been changed since.
        CorruptDatabaseError: a file of the tables that say what the others are is damaged.
    """
    check_naming_tables(uri)
    pending = _find_pending(uri, find_migrations())
    if pending and not _holds_rows(uri):
        raise DatabaseNotFoundError(uri)
    if pending:
        raise MigrationNeededError(uri, tuple(step.id for step in pending))
    _check_receipts(uri)


def _check_receipts(uri: str) -> None:
    for lost in find_lost_receipts(open_path(uri)):
        raise CorruptDatabaseError(uri, "receipts.lance", f"receipt {lost} is missing")


def check_still_migrated(uri: str) -> None:
    """The same before each write, in a tenth of a millisecond while nobody has migrated it."""
    table = find_table(uri, "migrations")
    if table is None or _right.get(uri) != table.version:
        check_migrated(uri)
        _right[uri] = 0 if table is None else int(table.version)


def run_migrations(uri: str) -> list[str]:
    """Brings an older database up to date; returns the ids of the steps taken.

    Raises:
        DatabaseNotFoundError: there is none.
        NewerDatabaseError: it is newer than this release.
    """
    uri = resolve_uri(uri)
    if not _read_applied(uri):
        raise DatabaseNotFoundError(uri)
    with WriteLock(uri).hold("migrate"):
        taken = apply_migrations(uri, read_pins(open_table(uri, "pairs")))
        keep_digests(uri)
        return taken


def is_made(uri: str) -> bool:
    """Whether there is a database, of this release or another; one cut short in the making is none.

    Made is what has all steps that this release knows, or holds something.
    """
    applied = _read_applied(uri).keys()
    missing = {step.id for step in find_migrations()} - applied
    return bool(applied) and (not missing or _holds_rows(uri))


def make_tables(uri: str, pins: Pins) -> None:
    """Makes a new database under the caller's lock, or the rest of one that was cut short.

    The encoders of the latter stay, whatever the pins are.
    """
    begun = bool(_read_applied(uri))
    apply_migrations(uri, read_pins(open_table(uri, "pairs")) if begun else pins)


def _holds_rows(uri: str) -> bool:
    tables = (find_table(uri, table.name) for table in TABLES if table.name not in _OF_MAKING)
    return any(table is not None and table.count_rows() > 0 for table in tables)


def apply_migrations(uri: str, pins: Pins) -> list[str]:
    """Takes the pending steps under the caller's lock; a new database has all of them pending."""
    known = find_migrations()
    pending = _find_pending(uri, known) if _read_applied(uri) else known
    values = {side: asdict(pin) for side, pin in pins.items()}
    for step in track("migrations", pending):
        with storage_errors(uri):
            with committing(uri):
                step.up(uri, values)
            _record(uri, step)
    return [step.id for step in pending]


def _find_pending(uri: str, known: list[Migration]) -> list[Migration]:
    applied = _read_applied(uri)
    if not applied:
        raise DatabaseNotFoundError(uri)
    hashes = {step.id: step.hash for step in known}
    unknown = sorted(applied.keys() - hashes.keys())
    if unknown:
        raise NewerDatabaseError(uri, tuple(unknown))
    for name, digest in applied.items():
        if digest != hashes[name]:
            raise DatabaseError(
                f"{uri}: migration {name} is not the one that this database went through; "
                "install an unmodified asif-lance"
            )
    return [step for step in known if step.id not in applied]


def _read_applied(uri: str) -> dict[str, str]:
    """The hashes of the steps that the database went through, by id."""
    table = find_table(uri, "migrations")
    if table is None:
        return {}
    with storage_errors(uri):
        return {row["id"]: row["hash"] for row in table.to_table().to_pylist()}


def _record(uri: str, step: Migration) -> None:
    row = {"id": step.id, "hash": step.hash, "applied_at": datetime.now(UTC)}
    rows = pa.Table.from_pylist([row], schema=MIGRATIONS)
    table = find_table(uri, "migrations")
    with committing(uri):
        if table is None:
            lance.write_dataset(rows, table_uri(uri, "migrations"), data_storage_version="2.2")
        else:
            lance.write_dataset(rows, table, mode="append")
