"""runs: the recorded predictions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta

import click

from .options import Age, Context, format_option, open_store
from .output import note, print_json, print_table


@click.group(invoke_without_command=True)
@format_option
@click.pass_context
def runs(ctx: click.Context, output: str) -> None:
    """List what `classify --record` has kept, oldest first; `runs prune` drops old runs."""
    if ctx.invoked_subcommand is not None:
        return
    from asif_lance.runs import runs as recorded

    context: Context = ctx.obj
    found = [asdict(run) for run in recorded(open_store(context))]
    for run in found:
        run["created_at"] = f"{run['created_at']:%Y-%m-%dT%H:%M:%S%z}"
    if output == "json":
        for run in found:
            print_json(run)
        return
    columns = ["run_id", "created_at", "model", "recipe", "labels", "predictions", "templates"]
    rows = [run | {"templates": run["templates"] or ""} for run in found]
    print_table(columns, [[str(row[column]) for column in columns] for row in rows])


@runs.command()
@click.option("--keep-last", type=click.IntRange(min=0), metavar="N", help="Runs that stay.")
@click.option("--older-than", type=Age(), help="Drop only runs older than this: 90d, 12h.")
@click.pass_obj
def prune(context: Context, keep_last: int | None, older_than: timedelta | None) -> None:
    """Drop old runs with their predictions and attributions.

    \b
      asif-lance runs prune --older-than 90d
    """
    from asif_lance import runs as library

    if keep_last is None and older_than is None:
        raise click.UsageError("give --keep-last or --older-than")
    gone = library.prune(open_store(context), keep_last=keep_last, older_than=older_than)
    note(f"dropped {len(gone)} runs")
