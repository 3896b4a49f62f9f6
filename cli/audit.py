"""audit: questions in SQL."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import Context
from .output import note, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from asif_lance.audit import Audit

#: Rows of a table for people; the other formats print all.
SHOWN = 100

#: A cell that begins like this is a formula to a spreadsheet.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@click.command()
@click.argument("sql", required=False)
@click.option("--report", metavar="NAME", help="Ask a canned question; its SQL is shown.")
@click.option("--reports", "listing", is_flag=True, help="List the canned questions.")
@click.option("--model", default="latest", metavar="V", help="The version that `pairs` shows.")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="json is JSON lines; parquet needs --output.",
)
@click.option(
    "--output",
    "file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the answer to this file (as CSV unless --format says otherwise).",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
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
    output: str,
    file: Path | None,
    timeout: float,
) -> None:
    """Ask the database in SQL (DuckDB): one SELECT over its tables, read-only.

    Tables: pairs, pairs_at('v3') for any version, versions, rejects; DESCRIBE and SHOW TABLES say
    what is in them. No file, network or setting can be reached from the SQL, so it may come from
    anyone. Without SQL there is a prompt; a statement ends with a semicolon.

    \b
      asif-lance audit "SELECT license, count(*) FROM pairs GROUP BY license"
      asif-lance audit "FROM pairs_at('v1') ANTI JOIN pairs USING (pair_id)" --format csv
      asif-lance audit --report near-duplicate-captions
    """
    from asif_lance.audit import Audit
    from asif_lance.store import PairStore

    if sql is not None and report is not None:
        raise click.UsageError("give SQL or --report, one of the two")
    if output == "parquet" and file is None:
        raise click.UsageError("--format parquet needs --output FILE")
    if listing:
        _list_reports(output)
        return
    with Audit(PairStore.open(context.db), model, seconds=timeout) as session:
        if report is not None:
            sql = _shown_sql(report)
        if sql is None:
            _prompt(session, output, file)
        else:
            _write(session.query(sql), output, file)


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


def _prompt(session: Audit, output: str, file: Path | None) -> None:
    """Statements from stdin, one after another; a mistake ends none of the others."""
    from asif_lance.errors import AsifError

    if sys.stdin.isatty():
        note("SQL over this database; a statement ends with ';', Ctrl-D leaves")
    failed = False
    for statement in _statements():
        try:
            _write(session.query(statement), output, file)
        except AsifError as error:
            note(f"asif-lance: {' '.join(str(error).split())}")
            failed = True
    if failed and not sys.stdin.isatty():
        sys.exit(1)


def _statements() -> Iterator[str]:
    """What stands between lines that end in a semicolon; the last one may go without."""
    lines: list[str] = []
    while True:
        if sys.stdin.isatty():
            click.echo("  ...> " if lines else "asif> ", nl=False, err=True)
        line = sys.stdin.readline()
        if line.strip() or lines:
            lines.append(line)
        if lines and (not line or line.rstrip().endswith(";")):
            yield "".join(lines)
            lines = []
        if not line:
            return


def _write(table: pa.Table, output: str, file: Path | None) -> None:
    if file is not None:
        _save(table, output, file)
    elif output == "table":
        _print_rows(table)
    else:
        for line in _csv_lines(table) if output == "csv" else _json_lines(table):
            click.echo(line, nl=False)


def _save(table: pa.Table, output: str, file: Path) -> None:
    from asif_lance.errors import StorageError

    try:
        if output == "parquet":
            import pyarrow.parquet as pq

            pq.write_table(table, file)
        else:
            lines = _json_lines(table) if output == "json" else _csv_lines(table)
            file.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror or error}") from error
    note(f"wrote {len(table):,} rows to {file}")


def _print_rows(table: pa.Table) -> None:
    rows = table.slice(0, SHOWN).to_pydict().values()
    print_table(table.column_names, list(zip(*rows, strict=True)))
    if len(table) > SHOWN:
        note(f"… and {len(table) - SHOWN:,} more rows; --format csv or json prints them all")


def _json_lines(table: pa.Table) -> Iterator[str]:
    import json

    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            yield json.dumps(_finite(row), ensure_ascii=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value


def _csv_lines(table: pa.Table) -> Iterator[str]:
    yield _csv_line(table.column_names)
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            yield _csv_line(row.values())


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(_harmless(cell) for cell in cells)
    return line.getvalue()


def _harmless(cell: object) -> object:
    """A caption must not become a formula in somebody's spreadsheet; numbers stay numbers."""
    if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA):
        return "'" + cell
    return cell
