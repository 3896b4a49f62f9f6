"""Reads embeddings of queries and labels from Parquet files; no encoder is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from asif_lance.encoders.parquet_files import ParquetRows, UnreadableRows
from asif_lance.errors import InputError, SourceError
from asif_lance.records import Float32Array

# Rows that are read at once.
_MOST_ROWS = 100_000


def read_vectors(path: Path, key: str = "id") -> tuple[list[str], Float32Array]:
    """Ids and their (m, d) float32 vectors out of a Parquet file.

    Raises:
        InputError: not Parquet, a column missing or empty, or rows of different lengths.
    """
    frame = _read_columns(path, (key, "vector"))
    return frame[key].cast(pl.String).to_list(), _matrix(frame["vector"], path)


def read_label_vectors(path: Path) -> dict[str, Float32Array]:
    """Label -> (prompts, d) float32; a label on several rows has several prompts.

    Blanks around a label are no part of it.

    Raises:
        InputError: as `read_vectors`.
    """
    found, matrix = read_vectors(path, key="label")
    labels = [label if label is None else label.strip() for label in found]
    names = dict.fromkeys(labels)
    owner = np.array(labels, dtype=object)
    return {name: matrix[owner == name] for name in names}


def _matrix(column: pl.Series, path: Path) -> Float32Array:
    if not isinstance(column.dtype, pl.List | pl.Array):
        raise InputError(f"{path}: column 'vector' holds {column.dtype}, not lists of numbers")
    if not len(column):
        raise InputError(f"{path} has no rows")
    lists = column.cast(pl.List(pl.Float32))
    lengths = lists.list.len()
    if lists.null_count() or lengths.n_unique() != 1:
        raise InputError(f"{path}: the vectors differ in length or some are missing")
    flat = lists.explode().to_numpy()
    return np.ascontiguousarray(flat.reshape(len(lists), -1), dtype=np.float32)


def _read_columns(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    try:
        file = ParquetRows(path)
    except SourceError as error:
        raise InputError(f"cannot read {path} as Parquet: {error}") from error
    missing = [column for column in columns if column not in file.schema]
    if missing:
        found = ", ".join(file.names) or "none"
        raise InputError(f"{path} has no column {missing[0]!r}; its columns: {found}")
    frames = [pl.DataFrame(schema={name: file.schema[name] for name in columns})]
    for piece in file.pieces(columns, most_rows=_MOST_ROWS):
        if isinstance(piece, UnreadableRows):
            raise InputError(f"cannot read {path} as Parquet: {piece}: {piece.reason}")
        frames.append(piece[1].select(columns))
    return pl.concat(frames)
