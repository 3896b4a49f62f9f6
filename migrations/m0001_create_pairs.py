"""The first layout: pairs, the model versions that users name, and what ingests refused."""

from __future__ import annotations

import json
from collections.abc import Mapping

import lance
import pyarrow as pa

KEY = {"lance-schema:unenforced-primary-key": "true"}
UTC = pa.timestamp("us", "UTC")

VERSIONS = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("number", pa.int64(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("command", pa.string(), nullable=False),
        pa.field("created_at", UTC, nullable=False),
        pa.field("pairs", pa.int64(), nullable=False),
        pa.field("added", pa.int64(), nullable=False),
        pa.field("removed", pa.int64(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
    ]
)

REJECTS = pa.schema(
    [
        pa.field("ingest_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("created_at", UTC, nullable=False),
    ]
)


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty tables; `pins` names the encoders of the sides `image` and `text`."""
    _make(uri, "versions", VERSIONS)
    _make(uri, "rejects", REJECTS)
    _make(uri, "pairs", _pairs(pins))


def _pairs(pins: Mapping[str, Mapping[str, object]]) -> pa.Schema:
    return pa.schema(
        [
            pa.field("pair_id", pa.string(), nullable=False, metadata=KEY),
            pa.field("caption", pa.string(), nullable=False),
            pa.field("image_uri", pa.string()),
            pa.field("image_sha256", pa.string()),
            pa.field("source", pa.string()),
            pa.field("license", pa.string()),
            pa.field("attributes", pa.string()),
            pa.field("thumbnail", pa.binary()),
            pa.field("image_vector", _vector(pins["image"]), nullable=False),
            pa.field("text_vector", _vector(pins["text"]), nullable=False),
            pa.field("ingested_at", UTC, nullable=False),
        ],
        metadata={f"asif.{side}_encoder": json.dumps(dict(pin)) for side, pin in pins.items()},
    )


def _vector(pin: Mapping[str, object]) -> pa.DataType:
    return pa.list_(pa.float16(), int(str(pin["dimension"])))


def _make(uri: str, table: str, schema: pa.Schema) -> None:
    """An interrupted first try may have left the table, still empty: it is made anew."""
    path = f"{uri}/{table}.lance"
    try:
        lance.dataset(path)
    except ValueError as error:
        if "was not found" not in str(error):
            raise
        mode = "create"
    else:
        mode = "overwrite"
    lance.write_dataset(schema.empty_table(), path, mode=mode, data_storage_version="2.2")
