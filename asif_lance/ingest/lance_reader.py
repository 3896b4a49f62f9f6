"""Lance tables, and LanceDB databases with one table or a table `pairs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lance
import polars as pl
import pyarrow as pa

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.columns import ColumnNames, SourceBatch
from asif_lance.ingest.parquet_reader import read_frames
from asif_lance.object_files import is_folder, is_object, lance_address, list_folder

# Rows with pictures are read so many at a time: nobody knows how large they are.
_ROWS, _ROWS_WITH_PICTURES = 1024, 32

_PAIRS = "pairs"

# What reading a damaged table raises.
_DAMAGE = (ValueError, OSError, RuntimeError, pa.ArrowException, pl.exceptions.PolarsError)


def is_lance(folder: Path) -> bool:
    """Whether a folder is a Lance table or a database of some."""
    return is_folder(folder / "_versions") or any(_tables(folder))


def read_lance(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """The rows of a table, with columns as of a Parquet file.

    Of a database of models it is the newest model's.
    """
    table = find_only_table(path)
    name = printable(str(table))
    try:
        dataset = lance.dataset(lance_address(table))
        if "latest" in dataset.tags.list():  # an ingest that was killed may have left more
            dataset = dataset.checkout_version("latest")
        kept = [field for field in dataset.schema if not _is_blob(field)]
        empty = pl.DataFrame(pl.from_arrow(pa.schema(kept).empty_table()))
        rows = _ROWS_WITH_PICTURES if _has_pictures(kept) else _ROWS
        batches = dataset.to_batches(columns=[field.name for field in kept], batch_size=rows)
        frames = (pl.DataFrame(pl.from_arrow(batch)) for batch in batches)
        yield from read_frames(name, empty.schema, frames, batch_size, known)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = printable((str(error).splitlines() or ["no reason given"])[0])
        raise SourceError(f"{name} is not a readable Lance table: {reason}") from error


def _tables(folder: Path) -> Iterator[Path]:
    found = list_folder(folder)[0] if is_object(folder) else folder.glob("*.lance")
    return (one for one in found if one.suffix == ".lance" and is_folder(one / "_versions"))


def find_only_table(folder: Path) -> Path:
    """The table that a folder is, or the only one or the one of pairs in it.

    Raises:
        SourceError: there are several, or none.
    """
    if is_folder(folder / "_versions"):
        return folder
    tables = sorted(_tables(folder))
    pairs = folder / f"{_PAIRS}.lance"
    if len(tables) == 1 or pairs in tables:
        return pairs if pairs in tables else tables[0]
    names = ", ".join(printable(table.name) for table in tables)
    shown = printable(str(folder))
    if not tables:
        raise SourceError(f"{shown} is no Lance table and has none")
    raise SourceError(f"{shown} has several tables: name one of {names}")


def _is_blob(field: pa.Field) -> bool:
    """Whether a column's bytes are stored apart; reading it gives only where they are."""
    return bool(field.metadata) and b"lance-encoding:blob" in field.metadata


def _has_pictures(fields: list[pa.Field]) -> bool:
    return any("binary" in str(field.type) for field in fields)
