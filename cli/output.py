"""Results on stdout, notes on stderr; nothing that is printed can drive a terminal."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import Any

import click

from asif_lance.errors import AsifError, printable


def print_json(value: Any) -> None:
    """One JSON object on one line."""
    click.echo(to_json(value))


def to_json(value: Any) -> str:
    """Strict JSON on one line: numbers as numbers, moments in ISO 8601 and UTC, no NaN.

    Bytes of names that are not UTF-8 are shown as in a table: `caf\\xe9.png`.
    """
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    match value:
        case None | bool():
            return value
        case dict():
            return {_encodable(str(key)): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case Integral():
            return int(value)
        case Real():
            return float(value) if value - value == 0 else None  # JSON has no NaN, no infinity
        case datetime():
            return moment(value)
        case bytes():
            return base64.b64encode(value).decode()
    return _encodable(str(value))


def moment(when: datetime) -> str:
    """A time as all commands print it for programs: ISO 8601, UTC."""
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _encodable(text: str) -> str:
    """Text that UTF-8 can hold; only bytes of file names that are none are changed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(printable(c) if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def note(text: str) -> None:
    """A line for the person, not part of the result."""
    click.echo(printable(text), err=True)


def note_error(error: AsifError) -> None:
    """A failure, in one line."""
    note(f"asif-lance: {' '.join(str(error).split())}")


def confirm(question: str) -> None:
    """Asks for a yes.

    Raises:
        Abort: the answer is no.
        ClickException: nobody is there to answer.
    """
    try:
        click.confirm(question, abort=True, err=True)
    except (click.Abort, RuntimeError):  # RuntimeError: stdin is closed
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise click.ClickException("not confirmed, nothing was done: give --yes") from None


def megabytes(count: int | None) -> str:
    """A number of bytes for people."""
    if count is None:
        return "unknown"
    return f"{count / 1e6:,.1f} MB" if not 0 < count < 50_000 else f"{count / 1e3:,.1f} kB"


def percent(share: float, digits: int = 1) -> str:
    """A share for people; 0% and 100% are none and all, what is next to them has more digits."""
    told = f"{share:.{digits}%}"
    while float(told[:-1]) in (0, 100) and share not in (0, 1) and digits < _MOST_DIGITS:
        digits += 1
        told = f"{share:.{digits}%}"
    return told


_MOST_DIGITS = 6  # of a share in percent

#: Longest text of a cell in a terminal; files, pipes and JSON have all of it.
SHOWN_CHARACTERS = 300


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table; numbers to the right. Cell text is never read as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    longest = SHOWN_CHARACTERS if console.is_terminal else None
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    rows = [list(row) for row in rows]
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        justify: Any = "right" if numeric else "left"
        name = _shorten(printable(column), longest)
        table.add_column(Text(name), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shorten(printable(_cell(value)), longest)) for value in row))
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=100_000)  # a file or a pipe: one line per row, however long
    with wide.capture() as text:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def _shorten(text: str, longest: int | None) -> str:
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
