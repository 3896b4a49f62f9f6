"""Arrow schemas of today's tables; finds, verifies and runs the migrations that lead to them.

Migrations are the modules `mNNNN_name` of `asif_lance.migrations`, each with `up(uri, pins)`.
The table `migrations` records each one that is done, with the hash of its source; that record is
written last, so a step cut short is simply run again: `up` must cope with its own leftovers.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module

import lance
import pyarrow as pa

from asif_lance.errors import (
    DatabaseError,
    DatabaseNotFoundError,
    DimensionError,
    EncoderMismatchError,
    MigrationNeededError,
    NewerDatabaseError,
)
from asif_lance.locks import WriteLock
from asif_lance.records import EncoderPin
from asif_lance.tables import find_table, location, open_table, storage_errors, table_uri

TIMESTAMP = pa.timestamp("us", "UTC")
SIDES = ("image", "text")
_KEY = {"lance-schema:unenforced-primary-key": "true"}

VERSIONS_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("command", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("added", pa.int64(), nullable=False),
        pa.field("removed", pa.int64(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
    ]
)

REJECTS_SCHEMA = pa.schema(
    [
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
    ]
)

RECEIPTS_SCHEMA = pa.schema(
    [
        pa.field("receipt_id", pa.string(), nullable=False),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("clean", pa.bool_(), nullable=False),
        pa.field("body", pa.string(), nullable=False),
    ]
)

#: Settings that tuning chose, see `tuned`; k and p of image and text side.
TUNED_SCHEMA = pa.schema(
    [
        pa.field("version", pa.string(), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),
        pa.field("k", pa.list_(pa.int64(), 2), nullable=False),
        pa.field("p", pa.list_(pa.float64(), 2), nullable=False),
        pa.field("ensemble", pa.string(), nullable=False),
        pa.field("top_1", pa.float64(), nullable=False),
        pa.field("pictures", pa.int64(), nullable=False),
        pa.field("comparisons", pa.int64(), nullable=False),
        pa.field("held_out", pa.float64()),
        pa.field("created_at", TIMESTAMP, nullable=False),
        pa.field("templates", pa.string()),
    ]
)

#: Recorded predictions, see `runs`. `k` and `p` are `800`, or `800,200` for image and text side;
#: `coverage` is the share of the score that the recorded attributions add up to.
RUN_SCHEMAS = {
    "runs": pa.schema(
        [
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("created_at", TIMESTAMP, nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("recipe", pa.string(), nullable=False),
            pa.field("label_set", pa.string(), nullable=False),
            pa.field("labels", pa.int64(), nullable=False),
            pa.field("predictions", pa.int64(), nullable=False),
            pa.field("templates", pa.string()),
        ]
    ),
    "predictions": pa.schema(
        [
            pa.field("prediction_id", pa.string(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("image", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("label_set", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("rank", pa.int64(), nullable=False),
            pa.field("score", pa.float64(), nullable=False),
            pa.field("coverage", pa.float64(), nullable=False),
            pa.field("truth", pa.string()),
            pa.field("k", pa.string(), nullable=False),
            pa.field("p", pa.string(), nullable=False),
            pa.field("created_at", TIMESTAMP, nullable=False),
        ]
    ),
    "attributions": pa.schema(
        [
            pa.field("prediction_id", pa.string(), nullable=False),
            pa.field("label", pa.string(), nullable=False),
            pa.field("pair_id", pa.string(), nullable=False),
            pa.field("image_similarity", pa.float32(), nullable=False),
            pa.field("text_similarity", pa.float32(), nullable=False),
            pa.field("contribution", pa.float64(), nullable=False),
            pa.field("rank", pa.int64(), nullable=False),
        ]
    ),
}

MIGRATIONS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),
        pa.field("applied_at", TIMESTAMP, nullable=False),
    ]
)

Pins = Mapping[str, EncoderPin]


def pairs_schema(image_dim: int, text_dim: int) -> pa.Schema:
    """The pairs table, without the pins that its metadata holds.

    `pair_id` is the primary key (Lance keeps concurrent inserts apart by it); `attributes` is a
    JSON object as text, which DuckDB queries as `attributes->>'key'`; vectors are L2-normalised.
    """
    return pa.schema(
        [
            pa.field("pair_id", pa.string(), nullable=False, metadata=_KEY),
            pa.field("caption", pa.string(), nullable=False),
            pa.field("image_uri", pa.string()),
            pa.field("image_sha256", pa.string()),
            pa.field("source", pa.string()),
            pa.field("license", pa.string()),
            pa.field("attributes", pa.string()),
            pa.field("thumbnail", pa.binary()),
            pa.field("image_vector", pa.list_(pa.float16(), image_dim), nullable=False),
            pa.field("text_vector", pa.list_(pa.float16(), text_dim), nullable=False),
            pa.field("ingested_at", TIMESTAMP, nullable=False),
        ]
    )


def read_pins(pairs: lance.LanceDataset) -> dict[str, EncoderPin]:
    """The encoders that a pairs table's metadata names, by side; empty if it is not ours."""
    metadata = pairs.schema.metadata or {}
    keys = {side: f"asif.{side}_encoder".encode() for side in SIDES}
    return {
        side: EncoderPin(**json.loads(metadata[k])) for side, k in keys.items() if k in metadata
    }


def check_pin(side: str, pinned: EncoderPin, given: EncoderPin) -> None:
    """Passes when the given encoder made the vectors that are there.

    An empty revision, on either side, is unknown and fits any.

    Raises:
        EncoderMismatchError: another encoder or another revision of it.
        DimensionError: the same encoder with vectors of another size.
    """
    revisions = {pinned.revision, given.revision} - {""}
    if pinned.name != given.name or len(revisions) > 1:
        raise EncoderMismatchError(side, _spelled(pinned), _spelled(given))
    if pinned.dimension != given.dimension:
        raise DimensionError(f"{side} vectors", pinned.dimension, given.dimension)


def _spelled(pin: EncoderPin) -> str:
    return f"{pin.name}@{pin.revision}" if pin.revision else pin.name


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: its module's name, the sha256 of its source, and what it does."""

    id: str
    hash: str
    up: Callable[[str, Mapping[str, Mapping[str, object]]], None]


def known_migrations() -> list[Migration]:
    """The steps that this release brings along, in order."""
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
    """
    pending = _pending(uri, known_migrations())
    if pending:
        raise MigrationNeededError(uri, tuple(step.id for step in pending))


def migrate(uri: str) -> list[str]:
    """Brings an older database up to date; returns the ids of the steps taken.

    Raises:
        DatabaseNotFoundError: there is none.
        NewerDatabaseError: it is newer than this release.
    """
    uri = location(uri)
    if not _applied(uri):
        raise DatabaseNotFoundError(uri)
    with WriteLock(uri).hold("migrate"):
        return apply_migrations(uri, read_pins(open_table(uri, "pairs")))


def apply_migrations(uri: str, pins: Pins) -> list[str]:
    """Takes the pending steps under the caller's lock; a new database has all of them pending."""
    known = known_migrations()
    pending = _pending(uri, known) if _applied(uri) else known
    values = {side: asdict(pin) for side, pin in pins.items()}
    for step in pending:
        with storage_errors(uri):
            step.up(uri, values)
            _record(uri, step)
    return [step.id for step in pending]


def _pending(uri: str, known: list[Migration]) -> list[Migration]:
    applied = _applied(uri)
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


def _applied(uri: str) -> dict[str, str]:
    """The hashes of the steps that the database went through, by id."""
    table = find_table(uri, "migrations")
    if table is None:
        return {}
    with storage_errors(uri):
        return {row["id"]: row["hash"] for row in table.to_table().to_pylist()}


def _record(uri: str, step: Migration) -> None:
    row = {"id": step.id, "hash": step.hash, "applied_at": datetime.now(UTC)}
    rows = pa.Table.from_pylist([row], schema=MIGRATIONS_SCHEMA)
    table = find_table(uri, "migrations")
    if table is None:
        lance.write_dataset(rows, table_uri(uri, "migrations"), data_storage_version="2.2")
    else:
        lance.write_dataset(rows, table, mode="append")
