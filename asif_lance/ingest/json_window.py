"""JSON decoded from a window of a file: it may be longer than memory, and damage has a line."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from typing import Any, TextIO, TypeAlias

from asif_lance.errors import printable
from asif_lance.ingest.batches import is_text

# A row's number, and its object or why there is none.
Row: TypeAlias = tuple[int, dict[str, Any] | str]

# Bytes or characters of one row.
MAX_ROW = 64 * 2**20
TOO_LONG = f"row too long (over {MAX_ROW >> 20} MiB)"

# Characters that are read at once.
_CHUNK = 1 << 18

_BLANKS = " \t\r\n"


def as_object(value: Any, twice: str | None) -> dict[str, Any] | str:
    """The object itself, or why it is none: `twice` is a key of it that comes twice."""
    if twice is not None:
        return f"{printable(twice)} is given twice"
    return value if isinstance(value, dict) else "row is not a JSON object"


class Decoder:
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
            self._twice = first_twice([key for key, _ in pairs])
        return value


def first_twice(keys: Iterable[str]) -> str:
    """The first key that comes twice, of which there is one."""
    seen: set[str] = set()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]


class Window:
    """A part of a text file that moves on and grows as needed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._text, self._at = stream, "", 0
        self._lines_before = 0
        self._decoder = Decoder()

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
        value, twice, is_utf8 = self.take_value()
        return as_object(value, twice) if is_utf8 else "row is not UTF-8"

    def take_value(self) -> tuple[Any, str | None, bool]:
        """The next value of any kind, a key in it that comes twice, and whether it is UTF-8.

        Raises:
            ValueError: as for `take`.
        """
        fault_at = -1
        while len(self._text) - self._at <= MAX_ROW:
            try:
                value, twice, end = self._decoder.read_at(self._text, self._at)
                if end < len(self._text) or not self._grow():  # a number might go on
                    raw, self._at = self._text[self._at : end], end
                    return value, twice, is_text(raw)
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
        raise ValueError(TOO_LONG)

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


def list_rows(window: Window) -> Generator[Row, None, int]:
    """The rows of the list that begins here; the last one says so if it cannot be read on.

    Returns:
        How many there were; -1 if the rest cannot be read.
    """
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
            return -1
        mark = window.peek()
        if mark not in ("]", ","):
            fault = window.fault("expected ',' or ']'")
            yield number + 1, f"{fault}; what follows is not read"
            return -1
        window.skip()
    return number
