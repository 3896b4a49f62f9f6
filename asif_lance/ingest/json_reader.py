"""JSON, a list of objects or an object per line, as batches with the columns of every source.

A list may be longer than memory: its rows are decoded one by one from a window of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import Entry, batch_entries, is_text
from asif_lance.ingest.columns import ColumnNames, Columns, SourceBatch, sniff_columns, spelling
from asif_lance.ingest.json_window import (
    MAX_ROW,
    TOO_LONG,
    Decoder,
    Row,
    Window,
    as_object,
    first_twice,
    list_rows,
)
from asif_lance.ingest.manifest_rows import Manifest
from asif_lance.object_files import open_file

_HEAD_ROWS = 1024  # whose keys are the columns


def read_jsonl(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """One JSON object per line; rows are counted by lines."""
    name = printable(str(path))
    with open_file(path) as stream:
        lines, decoder = enumerate(_lines(stream), 1), Decoder()
        rows = ((n, _line_object(decoder, x)) for n, x in lines if x is None or x.strip())
        yield from batch_entries(_entries(name, rows, known, " in a line"), batch_size)


def read_json(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """A JSON list of objects; rows are counted by objects. What follows damage is not read."""
    name = printable(str(path))
    with open_file(path, encoding="utf-8-sig", errors="surrogateescape") as stream:
        window = Window(stream)
        if window.peek() != "[":
            found = {"{": "one JSON object", "": "blank"}.get(window.peek(), "no JSON")
            expected = "expected a list of objects, or an object per line"
            raise SourceError(f"{name} is {found}: {expected}")
        yield from batch_entries(_entries(name, _only_list(window), known, ""), batch_size)


def _entries(name: str, rows: Iterator[Row], known: ColumnNames, where: str) -> Iterator[Entry]:
    head = list(islice(rows, _HEAD_ROWS))
    if head and all(isinstance(value, str) for _, value in head):
        number, reason = head[0]
        raise SourceError(f"{name} has no JSON object{where} (row {number}: {reason})")
    spellings: dict[str, str] = {}
    for key in (key for _, value in head if isinstance(value, dict) for key in value):
        if is_text(key):
            spellings.setdefault(spelling(key), key)
    if head:
        manifest = Manifest(name, sniff_columns(name, list(spellings.values()), known), known)
        for number, value in chain(head, rows):
            row = _respelled(manifest.columns, known, value)
            yield from manifest.entries(f"row {number}", row)


def _respelled(
    columns: Columns, known: ColumnNames, value: dict[str, Any] | str
) -> dict[str, Any] | str:
    """The same row; keys that mean something are spelled as the columns are.

    A row without the column may have the text or the picture under another of its known names.
    """
    if isinstance(value, str):
        return value
    spelled = {spelling(name): name for name in columns.names}
    own = {spelling(key) for key in value}
    for chosen, names in ((columns.caption, known.caption), (columns.image, known.image)):
        if chosen is not None and spelling(chosen) not in own:
            other = next((name for name in names if name in own and name not in spelled), None)
            spelled |= {} if other is None else {other: chosen}
    keys = [spelled.get(spelling(key), key) for key in value]
    if len(set(keys)) < len(keys):
        return f"{printable(first_twice(keys))} is given twice"
    return dict(zip(keys, value.values(), strict=True))


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long."""
    while line := stream.readline(MAX_ROW):
        if len(line) < MAX_ROW:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_ROW)
        yield None


def _line_object(decoder: Decoder, line: bytes | None) -> dict[str, Any] | str:
    """The object on this line, or why there is none."""
    if line is None:
        return TOO_LONG
    try:
        value, twice = decoder.read(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "row is not UTF-8"
    except (ValueError, RecursionError):
        return "malformed JSON"
    return as_object(value, twice)


def _only_list(window: Window) -> Iterator[Row]:
    """The rows of a list that is all of the file."""
    count = yield from list_rows(window)
    if count >= 0 and window.peek():
        yield count + 1, window.fault("something follows the list")
