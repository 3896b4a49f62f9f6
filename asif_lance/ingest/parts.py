"""Sources in parts that are read apart: files of a folder, row groups of Parquet, pictures.

What the parts have is what the whole source has, item for item and under the same names, since a
part is read as the whole is, from where it begins.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asif_lance.encoders import walk_pictures
from asif_lance.errors import EmptySourceError, InputError
from asif_lance.ingest.formats import FORMATS, Format
from asif_lance.ingest.sources import WHOLE, Part, PictureList, SourceParts, sniff_format
from asif_lance.object_files import PinnedFile, is_folder, is_object, open_place, resolve


def split_source(source: object, format: str | None, rows: int) -> list[SourceParts | PictureList]:
    """A source as parts of about so many rows where it can be cut, in order.

    Folders are cut into their files, Parquet into row groups, folders of pictures and lists of
    them into stretches; archives and other files are read as a whole.

    Args:
        source: a path, or pictures that were named one by one.
        format: one of `FORMATS`; recognised when None.
        rows: most rows of a part, if it can be cut so.

    Raises:
        SourceError: it is not there.
        InputError: it is in memory, or in another database.
    """
    if isinstance(source, PictureList):
        cuts = range(0, len(source.files), rows)
        return [PictureList(source.folder, source.files[cut : cut + rows]) for cut in cuts]
    if not isinstance(source, str | Path):
        raise InputError(f"{source} cannot be read by several processes: name files or folders")
    path = open_place(source)
    if not is_object(path):
        path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay links
    try:
        found = format or sniff_format(path)
    except EmptySourceError:  # for which reading it has the words
        found = None
    entry = FORMATS.get(found or "")
    parts: Sequence[Part] = [WHOLE]
    if entry is not None and is_folder(path) and (entry.read is None or not entry.of_folders):
        parts = _split_folder(path, entry, found, rows) or [WHOLE]
    elif found in ("parquet", "folder"):
        parts = _split_file(path, "", found, rows)
    return [SourceParts(str(path), (part,)) for part in parts]


def _split_folder(path: Path, entry: Format, found: str | None, rows: int) -> list[Part]:
    files = ((file, str(file.relative_to(path))) for file in entry.parts(path))
    return [part for file, name in files for part in _split_file(file, name, found, rows)]


def _split_file(file: Path, name: str, found: str | None, rows: int) -> list[Part]:
    """What is damaged is one part: reading it says what is wrong."""
    spans: list[tuple[int, int]] = []
    if found == "parquet":
        spans = _group_rows(file, rows)
    elif found == "folder":
        count = sum(1 for _ in walk_pictures(resolve(file), lambda path, reason: None))
        spans = [(cut, min(cut + rows, count)) for cut in range(0, count, rows)]
    return [(name, span) for span in spans] if len(spans) > 1 else [(name, None)]


def _group_rows(file: Path, rows: int) -> list[tuple[int, int]]:
    """Consecutive row groups of a Parquet file, together of at least so many rows."""
    try:
        with PinnedFile(file).open() as stream:
            metadata = pq.read_metadata(stream)
    except (OSError, ValueError, pa.ArrowException):
        return []
    ends, waiting = [0], 0
    for group in range(metadata.num_row_groups):
        waiting += metadata.row_group(group).num_rows
        if waiting >= rows or group + 1 == metadata.num_row_groups:
            ends.append(group + 1)
            waiting = 0
    return list(pairwise(ends))
