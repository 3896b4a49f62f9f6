"""Folders of pictures with a metadata file, as the datasets library has them (imagefolder)."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.ingest.columns import spelling

METADATA_SUFFIXES = (".csv", ".jsonl", ".parquet")

_HEAD_BYTES = 1 << 16


def is_image_folder(folder: Path) -> bool:
    """Whether a folder, or one right in it, has a metadata file that names pictures."""
    places = (f"{place}metadata{suffix}" for place in ("", "*/") for suffix in METADATA_SUFFIXES)
    return any(_has_file_names(file) for place in places for file in folder.glob(place))


def _has_file_names(path: Path) -> bool:
    """Whether a metadata file names pictures: one that does not is something else."""
    try:
        if path.suffix.lower() == ".parquet":
            names = pq.read_schema(path).names
        else:
            with path.open("rb") as stream:
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
