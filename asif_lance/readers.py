"""Folders, CSV and JSONL as batches with the same columns, before their content is judged."""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from asif_lance.columns import SCHEMA, VECTORS, Columns, SourceBatch, sniff_columns
from asif_lance.errors import SourceError
from asif_lance.images import SUFFIXES, shown_files
from asif_lance.records import Reject

# Pictures that people have in folders and that are not read here: told, not passed over.
OTHER_SUFFIXES = frozenset({".svg", ".heic", ".heif", ".psd", ".eps", ".jxl", ".dng"})
MAX_CAPTION_FILE = 4 * 2**20
_HEAD = 1024

# A row with the columns of SCHEMA (absent ones are null), or why there is none.
Entry: TypeAlias = dict[str, Any] | Reject


class _UnusableError(ValueError):
    """A field that cannot be used; the message is the reject's reason."""


def read_folder(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """Pictures, at any depth, with the caption in the `.txt` of the same name.

    The caption is the first line that is not empty (Debian's stamps have translations below).
    """
    return _batches(_folder_entries(path), batch_size)


def _folder_entries(path: Path) -> Iterator[Entry]:
    source, failed = printable(path), list[OSError]()
    root = path.resolve()
    for file in shown_files(root, failed.append):
        if file.suffix.lower() in SUFFIXES | OTHER_SUFFIXES:
            yield _attempt(source, printable(file.relative_to(root)), _picture, root, file)
    for error in failed:
        item = printable(Path(error.filename))
        yield Reject(source, item, f"unreadable folder ({error.strerror})")


def _picture(root: Path, picture: Path) -> dict[str, Any]:
    if picture.suffix.lower() in OTHER_SUFFIXES:
        raise _UnusableError(f"{picture.suffix.lower()} pictures are not supported")
    folder = picture.parent.relative_to(root).as_posix()
    return {
        "caption": _caption_file(picture.with_suffix(".txt")),
        "image_path": _text(str(picture), "file name"),
        "attributes": _json({"folder": folder}),
    }


def _caption_file(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_CAPTION_FILE:
            raise _UnusableError(f"caption file too large (over {MAX_CAPTION_FILE >> 20} MiB)")
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise _UnusableError(f"no caption file ({printable(Path(file.name))})") from error
    except OSError as error:
        raise _UnusableError(f"unreadable caption file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _UnusableError("caption is not UTF-8") from error
    return next((line for line in lines if line.strip()), "")


def read_csv(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """Comma-, semicolon- or tab-separated values with a header line."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header_line = stream.readline()
        delimiter = max(",;\t", key=header_line.count)
        header = next(csv.reader([header_line], delimiter=delimiter), [])
        if not _is_text("".join(header)) or "\0" in header_line:
            raise SourceError(f"{path} is not UTF-8 text")
        columns = sniff_columns(str(path), header)
        yield from _batches(_csv_entries(path, columns, header, stream, delimiter), batch_size)


def _csv_entries(
    path: Path, columns: Columns, header: list[str], stream: Iterable[str], delimiter: str
) -> Iterator[Entry]:
    lines = _Lines(stream)
    # strict: a quote that is never closed is an error instead of one enormous field.
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while not lines.at_end():
        number += 1
        try:
            row = next(rows, [])
        except csv.Error as error:
            lines.give_back_all_but_first()
            yield Reject(str(path), f"row {number}", f"malformed row ({error})")
            continue
        if row:
            yield _attempt(str(path), f"row {number}", _csv_row, columns, header, row)


def _csv_row(columns: Columns, header: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(header):
        raise _UnusableError(f"row has {len(row)} fields, the header has {len(header)}")
    if not _is_text("".join(row)):
        raise _UnusableError("row is not UTF-8")
    return _manifest_row(columns, dict(zip(header, row, strict=True)))


class _Lines:
    """Lines for `csv.reader` that can be given back: an unclosed quote takes all that follow."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rest = iter(lines)
        self._back: deque[str] = deque()
        self._taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        self._taken.append(self._back.popleft() if self._back else next(self._rest))
        return self._taken[-1]

    def at_end(self) -> bool:
        """Whether no line is left; a new row begins here."""
        self._taken = []
        if not self._back:
            self._back.extend(islice(self._rest, 1))
        return not self._back

    def give_back_all_but_first(self) -> None:
        """Undo the reading of a malformed row, except for its first line."""
        self._back.extendleft(reversed(self._taken[1:]))


def read_jsonl(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """One JSON object per line; rows are counted by lines."""
    with path.open("rb") as stream:
        numbered = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        parsed = ((number, _json_object(line)) for number, line in numbered)
        head = list(islice(parsed, _HEAD))
        names = dict.fromkeys(key for _, value in head if isinstance(value, dict) for key in value)
        columns = sniff_columns(str(path), [name for name in names if _is_text(name)])
        entries = (
            _attempt(str(path), f"row {number}", _json_row, columns, value)
            for number, value in chain(head, parsed)
        )
        yield from _batches(entries, batch_size)


def _json_object(line: bytes) -> dict[str, Any] | str:
    """The object on this line, or why there is none."""
    try:
        value = json.loads(line.decode("utf-8-sig"), parse_constant=lambda _: None)
    except UnicodeDecodeError:
        return "row is not UTF-8"
    except (ValueError, RecursionError):
        return "malformed JSON"
    return value if isinstance(value, dict) else "row is not a JSON object"


def _json_row(columns: Columns, value: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(value, str):
        raise _UnusableError(value)
    row = _manifest_row(columns, value)
    for name in VECTORS:
        row[name] = _numbers(_get(value, getattr(columns, name)), name)
    return row


def _manifest_row(columns: Columns, value: Mapping[str, Any]) -> dict[str, Any]:
    """The text columns of one row; what has no meaning here is an attribute."""
    names = ("caption", "pair_id", "image_uri", "license", "source")
    row: dict[str, Any] = {name: _text(_get(value, getattr(columns, name)), name) for name in names}
    row["image_path"] = _text(_get(value, columns.image), "image")
    row["attributes"] = _json({key: value[key] for key in columns.others(value)})
    return row


def _get(value: Mapping[str, Any], column: str | None) -> Any:
    return None if column is None else value.get(column)


def _text(value: Any, what: str) -> str | None:
    if value is None or isinstance(value, str):
        if value is not None and not _is_text(value):
            raise _UnusableError(f"{what} is not valid Unicode")
        return value
    if isinstance(value, bool | list | dict):
        raise _UnusableError(f"{what} is not text")
    return str(value)


def _is_text(value: str) -> bool:
    """Whether it can be stored; undecodable bytes and half surrogate pairs cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(value: Any, what: str) -> NDArray[np.float32] | None:
    """A vector; a null in it counts as NaN."""
    try:
        with np.errstate(over="ignore"):  # an infinity is refused with all others
            vector = None if value is None else np.array(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise _UnusableError(f"{what} is not a list of numbers") from error
    if vector is not None and vector.ndim != 1:
        raise _UnusableError(f"{what} is not a list of numbers")
    return vector


def _json(attributes: dict[str, Any]) -> str:
    try:
        text = json.dumps(attributes, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise _UnusableError("a number is out of range") from error
    return text.encode("utf-8", "replace").decode()


def printable(path: Path) -> str:
    """The path as valid Unicode: bytes of a name that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _attempt(source: str, item: str, read: Callable[..., dict[str, Any]], *args: Any) -> Entry:
    try:
        return {"item": item, **read(*args)}
    except _UnusableError as error:
        return Reject(source, item, str(error))


def _batches(entries: Iterator[Entry], batch_size: int) -> Iterator[SourceBatch]:
    while batch := list(islice(entries, batch_size)):
        rows = [entry for entry in batch if isinstance(entry, dict)]
        rejects = [entry for entry in batch if isinstance(entry, Reject)]
        yield SourceBatch(pl.DataFrame(rows, schema=SCHEMA), rejects)
