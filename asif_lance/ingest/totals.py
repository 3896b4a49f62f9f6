"""How many items sources have, where that is quick to know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.encoders import walk_pictures
from asif_lance.ingest.sources import PictureList, Source, SourceParts, TableSource, sniff_format
from asif_lance.ingest.stored_pairs import StoredPairs
from asif_lance.object_files import PinnedFile, is_folder, is_object, open_place


def count_items(sources: Sequence[Source], format: str | None = None) -> int | None:
    """Items of all sources together; None when one of them would have to be read for it.

    Args:
        sources: what is ingested.
        format: of all of them; recognised when None.
    """
    total = 0
    for source in sources:
        if (count := _count(source, format)) is None:
            return None
        total += count
    return total


def _count(source: Source, format: str | None) -> int | None:
    if isinstance(source, TableSource):
        return len(source.table)
    if isinstance(source, PictureList):
        return len(source.files)
    if isinstance(source, StoredPairs):
        return source.count
    if isinstance(source, SourceParts):
        return None
    path = open_place(source)
    try:
        if is_folder(path):
            if (format or sniff_format(path)) != "folder":
                return None
            refused: list[Path] = []
            usable = sum(1 for _ in walk_pictures(path, lambda file, _: refused.append(file)))
            return usable + len(refused)
        named = path.suffix.lower() in (".parquet", ".pq")
        if named and (is_object(path) or path.is_file()):
            with PinnedFile(path).open() as stream:
                return int(pq.read_metadata(stream).num_rows)
    except (OSError, ValueError, pa.ArrowException):  # reading it will say what is wrong
        return None
    return None
