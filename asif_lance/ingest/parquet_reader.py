"""Parquet files and tables as batches with the columns of every source, column by column."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from asif_lance.encoders import PARQUET_DAMAGE, PIECE_BYTES, ParquetRows, UnreadableRows, first_line
from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import as_json, unfold
from asif_lance.ingest.class_names import class_columns, read_features, replace_codes
from asif_lance.ingest.columns import (
    SCHEMA,
    VECTORS,
    ColumnNames,
    Columns,
    SourceBatch,
    sniff_columns,
    spelling,
)
from asif_lance.object_files import is_object
from asif_lance.records import Reject

# Rows of a batch, and of one whose pictures need not be hashed and encoded.
_ROWS, _ROWS_WITH_VECTORS = 1024, 16_384

_ROW = "\0row"  # no column of a file has this name
_TEXT = "\0text"  # which of several texts of a row it is
_ITEM = "\0item"


def read_parquet(
    path: Path,
    batch_size: int | None,
    known: ColumnNames,
    groups: tuple[int, int] | None = None,
) -> Iterator[SourceBatch]:
    """Parquet, a batch at a time; images as paths, bytes or `struct<bytes, path>`.

    Other binary columns and other fixed-size vectors do not become attributes. Numbers for which
    the datasets library noted names in the file are read as these. A row with a list of captions
    is a pair of each. With `groups`, only those of these row groups.
    """
    name, file = printable(str(path)), ParquetRows(path)
    features = read_features(file.metadata)
    known = _with_class_column(known, file.names, class_columns(features))
    columns = sniff_columns(name, file.names, known, _picture_columns(file.schema))
    batch_size = batch_size or _usual_rows(columns)
    for column in columns.names - set(file.schema):
        raise SourceError(f"{name}: column {column!r} holds what cannot be read")
    used = [c for c in file.schema if c in columns.names or _is_attribute(file.schema[c])]

    def convert(first: int, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        raw = replace_codes(rows, features).with_row_index(_ROW, first)
        return _converted(name, columns, known, raw, batch_size)

    for piece in file.pieces(used, batch_size, groups):
        yield from _batches_of(name, piece, convert)


def read_frame(
    name: str, frame: pl.DataFrame, batch_size: int | None, known: ColumnNames
) -> Iterator[SourceBatch]:
    """The same of a table in memory, which has a name instead of a path."""
    return read_frames(name, frame.schema, [frame], batch_size, known)


def read_frames(
    name: str,
    schema: pl.Schema,
    frames: Iterable[pl.DataFrame],
    batch_size: int | None,
    known: ColumnNames,
) -> Iterator[SourceBatch]:
    """The same of a table that comes in parts, all with one schema."""
    columns = sniff_columns(name, schema.names(), known, _picture_columns(schema))
    batch_size, first = batch_size or _usual_rows(columns), 1
    for frame in frames:
        for raw in frame.with_row_index(_ROW, first).iter_slices(batch_size):
            for converted in _converted(name, columns, known, raw, batch_size):
                yield SourceBatch(converted, [])
        first += len(frame)


def read_column_classes(path: Path, known: ColumnNames) -> tuple[str, ...]:
    """The names that the numbers of a Parquet file's text column stand for; none if it has none.

    Raises:
        SourceError: as for `read_source`.
    """
    file = ParquetRows(path)
    classes = class_columns(read_features(file.metadata))
    known = _with_class_column(known, file.names, classes)
    columns = sniff_columns(printable(str(path)), file.names, known)
    return tuple(classes.get(columns.caption or "", ()))


def _usual_rows(columns: Columns) -> int:
    return _ROWS if columns.image_vector is None else _ROWS_WITH_VECTORS


def _with_class_column(
    known: ColumnNames, names: Sequence[str], classes: Collection[str]
) -> ColumnNames:
    """In labelled pictures without a label's column, the only column of classes is it."""
    present = set(map(spelling, names))
    if known.several or len(classes) != 1 or present & set(known.caption):
        return known
    return replace(known, caption=tuple(map(spelling, classes)))


def _picture_columns(schema: pl.Schema) -> list[str]:
    """The columns that hold pictures themselves."""
    bytes_field = pl.Field("bytes", pl.Binary)
    return [
        name
        for name, dtype in schema.items()
        if dtype == pl.Binary or (isinstance(dtype, pl.Struct) and bytes_field in dtype.fields)
    ]


def _batches_of(
    name: str,
    piece: tuple[int, pl.DataFrame] | UnreadableRows,
    convert: Callable[[int, pl.DataFrame], Iterator[pl.DataFrame]],
) -> Iterator[SourceBatch]:
    if not isinstance(piece, UnreadableRows):
        first, rows = piece
        try:
            for converted in convert(first, rows):
                yield SourceBatch(converted, [])
        except PARQUET_DAMAGE as error:
            piece = UnreadableRows(first, first + len(rows) - 1, first_line(error))
    if isinstance(piece, UnreadableRows):
        yield SourceBatch(pl.DataFrame(schema=SCHEMA), [Reject(name, str(piece), piece.reason)])


def _converted(
    name: str, columns: Columns, known: ColumnNames, raw: pl.DataFrame, batch_size: int
) -> Iterator[pl.DataFrame]:
    """Rows with the columns of `SCHEMA`."""
    item = pl.format("row {}", _ROW)
    caption = columns.caption
    if known.several and caption is not None and isinstance(raw.schema[caption], pl.Array):
        raw = raw.with_columns(pl.col(caption).arr.to_list())
    if known.several and caption is not None and isinstance(raw.schema[caption], pl.List):
        batch_size = min(batch_size, _rows_at_once(raw, columns.image))
        texts = pl.when(pl.col(caption).list.len() > 0).then(pl.col(caption))
        raw = raw.with_columns(texts.alias(caption)).explode(caption)
        raw = raw.with_columns((pl.int_range(pl.len()).over(_ROW) + 1).alias(_TEXT))
        nth = pl.format(", caption {}", _TEXT)
        item += pl.when(pl.len().over(_ROW) > 1).then(nth).otherwise(pl.lit(""))
    for rows in raw.with_columns(item.alias(_ITEM)).iter_slices(batch_size):
        yield rows.select(pl.col(_ITEM).alias("item"), *_parquet_columns(name, columns, raw.schema))


def _rows_at_once(raw: pl.DataFrame, image: str | None) -> int:
    """How many rows fit into memory if each is as large as the largest: texts may repeat it."""
    content = raw[image] if image is not None else pl.Series([], dtype=pl.Binary)
    if isinstance(content.dtype, pl.Struct):
        content = content.struct.field("bytes")
    sizes = content.bin.size() if content.dtype == pl.Binary else pl.Series([], dtype=pl.UInt32)
    others = max(int(raw.estimated_size()) - int(sizes.sum()), 0)
    return max(4 * PIECE_BYTES // (int(sizes.max() or 0) + others + 1), 1)  # type: ignore[arg-type]


def _parquet_columns(name: str, columns: Columns, schema: pl.Schema) -> list[pl.Expr]:
    texts = [
        _text_column(name, schema, getattr(columns, column)).alias(column)
        for column in ("pair_id", "caption", "license", "source")
    ]
    row_id = texts[0].alias("row_id")
    if _TEXT in schema and columns.pair_id is not None:  # each caption's pair needs its own id
        again = pl.when(pl.col(_TEXT) > 1).then(pl.format("#{}", _TEXT)).otherwise(pl.lit(""))
        texts[0] = (texts[0] + again).alias("pair_id")
    vectors = [_vector_column(name, schema, getattr(columns, side)).alias(side) for side in VECTORS]
    images = _image_columns(name, columns, schema)
    return [*texts[:2], row_id, *images, *texts[2:], _attribute_column(columns, schema), *vectors]


def _text_column(source: str, schema: pl.Schema, name: str | None) -> pl.Expr:
    if name is None:
        return pl.lit(None, pl.String)
    dtype = schema[name]
    if dtype.is_nested() or dtype in (pl.Binary, pl.Boolean):
        raise SourceError(f"{source}: column {name!r} holds {dtype}, not text")
    value = pl.col(name).fill_nan(None) if dtype.is_float() else pl.col(name)
    return value.cast(pl.String)


def _vector_column(source: str, schema: pl.Schema, name: str | None) -> pl.Expr:
    if name is None:
        return pl.lit(None, SCHEMA["image_vector"])
    dtype = schema[name]
    if not isinstance(dtype, pl.List | pl.Array) or not dtype.inner.is_numeric():
        raise SourceError(f"{source}: column {name!r} holds {dtype}, not vectors")
    return pl.col(name).cast(SCHEMA["image_vector"])


def _place(source: str) -> str:
    return source if is_object(source) else str(Path(source).resolve())


def _image_columns(source: str, columns: Columns, schema: pl.Schema) -> list[pl.Expr]:
    """`image_path`, `image_bytes` and `image_uri`; bytes without a name are found by their row."""
    name, given = columns.image, _text_column(source, schema, columns.image_uri)
    content: pl.Expr = pl.lit(None, pl.Binary)
    location = pl.lit(None, pl.String)
    dtype = schema[name] if name is not None else None
    if name is not None and isinstance(dtype, pl.Struct):
        fields = {field.name: field.dtype for field in dtype.fields}
        if fields.get("bytes") != pl.Binary:
            raise SourceError(f"{source}: column {name!r} holds {dtype}, not images")
        content = pl.col(name).struct.field("bytes")
        if "path" in fields:
            location = pl.col(name).struct.field("path").cast(pl.String)
    elif name is not None and dtype == pl.Binary:
        content = pl.col(name)
    else:
        location = _text_column(source, schema, name)
    inside = content.is_not_null()
    row_uri = pl.when(inside).then(pl.format("{}#row {}", pl.lit(_place(source)), _ROW))
    return [
        pl.when(~inside).then(location).alias("image_path"),
        content.alias("image_bytes"),
        pl.coalesce(given, pl.when(inside).then(location), row_uri).alias("image_uri"),
    ]


def _attribute_column(columns: Columns, schema: pl.Schema) -> pl.Expr:
    kept = [
        name
        for name in columns.others(schema.names())
        if not name.startswith("\0") and _is_attribute(schema[name])
    ]
    encoded = pl.struct(kept).struct.json_encode() if kept else pl.lit("{}")
    if "attributes" in kept:
        encoded = encoded.map_elements(_unfold_text, return_dtype=pl.String)
    return encoded.alias("attributes")


def _unfold_text(attributes: str) -> str:
    return as_json(unfold(json.loads(attributes)))


def _is_attribute(dtype: pl.DataType) -> bool:
    return not isinstance(dtype, pl.Array) and "Binary" not in str(dtype)
