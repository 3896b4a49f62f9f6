"""Recorded predictions: runs of `classify --record`, what was said, and which pairs said it."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa

_TIME = pa.timestamp("us", "UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


TABLES = {
    "runs": pa.schema(
        [
            _required("run_id", pa.string()),
            _required("created_at", _TIME),
            _required("model", pa.string()),
            _required("recipe", pa.string()),
            _required("label_set", pa.string()),
            _required("labels", pa.int64()),
            _required("predictions", pa.int64()),
        ]
    ),
    "predictions": pa.schema(
        [
            _required("prediction_id", pa.string()),
            _required("run_id", pa.string()),
            _required("image", pa.string()),
            _required("model", pa.string()),
            _required("label_set", pa.string()),
            _required("label", pa.string()),
            _required("rank", pa.int64()),
            _required("score", pa.float64()),
            _required("coverage", pa.float64()),
            pa.field("truth", pa.string()),
            _required("k", pa.string()),
            _required("p", pa.string()),
            _required("created_at", _TIME),
        ]
    ),
    "attributions": pa.schema(
        [
            _required("prediction_id", pa.string()),
            _required("label", pa.string()),
            _required("pair_id", pa.string()),
            _required("image_similarity", pa.float32()),
            _required("text_similarity", pa.float32()),
            _required("contribution", pa.float64()),
            _required("rank", pa.int64()),
        ]
    ),
}


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty tables; an interrupted first try may have made some already."""
    for name, schema in TABLES.items():
        path = f"{uri}/{name}.lance"
        try:
            lance.dataset(path)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            lance.write_dataset(schema.empty_table(), path, data_storage_version="2.2")
