"""Token files of Flickr8k and Flickr30k: `picture.jpg#0`, a tab and a caption on each line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from asif_lance.errors import printable
from asif_lance.ingest.batches import Entry, batch_entries, is_text
from asif_lance.ingest.columns import ColumnNames, SourceBatch, sniff_columns
from asif_lance.ingest.manifest_rows import Manifest
from asif_lance.object_files import open_file

_LINE = re.compile(r"(?P<image>[^\t#]+\.\w+)#(?P<caption_number>\d+)\t(?P<caption>.*)")
_LONGEST_LINE = 2**20


def looks_like_flickr(head: bytes) -> bool:
    """Whether a file that begins so is a token file."""
    first = head.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    return _LINE.match(first) is not None


def read_flickr(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """A token file; rows are counted by lines."""
    name = printable(str(path))
    manifest = Manifest(name, sniff_columns(name, list(_LINE.groupindex), known), known)
    with open_file(path, encoding="utf-8-sig", errors="surrogateescape") as stream:
        yield from batch_entries(_entries(manifest, stream), batch_size)


def _entries(manifest: Manifest, stream: TextIO) -> Iterator[Entry]:
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        row = line.rstrip("\n")
        while len(line) == _LONGEST_LINE and not line.endswith("\n"):
            row, line = "", stream.readline(_LONGEST_LINE)
        if line.strip():
            yield from manifest.entries(f"row {number}", _fields(row))


def _fields(line: str) -> dict[str, str] | str:
    if not is_text(line):
        return "row is not UTF-8"
    found = _LINE.fullmatch(line)
    return found.groupdict() if found else "malformed row (expected NAME#NUMBER, a tab, a caption)"
