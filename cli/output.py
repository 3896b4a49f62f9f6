"""Results on stdout, notes on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """One JSON object on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """A line for the person, not part of the result."""
    click.echo(printable(text), err=True)


def printable(text: str) -> str:
    """Text that cannot drive a terminal: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def megabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:,.1f} MB"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A plain table; numbers to the right. Cell text is never read as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    rows = [list(row) for row in rows]
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(_cell(value))) for value in row))
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=100_000)  # a file or a pipe: one line per row, however long
    with wide.capture() as text:
        wide.print(table)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
