"""Today's Arrow schemas, and the migrations that bring a database to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import lancedb
import pyarrow as pa

from asif_lance.errors import (
    DatabaseError,
    DatabaseNotFoundError,
    MigrationNeededError,
    NewerDatabaseError,
)
from asif_lance.records import EncoderPin

PAIRS = "pairs"
REJECTS = "rejects"
MIGRATIONS = "migrations"

MIGRATIONS_SCHEMA = pa.schema(
    [
        pa.field("migration_id", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("applied_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


def pairs_schema(image_dimension: int, text_dimension: int) -> pa.Schema:
    """The pairs table: one row per image-text pair, vectors of unit length in float16."""
    return pa.schema(
        [
            pa.field("pair_id", pa.string(), nullable=False),
            ("caption", pa.string()),
            ("image_uri", pa.string()),
            ("image_sha256", pa.string()),
            ("source", pa.string()),
            ("license", pa.string()),
            ("attributes", pa.string()),
            ("thumbnail", pa.binary()),
            pa.field("image_vector", pa.list_(pa.float16(), image_dimension), nullable=False),
            pa.field("text_vector", pa.list_(pa.float16(), text_dimension), nullable=False),
            pa.field("ingested_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ]
    )


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: a module `mNNNN_name` with `up(connection, image, text)`."""

    name: str
    sha256: str
    module: ModuleType

    @property
    def up(self) -> Callable[[Any, EncoderPin, EncoderPin], None]:
        """Apply the step; safe to run again after an interruption."""
        step: Callable[[Any, EncoderPin, EncoderPin], None] = self.module.up
        return step


def known_migrations() -> list[Migration]:
    """All steps of this release, in order."""
    package = import_module("asif_lance.migrations")
    names = sorted(m.name for m in iter_modules(package.__path__) if m.name.startswith("m"))
    return [_migration(name) for name in names]


def applied_migrations(connection: Any) -> dict[str, str]:
    """Steps that a database records: id -> sha256 of the step's source."""
    if MIGRATIONS not in connection.list_tables().tables:
        return {}
    rows = connection.open_table(MIGRATIONS).to_arrow().to_pylist()
    return {row["migration_id"]: row["sha256"] for row in rows}


def check(uri: str, connection: Any) -> None:
    """Refuse a database that this release cannot use as it is.

    Raises:
        DatabaseNotFoundError, MigrationNeededError, NewerDatabaseError: as they say.
        DatabaseError: a recorded step is not the one that this release knows.
    """
    applied = applied_migrations(connection)
    if not applied:
        raise DatabaseNotFoundError(uri)
    known = {m.name: m.sha256 for m in known_migrations()}
    if unknown := tuple(sorted(applied.keys() - known.keys())):
        raise NewerDatabaseError(uri, unknown)
    changed = sorted(name for name, sha in applied.items() if sha != known[name])
    if changed:
        raise DatabaseError(f"{uri}: migration {changed[0]} differs from the one that was applied")
    if pending := tuple(sorted(known.keys() - applied.keys())):
        raise MigrationNeededError(uri, pending)


def apply(connection: Any, image: EncoderPin, text: EncoderPin) -> list[str]:
    """Run the steps that are missing, recording each after it is done.

    A step that was interrupted before its record is run again, so every step must bear that.
    """
    applied = applied_migrations(connection)
    done = []
    for migration in known_migrations():
        if migration.name not in applied:
            migration.up(connection, image, text)
            _record(connection, migration)
            done.append(migration.name)
    return done


def migrate(uri: str) -> list[str]:
    """Bring an existing database to this release; returns the steps that were applied.

    Raises:
        DatabaseNotFoundError, NewerDatabaseError, DatabaseError: as `check`.
    """
    if not exists(uri):
        raise DatabaseNotFoundError(uri)
    connection = lancedb.connect(uri)
    try:
        check(uri, connection)
    except MigrationNeededError:
        table = connection.open_table(PAIRS)
        return apply(connection, *pins(table.schema.metadata))
    return []


def exists(uri: str) -> bool:
    """Whether something is at a local path; an object store is asked by opening it."""
    return "://" in uri or Path(uri).is_dir()


def pins(metadata: dict[bytes, bytes] | None) -> tuple[EncoderPin, EncoderPin]:
    """The encoders that a pairs table's metadata pins: (image, text)."""
    image, text = (_pin(metadata or {}, side) for side in ("image", "text"))
    return image, text


def _pin(metadata: dict[bytes, bytes], side: str) -> EncoderPin:
    def value(what: str) -> str:
        return metadata[f"asif_lance.{side}.{what}".encode()].decode()

    return EncoderPin(value("name"), value("revision"), int(value("dimension")))


def _migration(name: str) -> Migration:
    module = import_module(f"asif_lance.migrations.{name}")
    source = Path(module.__file__ or "").read_bytes()
    return Migration(name, hashlib.sha256(source).hexdigest(), module)


def _record(connection: Any, migration: Migration) -> None:
    row = pa.Table.from_pylist(
        [
            {
                "migration_id": migration.name,
                "sha256": migration.sha256,
                "applied_at": datetime.now(UTC),
            }
        ],
        schema=MIGRATIONS_SCHEMA,
    )
    connection.create_table(MIGRATIONS, schema=MIGRATIONS_SCHEMA, exist_ok=True).add(row)
