"""Digests of files, when they were compared, and proofs that forgetting left nothing."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

_TIME = pa.timestamp("us", "UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


TABLES = {
    "digests": pa.schema(
        [
            _required("file", pa.string()),
            _required("bytes", pa.int64()),
            _required("key", pa.binary()),
            _required("digest", pa.binary()),
        ]
    ),
    "checks": pa.schema(
        [
            _required("checked_at", _TIME),
            _required("files", pa.int64()),
            _required("bytes", pa.int64()),
            _required("damaged", pa.int64()),
            _required("unknown", pa.int64()),
        ]
    ),
    "proofs": pa.schema(
        [
            _required("receipt_id", pa.string()),
            _required("proved_at", _TIME),
            _required("versions", pa.list_(pa.string())),
            _required("different", pa.list_(pa.string())),
            _required("pairs", pa.int64()),
            _required("queries", pa.int64()),
            _required("recipes", pa.list_(pa.string())),
            _required("seed", pa.int64()),
            _required("digest", pa.string()),
        ]
    ),
}


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty tables; an interrupted first try may have made one already."""
    for name, schema in TABLES.items():
        path = f"{uri}/{name}.lance"
        try:
            lance.dataset(path)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            lance.write_dataset(schema.empty_table(), path, data_storage_version="2.2")
