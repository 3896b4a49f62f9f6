"""Reads embeddings of queries and labels from Parquet files; no encoder is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from asif_lance.errors import InputError
from asif_lance.records import Float32Array


def read_vectors(path: Path, key: str = "id") -> tuple[list[str], Float32Array]:
    """Ids and their (m, d) float32 vectors out of a Parquet file.

    Raises:
        InputError: not Parquet, a column missing or empty, or rows of different lengths.
    """
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"cannot read {path} as Parquet: {_first_line(error)}") from error
    missing = [c for c in (key, "vector") if c not in frame.columns]
    if missing:
        found = ", ".join(frame.columns) or "none"
        raise InputError(f"{path} has no column {missing[0]!r}; its columns: {found}")
    return frame[key].cast(pl.String).to_list(), _matrix(frame["vector"], path)


def read_label_vectors(path: Path) -> dict[str, Float32Array]:
    """Label -> (prompts, d) float32; a label on several rows has several prompts.

    Raises:
        InputError: as `read_vectors`.
    """
    labels, matrix = read_vectors(path, key="label")
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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
