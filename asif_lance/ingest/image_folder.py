"""Folders of pictures with a metadata file, as the datasets library has them (imagefolder)."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.ingest.columns import spelling
from asif_lance.object_files import PinnedFile, is_object, list_objects

METADATA_SUFFIXES = (".csv", ".jsonl", ".parquet")

_HEAD_BYTES = 1 << 16


def is_image_folder(folder: Path) -> bool:
    """Whether a folder, or one right in it, has a metadata file that names pictures."""
    return any(map(_has_file_names, _list_metadata(folder)))


def _list_metadata(folder: Path) -> list[Path]:
    """Metadata files in a folder and right below it."""
    names = [f"metadata{suffix}" for suffix in METADATA_SUFFIXES]
    if is_object(folder):
        found = [name for name in list_objects(folder) if name.count("/") < 2]
        return [folder / one for one in found if one.rpartition("/")[2] in names]
    return [file for place in ("", "*/") for name in names for file in folder.glob(place + name)]


def _has_file_names(path: Path) -> bool:
    """Whether a metadata file names pictures: one that does not is something else."""
    try:
        if path.suffix.lower() == ".parquet":
            with PinnedFile(path).open() as stream:
                names = pq.read_schema(stream).names
        else:
            with PinnedFile(path).open() as stream:
                line = stream.readline(_HEAD_BYTES).decode("utf-8-sig", "replace")
            is_csv = path.suffix.lower() == ".csv"
            names = [n.strip('"') for n in line.strip().split(",")] if is_csv else _keys(line)
    except (OSError, pa.ArrowException):
        return False
    return any(spelling(name) == "file_name" for name in names)


def _keys(line: str) -> list[str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return []
    return list(row) if isinstance(row, dict) else []
