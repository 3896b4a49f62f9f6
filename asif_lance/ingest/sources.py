"""Reads image-text pairs from files, folders, archives, databases and tables in memory.

Items that cannot be used become rejects with a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from asif_lance.errors import EmptySourceError, SourceError, printable
from asif_lance.ingest.columns import PAIR_COLUMNS, REMOTE, SCHEMA, ColumnNames, SourceBatch
from asif_lance.ingest.folder_reader import read_folder, read_pictures
from asif_lance.ingest.formats import FORMATS, Format, format_by_name, format_of, format_of_folder
from asif_lance.ingest.parquet_reader import read_frame, read_parquet
from asif_lance.ingest.stored_pairs import StoredPairs
from asif_lance.ingest.usable import MAX_CAPTION, Reading, usable_batches
from asif_lance.object_files import PinnedFile, exists, is_folder, is_object, open_place
from asif_lance.records import Reject

__all__ = ["FORMATS", "MAX_CAPTION", "SCHEMA", "SourceBatch", "read_source"]


@dataclass(frozen=True, slots=True)
class TableSource:
    """Pairs in memory, with columns as of a Parquet file; `name` stands for the file."""

    name: str
    table: pl.DataFrame

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class PictureList:
    """Pictures that were named one by one, and the folder that they are all in."""

    folder: Path
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return str(self.folder)


#: A file within a folder (empty: the source itself), and from which of its row groups or pictures
#: to which; None for all of it.
Part = tuple[str, tuple[int, int] | None]

WHOLE: Part = ("", None)


@dataclass(frozen=True, slots=True)
class SourceParts:
    """Some consecutive parts of a source, which is called as the whole is, see `parts`."""

    source: str
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return self.source


Source = str | Path | TableSource | PictureList | StoredPairs | SourceParts


def source_name(source: Source) -> str:
    """What a source is called where nobody gave it a name: its own, in characters that print."""
    return printable(Path(str(source)).absolute().name)


def read_source(
    location: Source,
    *,
    format: str | None = None,
    batch_size: int | None = None,
    known: ColumnNames = PAIR_COLUMNS,
    image_root: Path | None = None,
) -> Iterator[SourceBatch]:
    """Read the pairs of a source in order, and what was refused of it.

    Image files are not opened: a missing or damaged one shows when it is decoded. If the first
    batch has vectors of a side, every row needs them.

    Args:
        location: a folder, a file, either of them in an object store, or a table.
        format: one of `FORMATS`; otherwise recognised by the file's content and its suffix. A
            folder with a format of files is read as parts of that format.
        batch_size: most rows per batch.
        known: what the columns may be called.
        image_root: where relative image paths start; by default where the pictures are: the
            manifest's folder, the one beside it that has its name, or one inside.

    Returns batches with the columns of `SCHEMA`.

    Raises:
        SourceError: at once, if there is no such source or its format is not recognised; while
            iterating, if it cannot be read or no columns fit.
    """
    if isinstance(location, StoredPairs):
        return location.batches()
    reading = Reading(batch_size, known, image_root)
    if isinstance(location, TableSource):
        batches = read_frame(location.name, location.table, batch_size, known)
        return usable_batches(batches, Path(location.name), location.name, reading)
    if isinstance(location, PictureList):
        name = printable(str(location.folder))
        batches = read_pictures(location.folder, location.files, batch_size)
        return usable_batches(batches, location.folder, name, reading)
    if isinstance(location, SourceParts):
        return _read_some(open_place(location.source), location.parts, format, reading)
    if location == "":  # which would be the folder where the command runs
        raise SourceError("the name of a source is empty")
    if isinstance(location, str) and re.match(REMOTE, location) and not is_object(location):
        raise SourceError(f"{location} is remote: download it and name the file")
    return _read_path(open_place(location), format, reading)


def _read_path(path: Path, format: str | None, reading: Reading) -> Iterator[SourceBatch]:
    name = printable(str(path))
    found = format or sniff_format(path)
    try:
        entry = FORMATS[found or ""]
    except KeyError as error:
        known_formats = ", ".join(FORMATS)
        if format:
            reason = f"unknown format {format!r}: use one of {known_formats}"
        else:
            reason = f"cannot tell the format of {name}: name one of {known_formats}"
        raise SourceError(reason) from error
    holds_files = is_folder(path)
    if entry.read is None and not holds_files:
        raise SourceError(f"{name} is not a folder")
    if entry.read is None or (holds_files and not entry.of_folders):
        parts = entry.parts(path)
        if not parts:
            raise SourceError(f"{name} holds no {entry.title} files")
        return _read_parts(path, name, parts, found if entry.read else None, reading)
    _check_kind(path, name, entry)
    reading = replace(reading, looks_beside=entry.looks_beside)
    batches = entry.read(path, reading.batch_size, reading.known)
    batches = usable_batches(batches, path, name, reading)
    by_name = format_by_name(path)
    if format or not by_name or by_name == found or entry.of_folders:
        return batches
    title = FORMATS[by_name].title
    return _explained(batches, f"its content is {entry.title}, its name says {title}")


def _read_parts(
    folder: Path, name: str, parts: list[Path], format: str | None, reading: Reading
) -> Iterator[SourceBatch]:
    """The parts of a source one after the other; one that cannot be read is refused as one item.

    Raises:
        SourceError: none of them can be read.
    """
    failed: list[SourceError] = []
    for part in parts:
        try:
            yield from _named_as_part(folder, name, part, _read_path(part, format, reading))
        except SourceError as error:
            failed.append(error)
            if len(failed) == len(parts):
                raise
            yield _refused_part(folder, name, part, error)


def _named_as_part(
    folder: Path, name: str, part: Path, batches: Iterator[SourceBatch]
) -> Iterator[SourceBatch]:
    """A part's batches as those of its folder."""
    relative = printable(str(part.relative_to(folder)))
    for batch in batches:
        items = pl.format("{}#{}", pl.lit(relative), "item").alias("item")
        refused = [_of_part(name, relative, part, reject) for reject in batch.rejects]
        yield SourceBatch(batch.frame.with_columns(items), refused)


def _refused_part(folder: Path, name: str, part: Path, error: SourceError) -> SourceBatch:
    relative = printable(str(part.relative_to(folder)))
    return SourceBatch(pl.DataFrame(schema=SCHEMA), [Reject(name, relative, str(error))])


def _read_some(
    path: Path, parts: tuple[Part, ...], format: str | None, reading: Reading
) -> Iterator[SourceBatch]:
    """Some parts of a source as they are when all of it is read.

    Raises:
        SourceError: the source itself cannot be read; a file in a folder is refused as one item.
    """
    name = printable(str(path))
    for file, span in parts:
        part = path / file if file else path
        format_of_part = format if FORMATS[format or "folder"].read else None
        if span is None:
            batches = _read_path(part, format_of_part if file else format, reading)
        else:
            batches = _read_span(part, span, reading)
        try:
            yield from _named_as_part(path, name, part, batches) if file else batches
        except SourceError as error:
            if not file:
                raise
            yield _refused_part(path, name, part, error)


def _read_span(path: Path, span: tuple[int, int], reading: Reading) -> Iterator[SourceBatch]:
    """Some pictures of a folder or row groups of a Parquet file; the first one says what it has."""
    name, size, known = printable(str(path)), reading.batch_size, reading.known
    if is_folder(path):
        return usable_batches(read_folder(path, size, known, span), path, name, reading)
    lead = next(read_parquet(path, size, known), None)
    return usable_batches(read_parquet(path, size, known, span), path, name, reading, lead)


def _of_part(name: str, relative: str, part: Path, reject: Reject) -> Reject:
    """A part's rejection as its source's; what concerns the whole part is named by it alone."""
    whole = reject.item == printable(part.name)
    return Reject(name, relative if whole else f"{relative}#{reject.item}", reject.reason)


def _explained(batches: Iterator[SourceBatch], why: str) -> Iterator[SourceBatch]:
    """The same; if they cannot be read, the error says what they were taken for."""
    try:
        yield from batches
    except SourceError as error:
        raise SourceError(f"{error} ({why})") from error


def sniff_format(path: Path) -> str | None:
    """One of `FORMATS`, by content and suffix; None if it is none of them.

    Raises:
        SourceError: there is nothing, or it cannot be read.
    """
    name = printable(str(path))
    try:
        if is_folder(path):
            return format_of_folder(path)
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror})") from error
    return format_of(_head(path, name), path, name)


def _head(path: Path, name: str) -> bytes:
    try:
        if not is_object(path) and path.exists() and not (path.is_file() or path.is_dir()):
            raise SourceError(f"{name} is neither a file nor a folder")  # a pipe is read but once
        with PinnedFile(path).open() as stream:
            head = stream.read(1 << 16)
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the name
        raise SourceError(f"there is no source at {name}") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror})") from error
    if not head:
        raise EmptySourceError(f"{name} is empty")
    return head


def _check_kind(path: Path, name: str, entry: Format) -> None:
    if entry.of_folders and not is_folder(path):
        raise SourceError(
            f"{name} is not a folder" if exists(path) else f"there is no folder {name}"
        )
    if not entry.of_folders:
        _head(path, name)
