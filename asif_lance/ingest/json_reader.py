"""JSON, a list of objects or an object per line, as batches with the columns of every source.

A list may be longer than memory: its rows are decoded one by one from a window of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, TypeAlias

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import Entry, batch_entries, is_text
from asif_lance.ingest.columns import ColumnNames, Columns, SourceBatch, sniff_columns, spelling
from asif_lance.ingest.manifest_rows import Manifest

_HEAD_ROWS = 1024  # whose keys are the columns

# Bytes or characters of one row.
_MAX_ROW = 64 * 2**20
_TOO_LONG = f"row too long (over {_MAX_ROW >> 20} MiB)"

# Characters that are read at once.
_CHUNK = 1 << 18

_BLANKS = " \t\r\n"

# A row's number, and its object or why there is none.
_Row: TypeAlias = tuple[int, dict[str, Any] | str]


def read_jsonl(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """One JSON object per line; rows are counted by lines."""
    name = printable(str(path))
    with path.open("rb") as stream:
        lines, decoder = enumerate(_lines(stream), 1), _Decoder()
        rows = ((n, _line_object(decoder, x)) for n, x in lines if x is None or x.strip())
        yield from batch_entries(_entries(name, rows, known, " in a line"), batch_size)


def read_json(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """A JSON list of objects; rows are counted by objects. What follows damage is not read."""
    name = printable(str(path))
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        window = _Window(stream)
        if window.peek() != "[":
            found = {"{": "one JSON object", "": "blank"}.get(window.peek(), "no JSON")
            expected = "expected a list of objects, or an object per line"
            raise SourceError(f"{name} is {found}: {expected}")
        yield from batch_entries(_entries(name, _list_rows(window), known, ""), batch_size)


def _entries(name: str, rows: Iterator[_Row], known: ColumnNames, where: str) -> Iterator[Entry]:
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
            yield from manifest.entries(f"row {number}", _respelled(manifest.columns, value))


def _respelled(columns: Columns, value: dict[str, Any] | str) -> dict[str, Any] | str:
    """The same row; keys that mean something are spelled as the columns are."""
    if isinstance(value, str):
        return value
    spelled = {spelling(name): name for name in columns.names}
    keys = [spelled.get(spelling(key), key) for key in value]
    if len(set(keys)) < len(keys):
        return f"{printable(_twice(keys))} is given twice"
    return dict(zip(keys, value.values(), strict=True))


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is too long."""
    while line := stream.readline(_MAX_ROW):
        if len(line) < _MAX_ROW:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(_MAX_ROW)
        yield None


def _line_object(decoder: _Decoder, line: bytes | None) -> dict[str, Any] | str:
    """The object on this line, or why there is none."""
    if line is None:
        return _TOO_LONG
    try:
        value, twice = decoder.read(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return "row is not UTF-8"
    except (ValueError, RecursionError):
        return "malformed JSON"
    return _as_object(value, twice)


def _as_object(value: Any, twice: str | None) -> dict[str, Any] | str:
    if twice is not None:
        return f"{printable(twice)} is given twice"
    return value if isinstance(value, dict) else "row is not a JSON object"


class _Decoder:
    """Decodes JSON; NaN and infinities become null, and a key that comes twice is remembered."""

    def __init__(self) -> None:
        self._twice: str | None = None
        self._json = json.JSONDecoder(
            parse_constant=lambda _: None, object_pairs_hook=self._object_of
        )

    def read(self, text: str) -> tuple[Any, str | None]:
        """The value that a text is, and a key in it that comes twice, if there is one.

        Raises:
            ValueError, RecursionError: it is not JSON.
        """
        self._twice = None
        return self._json.decode(text), self._twice

    def read_at(self, text: str, start: int) -> tuple[Any, str | None, int]:
        """The same of a value inside a text, and where it ends."""
        self._twice = None
        value, end = self._json.raw_decode(text, start)
        return value, self._twice, end

    def _object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            self._twice = _twice([key for key, _ in pairs])
        return value


def _twice(keys: Iterable[str]) -> str:
    seen: set[str] = set()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]


class _Window:
    """A part of a text file that moves on and grows as needed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._text, self._at = stream, "", 0
        self._lines_before = 0
        self._decoder = _Decoder()

    def peek(self) -> str:
        """The next character that is not blank; none at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANKS:
                self._at += 1
            if self._at < len(self._text) or not self._grow():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Pass over the character that `peek` gave."""
        self._at += 1

    def take(self) -> dict[str, Any] | str:
        """The next value: an object, or why it is none.

        Raises:
            ValueError: there is no value, or what follows cannot be read.
        """
        fault_at = -1
        while len(self._text) - self._at <= _MAX_ROW:
            try:
                value, twice, end = self._decoder.read_at(self._text, self._at)
                if end < len(self._text) or not self._grow():  # a number might go on
                    raw, self._at = self._text[self._at : end], end
                    return _as_object(value, twice) if is_text(raw) else "row is not UTF-8"
            except json.JSONDecodeError as error:
                # More text helps only if what is there ends too early.
                is_open = error.msg.startswith("Unterminated string")
                at = error.pos - self._at
                if (at == fault_at and not is_open) or not self._grow():
                    what = error.msg.removesuffix(" starting at")
                    raise ValueError(self.fault(what, error.pos)) from error
                fault_at = at
            except (ValueError, RecursionError) as error:  # a number of many digits, nesting
                raise ValueError(self.fault("nested too deep, or a number too long")) from error
        raise ValueError(_TOO_LONG)

    def fault(self, what: str, at: int | None = None) -> str:
        """What is wrong at a place of the text, by default the next one."""
        before = self._text.count("\n", 0, self._at if at is None else at)
        return f"malformed JSON in line {self._lines_before + before + 1} ({what})"

    def _grow(self) -> bool:
        """Read on, as much again as is held; False at the end of the file."""
        held = self._text[self._at :]
        more = self._stream.read(max(_CHUNK, len(held)))
        self._lines_before += self._text.count("\n", 0, self._at)
        self._text, self._at = held + more, 0
        return bool(more)


def _list_rows(window: _Window) -> Iterator[_Row]:
    """The rows of a list; the last one says so if the rest of the file cannot be read."""
    number, mark = 0, ","
    window.skip()
    if window.peek() == "]":
        mark = "]"
        window.skip()
    while mark == ",":
        number += 1
        try:
            window.peek()
            yield number, window.take()
        except ValueError as error:
            yield number, f"{error}; what follows is not read"
            return
        mark = window.peek()
        if mark not in ("]", ","):
            fault = window.fault("expected ',' or ']'")
            yield number + 1, f"{fault}; what follows is not read"
            return
        window.skip()
    if window.peek():
        yield number + 1, window.fault("something follows the list")
