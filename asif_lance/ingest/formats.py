"""Which format a file has: its content decides where it is clear, else its suffix."""

from __future__ import annotations

import json
import re
from pathlib import Path

from asif_lance.errors import SourceError

#: What messages call the formats.
NAMES = {
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON with an object per line",
    "json": "JSON",
    "parquet": "Parquet",
}

_SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}

# Files that people have pairs in, but not in a form that is read, by how they begin.
_UNREADABLE = {
    b"\xff\xfe": "not UTF-8 text but UTF-16: save it as UTF-8",
    b"\xfe\xff": "not UTF-8 text but UTF-16: save it as UTF-8",
    b"\x1f\x8b": "compressed (gzip): unpack it first",
    b"BZh": "compressed (bzip2): unpack it first",
    b"\xfd7zXZ": "compressed (xz): unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd): unpack it first",
    b"PK\x03\x04": "a ZIP archive or a workbook: unpack it, or save it as CSV",
    b"ARROW1": "an Arrow file: save it as Parquet",
}

_LIST_OF_OBJECTS = re.compile(r"\[\s*([{\]]|$)")
_OBJECT = re.compile(r'\{\s*["}]')


def format_by_name(path: Path) -> str | None:
    """The format that a file's suffix says; None if it says none."""
    return _SUFFIXES.get(path.suffix.lower())


def format_of(head: bytes, path: Path, name: str) -> str | None:
    """The format of a file that begins so; None if nothing says what it is.

    Raises:
        SourceError: it is a kind of file that is not read.
    """
    for beginning, kind in _UNREADABLE.items():
        if head.startswith(beginning):
            raise SourceError(f"{name} is {kind}")
    if head.startswith(b"PAR1"):
        return "parquet"
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
    return "tsv" if "\t" in first else "csv" if "," in first or ";" in first else None


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
