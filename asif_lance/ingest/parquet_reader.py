"""Parquet files and tables as batches with the columns of every source, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.errors import SourceError
from asif_lance.ingest.columns import SCHEMA, VECTORS, Columns, SourceBatch, sniff_columns

_ROW = "\0row"  # no column of a file has this name


def read_parquet(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """Parquet, a batch at a time; images as paths, bytes or `struct<bytes, path>`.

    Other binary columns and other fixed-size vectors do not become attributes.
    """
    try:
        file, row = pq.ParquetFile(path), 1
        columns = sniff_columns(str(path), file.schema_arrow.names)
        for batch in file.iter_batches(batch_size):
            raw = pl.DataFrame(pl.from_arrow(batch)).with_row_index(_ROW, row)
            yield SourceBatch(raw.select(_parquet_columns(path, columns, raw.schema)), [])
            row += batch.num_rows
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{path} is not readable Parquet: {reason}") from error


def read_frame(name: str, frame: pl.DataFrame, batch_size: int) -> Iterator[SourceBatch]:
    """The same of a table in memory, which has a name instead of a path."""
    columns = sniff_columns(name, frame.columns)
    for raw in frame.with_row_index(_ROW, 1).iter_slices(batch_size):
        yield SourceBatch(raw.select(_parquet_columns(Path(name), columns, raw.schema)), [])


def _parquet_columns(path: Path, columns: Columns, schema: pl.Schema) -> list[pl.Expr]:
    item = pl.format("row {}", _ROW).alias("item")
    texts = [
        _text_column(path, schema, getattr(columns, name)).alias(name)
        for name in ("pair_id", "caption", "license", "source")
    ]
    vectors = [_vector_column(path, schema, getattr(columns, name)).alias(name) for name in VECTORS]
    images = _image_columns(path, columns, schema)
    return [item, *texts[:2], *images, *texts[2:], _attribute_column(columns, schema), *vectors]


def _text_column(path: Path, schema: pl.Schema, name: str | None) -> pl.Expr:
    if name is None:
        return pl.lit(None, pl.String)
    if schema[name].is_nested() or schema[name] == pl.Binary:
        raise SourceError(f"{path}: column {name!r} holds {schema[name]}, not text")
    return pl.col(name).cast(pl.String)


def _vector_column(path: Path, schema: pl.Schema, name: str | None) -> pl.Expr:
    if name is None:
        return pl.lit(None, SCHEMA["image_vector"])
    dtype = schema[name]
    if not isinstance(dtype, pl.List | pl.Array) or not dtype.inner.is_numeric():
        raise SourceError(f"{path}: column {name!r} holds {dtype}, not vectors")
    return pl.col(name).cast(SCHEMA["image_vector"])


def _image_columns(path: Path, columns: Columns, schema: pl.Schema) -> list[pl.Expr]:
    """`image_path`, `image_bytes` and `image_uri`; bytes without a name are found by their row."""
    name, given = columns.image, _text_column(path, schema, columns.image_uri)
    content: pl.Expr = pl.lit(None, pl.Binary)
    location = pl.lit(None, pl.String)
    dtype = schema[name] if name is not None else None
    if name is not None and isinstance(dtype, pl.Struct):
        fields = {field.name: field.dtype for field in dtype.fields}
        if fields.get("bytes") != pl.Binary:
            raise SourceError(f"{path}: column {name!r} holds {dtype}, not images")
        content = pl.col(name).struct.field("bytes")
        if "path" in fields:
            location = pl.col(name).struct.field("path").cast(pl.String)
    elif name is not None and dtype == pl.Binary:
        content = pl.col(name)
    else:
        location = _text_column(path, schema, name)
    inside = content.is_not_null()
    row_uri = pl.when(inside).then(pl.format("{}#row {}", pl.lit(str(path.resolve())), _ROW))
    return [
        pl.when(~inside).then(location).alias("image_path"),
        content.alias("image_bytes"),
        pl.coalesce(given, pl.when(inside).then(location), row_uri).alias("image_uri"),
    ]


def _attribute_column(columns: Columns, schema: pl.Schema) -> pl.Expr:
    kept = [
        name
        for name in columns.others(schema.names())
        if name != _ROW
        and not isinstance(schema[name], pl.Array)
        and "Binary" not in str(schema[name])
    ]
    encoded = pl.struct(kept).struct.json_encode() if kept else pl.lit("{}")
    return encoded.alias("attributes")
