"""audit: questions in SQL."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from asif_lance.errors import format_count, printable

from .options import Context, open_store
from .output import note, note_error, print_json, print_table, to_json
from .parameter_types import TEXT, OutputFile, Real

if TYPE_CHECKING:
    import pyarrow as pa

    from asif_lance.audit import Audit

#: Rows of a table for people; the other formats print all.
SHOWN = 100

#: What the answer's file may be called, and the format that its name says.
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}


@click.command(short_help="Ask the database in SQL (DuckDB): one SELECT, read-only.")
@click.argument("sql", required=False)
@click.option("--report", metavar="NAME", help="Ask a canned question; its SQL is shown.")
@click.option("--reports", "listing", is_flag=True, help="List the canned questions.")
@click.option("--model", default="latest", metavar="V", help="The version that `pairs` shows.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    help="json is JSON lines; parquet needs --output. [default: as the file's name, else table]",
)
@click.option(
    "--output",
    "-o",
    "file",
    type=OutputFile(*SUFFIXES),
    help="Write the answer to this file: .csv, .json, .jsonl or .parquet.",
)
@click.option(
    "--spreadsheet",
    is_flag=True,
    help="In CSV, put a ' before texts that a spreadsheet would take for a formula.",
)
@click.option(
    "--timeout",
    type=Real(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="A query that runs longer is stopped.",
)
@click.pass_obj
def audit(
    context: Context,
    sql: str | None,
    report: str | None,
    listing: bool,
    model: str,
    output: str | None,
    file: Path | None,
    spreadsheet: bool,
    timeout: float,
) -> None:
    """Ask the database in SQL (DuckDB): one SELECT over its tables, read-only.

    Tables: pairs, pairs_at('v3') for any version, versions, rejects; DESCRIBE and SHOW TABLES say
    what is in them. No file, network or setting can be reached from the SQL, so it may come from
    anyone. Without SQL there is a prompt; a statement ends with a semicolon, and without a terminal
    statements are read from standard input.

    JSON has the texts "NaN", "Infinity" and "-Infinity" for numbers that it lacks. CSV is as DuckDB
    and PostgreSQL write it: NULL is an empty field, an empty text is "" in quotes; lists and
    structs are JSON. Both have BLOBs in base64, and decimals with all their digits (as texts in
    JSON, where a float would lose some).

    \b
      asif-lance audit "SELECT license, count(*) FROM pairs GROUP BY license"
      asif-lance audit "FROM pairs_at('v1') ANTI JOIN pairs USING (pair_id)" --format csv
      asif-lance audit --report near-duplicate-captions
    """
    from asif_lance.audit import Audit

    if sql is not None and report is not None:
        raise click.UsageError("give SQL or --report, one of the two")
    write = _Writer.of(output, file, spreadsheet)
    if listing:
        _list_reports(write.format)
        return
    if sql is None and report is None and sys.stdin is None:
        raise click.UsageError("standard input is closed: give the SQL as an argument")
    with Audit(open_store(context), model, seconds=timeout) as session:
        if report is not None:
            sql = _shown_sql(report)
        if sql is None:
            _prompt(session, write)
        else:
            write(session.query(sql))


def _list_reports(output: str) -> None:
    from asif_lance.audit import REPORTS

    if output == "json":
        for one in REPORTS:
            print_json({"report": one.name, "question": one.question, "sql": one.sql})
    else:
        print_table(["report", "question"], [(one.name, one.question) for one in REPORTS])


def _shown_sql(name: str) -> str:
    from asif_lance.audit import reports

    chosen = reports.report(name)
    note(chosen.question)
    for line in chosen.sql.splitlines():
        note(line)
    note("")
    return chosen.sql


def _prompt(session: Audit, write: _Writer) -> None:
    """Statements from stdin, one after another; a mistake ends none of the others."""
    from asif_lance.errors import AsifError

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # told as what it is, see `TEXT`
    if sys.stdin.isatty():
        note("SQL over this database; a statement ends with ';', Ctrl-D leaves")
    failed = False
    for statement in _statements(sys.stdin):
        try:
            write(session.query(statement))
        except AsifError as error:
            note_error(error)
            failed = True
    if failed and not sys.stdin.isatty():
        sys.exit(1)


def _statements(lines: TextIO) -> Iterator[str]:
    """What stands between semicolons; the last one may go without."""
    text = ""
    while True:
        if lines.isatty():
            click.echo("  ...> " if text.strip() else "asif> ", nl=False, err=True)
        line = TEXT.convert(lines.readline(), None, None)
        *complete, text = _split(text + line) if line else (text, "")
        yield from filter(_asks, complete)
        if not line:
            return


def _split(text: str) -> list[str]:
    """SQL taken apart at its semicolons, but for those in quotes and comments."""
    import duckdb

    raw = text.encode()
    ends = [
        at + 1
        for at, kind in duckdb.tokenize(text)
        if kind == duckdb.token_type.operator and raw[at : at + 1] == b";"
    ]
    return [raw[a:b].decode() for a, b in zip([0, *ends], [*ends, len(raw)], strict=True)]


def _asks(statement: str) -> bool:
    """Whether there is more than comments before the semicolon."""
    import duckdb

    kinds = [kind for _, kind in duckdb.tokenize(statement.rstrip().removesuffix(";"))]
    return any(kind != duckdb.token_type.comment for kind in kinds)


@dataclass(frozen=True, slots=True)
class _Writer:
    """How answers are written.

    Attributes:
        format: `table`, `json` (lines), `csv` or `parquet`.
        file: where to; None for stdout.
        spreadsheet: whether CSV is made harmless for spreadsheets; else it is exact.
    """

    format: str
    file: Path | None
    spreadsheet: bool

    @classmethod
    def of(cls, output: str | None, file: Path | None, spreadsheet: bool) -> _Writer:
        """What the options ask for."""
        by_name = None if file is None else SUFFIXES[file.suffix.lower()]
        chosen = output or by_name or "table"
        if file is None and chosen == "parquet":
            raise click.UsageError("--format parquet needs --output FILE")
        if file is not None and chosen != by_name:
            raise click.UsageError(f"--format {chosen} does not go into a {file.suffix} file")
        if spreadsheet and chosen != "csv":
            raise click.UsageError("--spreadsheet is about CSV")
        return cls(chosen, file, spreadsheet)

    def __call__(self, table: pa.Table) -> None:
        """Write one answer."""
        from asif_lance.audit.values import distinct_names

        table = table.rename_columns(distinct_names(table.column_names))
        if self.file is not None:
            self._save(table, self.file)
        elif self.format == "table":
            _print_rows(table)
        else:
            for line in self._lines(table):
                click.echo(_for_terminal(line), nl=False)

    def _lines(self, table: pa.Table) -> Iterator[str]:
        if self.format == "json":
            return _json_lines(table)
        return _csv_lines(table, self.spreadsheet)

    def _save(self, table: pa.Table, file: Path) -> None:
        from asif_lance.errors import StorageError

        try:
            if self.format == "parquet":
                import pyarrow.parquet as pq

                pq.write_table(table, file)
            else:
                with file.open("w", encoding="utf-8", newline="") as stream:
                    stream.writelines(self._lines(table))
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror or error}") from error
        note(f"wrote {format_count(len(table), 'row')} to {file}")


def _for_terminal(line: str) -> str:
    """The line itself for programs; what could drive a terminal is shown there."""
    return printable(line.removesuffix("\n")) + "\n" if sys.stdout.isatty() else line


def _print_rows(table: pa.Table) -> None:
    from asif_lance.audit.values import values_of

    columns = [values_of(column) for column in table.slice(0, SHOWN).columns]
    print_table(table.column_names, list(zip(*columns, strict=True)))
    if len(table) > SHOWN:
        note(
            f"… and {format_count(len(table) - SHOWN, 'more row')}; --format csv or "
            "json prints them all"
        )


def _json_lines(table: pa.Table) -> Iterator[str]:
    from asif_lance.audit.csv_lines import name_infinities
    from asif_lance.audit.values import iterate_rows

    for row in iterate_rows(table):
        named = zip(table.column_names, row, strict=True)
        yield to_json({name: name_infinities(value) for name, value in named}) + "\n"


def _csv_lines(table: pa.Table, spreadsheet: bool) -> Iterator[str]:
    from asif_lance.audit.csv_lines import csv_lines

    return csv_lines(table, spreadsheet)
