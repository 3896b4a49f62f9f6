"""Reads image-text pairs from folders, CSV, JSON, Parquet and tables in memory.

Items that cannot be used become rejects with a reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import polars as pl

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import is_text
from asif_lance.ingest.columns import PAIR_COLUMNS, SCHEMA, VECTORS, ColumnNames, SourceBatch
from asif_lance.ingest.csv_reader import read_csv
from asif_lance.ingest.folder_reader import read_folder
from asif_lance.ingest.formats import NAMES, format_by_name, format_of
from asif_lance.ingest.json_reader import read_json, read_jsonl
from asif_lance.ingest.parquet_reader import read_frame, read_parquet
from asif_lance.ingest.vector_columns import valid_vectors
from asif_lance.records import Reject

__all__ = ["FORMATS", "MAX_CAPTION", "SCHEMA", "SourceBatch", "read_source"]

MAX_CAPTION = 100_000
FORMATS = {
    "folder": read_folder,
    "csv": read_csv,
    "tsv": read_csv,
    "jsonl": read_jsonl,
    "json": read_json,
    "parquet": read_parquet,
}
_REMOTE = "^[A-Za-z][A-Za-z0-9+.-]*://"


@dataclass(frozen=True, slots=True)
class TableSource:
    """Pairs in memory, with columns as of a Parquet file; `name` stands for the file."""

    name: str
    table: pl.DataFrame

    def __str__(self) -> str:
        return self.name


Source = str | Path | TableSource


def source_name(source: Source) -> str:
    """What a source is called where nobody gave it a name: its own, in characters that print."""
    return printable(Path(str(source)).absolute().name)


def read_source(
    location: Source,
    *,
    format: str | None = None,
    batch_size: int | None = None,
    known: ColumnNames = PAIR_COLUMNS,
) -> Iterator[SourceBatch]:
    """Read the pairs of a source in order, and what was refused of it.

    Images are not opened: a missing or damaged one shows when it is decoded. Relative image paths
    start at the manifest's folder, or at the folder beside it that has the manifest's name without
    its suffix (`photos.csv`, `photos/`). If the first batch has vectors of a side, every row needs
    them.

    Args:
        location: a folder, a file or a table.
        format: one of `FORMATS`; otherwise recognised by the file's content and its suffix.
        batch_size: most rows per batch.
        known: what the columns may be called.

    Returns:
        Batches with the columns of `SCHEMA`.

    Raises:
        SourceError: at once, if there is no such source or its format is not recognised; while
            iterating, if it cannot be read or no columns fit.
    """
    if isinstance(location, TableSource):
        batches = read_frame(location.name, location.table, batch_size, known)
        return _usable(batches, Path(location.name), location.name, known)
    if location == "":  # which would be the folder where the command runs
        raise SourceError("the name of a source is empty")
    if isinstance(location, str) and re.match(_REMOTE, location):
        raise SourceError(f"{location} is remote: download it and name the file")
    path = Path(location).expanduser()
    name = printable(str(path))
    found = format or sniff_format(path)
    try:
        reader = FORMATS[found or ""]
    except KeyError as error:
        known_formats = ", ".join(FORMATS)
        if format:
            reason = f"unknown format {format!r}: use one of {known_formats}"
        else:
            reason = f"cannot tell the format of {name}: name one of {known_formats}"
        raise SourceError(reason) from error
    _check_kind(path, name, folder=reader is read_folder)
    batches = _usable(reader(path, batch_size, known), path, name, known)
    by_name = format_by_name(path)
    if format or not found or not by_name or by_name == found or found == "folder":
        return batches
    return _explained(batches, f"its content is {NAMES[found]}, its name says {NAMES[by_name]}")


def _explained(batches: Iterator[SourceBatch], why: str) -> Iterator[SourceBatch]:
    """The same; if they cannot be read, the error says what they were taken for."""
    try:
        yield from batches
    except SourceError as error:
        raise SourceError(f"{error} ({why})") from error


def sniff_format(path: Path) -> str | None:
    """One of `FORMATS`, by a file's content and suffix; None if it is none of them.

    Raises:
        SourceError: there is nothing, or it cannot be read.
    """
    # `Path.is_dir` fails where a name is too long or may not be looked at.
    if os.path.isdir(path):  # noqa: PTH112
        return "folder"
    name = printable(str(path))
    return format_of(_head(path, name), path, name)


def _head(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe is read but once
            raise SourceError(f"{name} is neither a file nor a folder")
        with path.open("rb") as stream:
            head = stream.read(1 << 16)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise SourceError(f"there is no source at {name}") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror})") from error
    if not head:
        raise SourceError(f"{name} is empty")
    return head


def _check_kind(path: Path, name: str, *, folder: bool) -> None:
    if folder and not path.is_dir():
        raise SourceError(
            f"{name} is not a folder" if path.exists() else f"there is no folder {name}"
        )
    if not folder:
        _head(path, name)


def _usable(
    batches: Iterator[SourceBatch], path: Path, name: str, known: ColumnNames
) -> Iterator[SourceBatch]:
    """The batches with image paths made absolute, and without the rows that cannot be used."""
    try:
        first = next(batches, None)
        if first is None:
            raise SourceError(f"{name} has no {known.rows}")
        root = _image_root(path, first.frame["image_path"])
        required, clean = _required_columns(first.frame), _clean_columns(root)
        for batch in chain([first], batches):
            frame = batch.frame.with_columns(**clean)
            yield _split(frame, batch.rejects, required, name, known.text)
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror})") from error


def _required_columns(first: pl.DataFrame) -> list[str]:
    """Columns that every row must have: those vectors that the first batch has, and captions.

    Only a source that brings its text vectors may have no captions at all.
    """
    vectors = [side for side in VECTORS if first[side].count()]
    bare = "text_vector" in vectors and not first["caption"].count()
    return vectors if bare else [*vectors, "caption"]


def _image_root(manifest: Path, paths: pl.Series) -> Path:
    """The folder where the first relative image path that exists leads to it.

    The manifest's own folder, or the one beside the manifest that has its name.

    Raises:
        SourceError: the folder's name is not UTF-8, so paths below it cannot be stored.
    """
    relative = paths.drop_nulls().filter(~paths.drop_nulls().str.contains(f"^/|{_REMOTE}"))
    own = manifest.resolve().parent
    roots = [own, own / manifest.stem]
    found = (root for path in relative for root in roots if os.path.lexists(root / path))
    root = next(found, own)
    if len(relative) and not is_text(str(root)):
        raise SourceError(f"{printable(str(root))} is no UTF-8 name: rename the folder")
    return root


def _clean_columns(root: Path) -> dict[str, pl.Expr]:
    """Absolute image paths, bare captions; what is remote keeps its address, but has no path."""
    given = pl.col("image_path").replace("", None)
    remote = given.str.contains(_REMOTE) & ~given.str.starts_with("file://")
    local = given.str.strip_prefix("file://")
    absolute = (
        pl.when(local.str.starts_with("/"))
        .then(local)
        .otherwise(pl.format("{}/{}", pl.lit(str(root)), local))
    )
    return {
        "image_path": pl.when(~remote).then(absolute),
        "image_uri": pl.coalesce("image_uri", pl.when(remote).then(given).otherwise(absolute)),
        "caption": pl.col("caption").str.strip_chars(),
        "pair_id": pl.col("pair_id").replace("", None),
        "row_id": pl.coalesce("row_id", "pair_id").replace("", None),
    }


def _split(
    frame: pl.DataFrame, rejects: list[Reject], required: list[str], name: str, text: str
) -> SourceBatch:
    """Usable rows, and the others with the first reason against each.

    Vectors of a side come with all usable rows or with none.
    """
    given = [side for side in VECTORS if side in required or frame[side].count()]
    faults = {f"\0{side}": valid_vectors(frame[side])[1] for side in given}
    captions = [_caption_fault(text)] if "caption" in required else []
    reason = pl.coalesce(*captions, *map(pl.col, faults), _image_fault())
    checked = frame.with_columns(**faults).with_columns(reason.alias("\0reason"))
    if checked["\0reason"].count():
        bad = checked.filter(pl.col("\0reason").is_not_null()).select("item", "\0reason")
        rejects = rejects + [Reject(name, item, why) for item, why in bad.iter_rows()]
        checked = checked.filter(pl.col("\0reason").is_null())
    return SourceBatch(
        checked.select(SCHEMA.keys()).with_columns(pl.col("caption").fill_null("")), rejects
    )


def _caption_fault(text: str) -> pl.Expr:
    caption = pl.col("caption")
    return (
        pl.when(caption.is_null())
        .then(pl.lit(f"missing {text}"))
        .when(caption == "")
        .then(pl.lit(f"empty {text}"))
        .when(caption.str.contains("\0", literal=True))
        .then(pl.lit(f"{text} holds a NUL character"))
        .when(caption.str.len_chars() > MAX_CAPTION)
        .then(
            pl.format(
                f"{text} too long ({{}} characters, at most {{}})",
                caption.str.len_chars(),
                pl.lit(MAX_CAPTION),
            )
        )
    )


def _image_fault() -> pl.Expr:
    absent = pl.all_horizontal(pl.col("image_path", "image_bytes", "image_vector").is_null())
    remote = pl.col("image_uri").str.contains(_REMOTE)
    return (
        pl.when(absent & remote)
        .then(pl.lit("remote images are not fetched"))
        .when(absent)
        .then(pl.lit("missing image"))
    )
