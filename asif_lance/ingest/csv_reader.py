"""CSV and TSV as batches with the columns of every source; values are not checked yet."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import dropwhile, islice
from pathlib import Path
from typing import Literal, TextIO

from asif_lance.encoders import is_picture_name
from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import Entry, batch_entries, is_text
from asif_lance.ingest.columns import REMOTE, ColumnNames, SourceBatch, sniff_columns
from asif_lance.ingest.manifest_rows import Manifest
from asif_lance.object_files import open_file
from asif_lance.records import Reject

# Characters of a line that is read at once; the row of a longer one is refused.
_MAX_LINE = 16 * 2**20

_SEPARATOR = re.compile(r'"?sep=.?"?\s*$')


def read_csv(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """Comma-, semicolon-, tab- or bar-separated values with a header line.

    Two fields with a picture's name or address and a text need no header. Quotes mean what RFC 4180
    says; where tabs separate, only if the whole file is quoted so, since most programs write such
    files without any quoting; where bars separate, nothing.
    """
    name = printable(str(path))
    with _open_text(path) as stream:
        lines = _Lines(_without_blank_start(stream))
        header_line = next(lines, "")
        delimiter = max(",;\t|", key=header_line.count)
        if "\0" in header_line or not is_text(header_line):
            raise SourceError(f"{name} is not UTF-8 text")
        quoted = delimiter in ",;" or (delimiter == "\t" and _is_quoted_tsv(path))
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        header = _read_header(name, csv.reader([header_line], delimiter=delimiter, quoting=quoting))
        if first_row := _names_without_header(header, known.text):
            header = first_row
            lines.give_back()
        manifest = Manifest(name, sniff_columns(name, header, known), known)
        # strict: a quote that is never closed is an error instead of one enormous field.
        rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        yield from batch_entries(_csv_entries(manifest, header, lines, rows), batch_size)


def _open_text(path: Path) -> TextIO:
    stream: TextIO = open_file(path, encoding="utf-8-sig", errors="surrogateescape", newline="")
    return stream


def _without_blank_start(stream: TextIO) -> Iterator[str]:
    """The lines from the header on; spreadsheets write `sep=;` above it."""
    return dropwhile(lambda line: not line.strip() or _SEPARATOR.match(line), _cut_lines(stream))


def _cut_lines(stream: TextIO) -> Iterator[str]:
    """The lines; instead of one that is too long, one that `csv` refuses."""
    while line := stream.readline(_MAX_LINE):
        if len(line) == _MAX_LINE:
            while line and not line.endswith(("\n", "\r")):
                line = stream.readline(_MAX_LINE)
            line = "x" * (csv.field_size_limit() + 1) + "\n"
        yield line


def _read_header(source: str, rows: Iterator[list[str]]) -> list[str]:
    try:
        return next(rows, [])
    except csv.Error as error:
        raise SourceError(f"{source} has no header line ({error})") from error


def _names_without_header(first: list[str], text: str) -> list[str]:
    """The columns of a file whose first line is a pair already; none if it is a header."""
    pictures = [bool(re.match(REMOTE, field)) or is_picture_name(field) for field in first]
    if len(first) != 2 or sum(pictures) != 1:
        return []
    return ["image", text] if pictures[0] else [text, "image"]


def _is_quoted_tsv(path: Path) -> bool:
    """Whether quotes enclose fields throughout a file with tabs, as RFC 4180 has it.

    They do if they are balanced everywhere, and no row that quotes hold together has a line in it
    that is a row of its own.
    """
    quoted = False
    with _open_text(path) as stream:
        lines = _Lines(_without_blank_start(stream))
        rows = csv.reader(lines, delimiter="\t", strict=True)
        tabs = None
        while not lines.at_end():
            try:
                row = next(rows, [])
            except csv.Error:
                return False
            first, *others = lines.taken
            tabs = first.count("\t") if tabs is None else tabs
            whole = [line for line in others if line.count("\t") == tabs]
            if whole or (len(row) <= tabs == first.count("\t")):
                return False
            quoted = quoted or first.startswith('"') or '\t"' in first
    return quoted


def _csv_entries(
    manifest: Manifest, header: list[str], lines: _Lines, rows: Iterator[list[str]]
) -> Iterator[Entry]:
    number = 0
    while not lines.at_end():
        number += 1
        try:
            row = next(rows, [])
        except csv.Error as error:
            lines.give_back_all_but_first()
            yield Reject(manifest.source, f"row {number}", f"malformed row ({error})")
            continue
        if row:
            yield from manifest.entries(f"row {number}", _csv_fields(header, row))


def _csv_fields(header: list[str], row: list[str]) -> dict[str, str] | str:
    """A row's fields, or why there are none."""
    if len(row) != len(header):
        return f"row has {len(row)} fields, the header has {len(header)}"
    if not is_text("".join(row)):
        return "row is not UTF-8"
    if row == header:
        return "the header again"
    return dict(zip(header, row, strict=True))


class _Lines:
    """Lines for `csv.reader` that can be given back: an unclosed quote takes all that follow.

    Attributes:
        taken: the lines of the row that is being read.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._rest = iter(lines)
        self._back: deque[str] = deque()
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self.taken.append(self._back.popleft() if self._back else next(self._rest))
        return self.taken[-1]

    def at_end(self) -> bool:
        """Whether no line is left; a new row begins here."""
        self.taken = []
        if not self._back:
            self._back.extend(islice(self._rest, 1))
        return not self._back

    def give_back(self) -> None:
        """Undo the reading of a row."""
        self._back.extendleft(reversed(self.taken))

    def give_back_all_but_first(self) -> None:
        """Undo the reading of a malformed row, except for its first line."""
        self._back.extendleft(reversed(self.taken[1:]))
