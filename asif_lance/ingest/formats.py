"""The formats that sources have, each with its reader, and which one a file or folder is in.

A new one is a module with a reader, and a line in `FORMATS`. A file's content decides where it is
clear, else its suffix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from asif_lance.encoders import LeftOut, is_picture_name, looks_like_tar, walk_files
from asif_lance.errors import SourceError, printable
from asif_lance.ingest.coco_reader import looks_like_coco, read_coco
from asif_lance.ingest.columns import ColumnNames, SourceBatch
from asif_lance.ingest.csv_reader import read_csv
from asif_lance.ingest.flickr_reader import looks_like_flickr, read_flickr
from asif_lance.ingest.folder_reader import read_folder
from asif_lance.ingest.image_folder import METADATA_SUFFIXES, is_image_folder
from asif_lance.ingest.json_reader import read_json, read_jsonl
from asif_lance.ingest.lance_reader import is_lance, read_lance
from asif_lance.ingest.parquet_reader import read_parquet
from asif_lance.ingest.tar_reader import read_webdataset
from asif_lance.ingest.zip_reader import looks_like_zip, read_zip

# Given a path, most rows per batch (its own choice if None) and what columns may be called.
Reader: TypeAlias = Callable[[Path, int | None, ColumnNames], Iterator[SourceBatch]]


@dataclass(frozen=True, slots=True)
class Format:
    """A form that pairs come in.

    Attributes:
        title: what messages call it.
        read: its reader; captions and paths are checked afterwards. None for folders whose parts
            are in formats of their own.
        suffixes: how its files' names end, a slash being where the name begins.
        begins: whether a file that begins so is surely in this format; None if that cannot be told.
        of_folders: it is a folder. A folder in a format of files holds parts.
        looks_beside: pictures may lie in a folder beside the file's own.
    """

    title: str
    read: Reader | None
    suffixes: tuple[str, ...] = ()
    begins: Callable[[bytes], bool] | None = None
    of_folders: bool = False
    looks_beside: bool = False

    def fits_name(self, path: Path) -> bool:
        """Whether a file's name says that it is in this format."""
        return f"/{path.name.lower()}".endswith(self.suffixes)

    def parts(self, folder: Path) -> list[Path]:
        """The files of this format in a folder and below it, by path."""
        found = filter(self.fits_name, _visible_files(folder))
        return sorted(found, key=lambda file: file.parts)


def _is_parquet(head: bytes) -> bool:
    return head.startswith(b"PAR1")


_TARS = (".tar", ".tar.gz", ".tgz")

FORMATS = {
    "folder": Format("picture", read_folder, of_folders=True),
    "lance": Format("Lance", read_lance, of_folders=True),
    "parquet": Format("Parquet", read_parquet, (".parquet", ".pq"), _is_parquet),
    "webdataset": Format("tar", read_webdataset, _TARS, looks_like_tar),
    "zip": Format("ZIP", read_zip, (".zip",), looks_like_zip),
    "coco": Format("COCO", read_coco, (), looks_like_coco, looks_beside=True),
    "flickr": Format("Flickr captions", read_flickr, (), looks_like_flickr, looks_beside=True),
    "csv": Format("CSV", read_csv, (".csv",)),
    "tsv": Format("TSV", read_csv, (".tsv",)),
    "jsonl": Format("JSON with an object per line", read_jsonl, (".jsonl", ".ndjson")),
    "json": Format("JSON", read_json, (".json",)),
    "imagefolder": Format("metadata", None, tuple(f"/metadata{s}" for s in METADATA_SUFFIXES)),
}

# What a folder without pictures may hold: of several, the first. Downloaders write Parquet beside
# tars, which says of each picture what the tar says too.
_SHARDS = ("webdataset", "parquet", "zip")

# Files that people have pairs in, but not in a form that is read, by how they begin.
_UNREADABLE = {
    b"\xff\xfe": "not UTF-8 text but UTF-16: save it as UTF-8",
    b"\xfe\xff": "not UTF-8 text but UTF-16: save it as UTF-8",
    b"\x1f\x8b": "compressed (gzip): unpack it first",
    b"BZh": "compressed (bzip2): unpack it first",
    b"\xfd7zXZ": "compressed (xz): unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd): unpack it first",
    b"PK\x03\x04": "a workbook: save it as CSV",
    b"ARROW1": "an Arrow file: save it as Parquet",
}

_LIST_OF_OBJECTS = re.compile(r"\[\s*([{\]]|$)")
_OBJECT = re.compile(r'\{\s*["}]')


def format_by_name(path: Path) -> str | None:
    """The format that a file's suffix says; None if it says none."""
    return next((name for name, format in FORMATS.items() if format.fits_name(path)), None)


def format_of_folder(folder: Path) -> str:
    """The format of a folder: `folder` if nothing speaks for another one.

    Raises:
        SourceError: it could be read in two ways, and either would leave pairs out.
    """
    if is_lance(folder):
        if any(is_picture_name(file.name) for file in _visible_files(folder)):
            raise SourceError(
                f"{printable(str(folder))} holds pictures and Lance tables: "
                "give them apart, or say --source-format folder or lance"
            )
        return "lance"
    if is_image_folder(folder):
        return "imagefolder"
    found = set()
    for file in _visible_files(folder):
        if is_picture_name(file.name):
            return "folder"
        found.add(format_by_name(file))
    return next((name for name in _SHARDS if name in found), "folder")


def _visible_files(folder: Path) -> Iterator[Path]:
    files = walk_files(folder, lambda path, reason: None, LeftOut())
    return (file for file in files if not file.name.startswith("."))


def format_of(head: bytes, path: Path, name: str) -> str | None:
    """The format of a file that begins so; None if nothing says what it is.

    Raises:
        SourceError: it is a kind of file that is not read.
    """
    for format_name, format in FORMATS.items():
        if format.begins is not None and format.begins(head):
            return format_name
    for beginning, kind in _UNREADABLE.items():
        if head.startswith(beginning):
            raise SourceError(f"{name} is {kind}")
    by_name = format_by_name(path)
    try:
        text = head[: head.rfind(b"\n") + 1 or None].decode("utf-8-sig").lstrip()
    except UnicodeDecodeError:
        return by_name
    if by_name in ("csv", "tsv") and not _is_json(text):
        return by_name
    return _format_of_text(text, by_name) or by_name


def _is_json(text: str) -> bool:
    return bool(_LIST_OF_OBJECTS.match(text) or _OBJECT.match(text))


def _format_of_text(text: str, by_name: str | None) -> str | None:
    first, *others = text.split("\n", 2)
    if _LIST_OF_OBJECTS.match(text):
        return "json"
    if _OBJECT.match(text):
        # One object over several lines has no line that is an object; but a row may be damaged.
        in_lines = by_name != "json" or not others or any(map(_is_whole, (first, others[0])))
        return "jsonl" if in_lines else "json"
    if by_name in ("json", "jsonl") and text[:1] in ("[", "{", '"'):
        return by_name
    return "tsv" if "\t" in first else "csv" if set(first) & set(",;|") else None


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
