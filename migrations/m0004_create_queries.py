"""What recorded predictions were asked with, so that they can be asked again of imagined pairs."""

from __future__ import annotations

from collections.abc import Mapping

import lance
import pyarrow as pa


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def tables(image_dim: int, text_dim: int) -> dict[str, pa.Schema]:
    """The tables' schemas for vectors of these sizes."""
    return {
        "queries": pa.schema(
            [
                _required("prediction_id", pa.string()),
                _required("vector", pa.list_(pa.float32(), image_dim)),
                _required("neighbors", pa.int64()),
                _required("similarities", pa.list_(pa.float64())),
                _required("weight", pa.float64()),
                _required("labels", pa.list_(pa.int32())),
                _required("scores", pa.list_(pa.float64())),
            ]
        ),
        "prompts": pa.schema(
            [
                _required("run_id", pa.string()),
                _required("position", pa.int64()),
                _required("label", pa.string()),
                _required("ensemble", pa.string()),
                _required("pairs", pa.int64()),
                _required("vector", pa.list_(pa.float32(), text_dim)),
            ]
        ),
    }


def up(uri: str, pins: Mapping[str, Mapping[str, object]]) -> None:
    """Makes the empty tables; an interrupted first try may have made some already."""
    image_dim, text_dim = (int(str(pins[side]["dimension"])) for side in ("image", "text"))
    for name, schema in tables(image_dim, text_dim).items():
        path = f"{uri}/{name}.lance"
        try:
            lance.dataset(path)
        except ValueError as error:
            if "was not found" not in str(error):
                raise
            lance.write_dataset(schema.empty_table(), path, data_storage_version="2.2")
