"""runs: the recorded predictions."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count

from .manners import CommandGroup
from .options import Context, format_option, open_store
from .output import note, print_json, print_table
from .parameter_types import Age, Count

if TYPE_CHECKING:
    from asif_lance.audit import RetentionRule


@click.group(invoke_without_command=True, cls=CommandGroup)
@format_option
@click.pass_context
def runs(ctx: click.Context, output: str) -> None:
    """List what `classify --record` has kept, oldest first.

    `runs prune` drops old runs, `runs keep` has each new run do so.
    """
    if ctx.invoked_subcommand is not None:
        return
    from asif_lance.audit import list_runs as recorded

    context: Context = ctx.obj
    found = [asdict(run) for run in recorded(open_store(context))]
    if output == "json":
        for run in found:
            print_json(run)
        return
    columns = ["run_id", "created_at", "model", "recipe", "labels", "predictions", "templates"]
    rows = [
        run | {"templates": run["templates"] or "", "created_at": f"{run['created_at']:%F %T}"}
        for run in found
    ]
    print_table(columns, [[str(row[column]) for column in columns] for row in rows])


@runs.command()
@click.option(
    "--last", "--keep-last", "last", type=Count(), metavar="N", help="The newest N runs stay."
)
@click.option("--younger-than", type=Age(), help="Younger runs stay, too: 90d, 12h.")
@click.option("--everything", is_flag=True, help="All runs stay, as in a new database.")
@click.pass_obj
def keep(
    context: Context, last: int | None, younger_than: timedelta | None, everything: bool
) -> None:
    """Say which runs stay: each `classify --record` drops the others when it is done.

    Without options: show what holds now.

    \b
      asif-lance runs keep --last 20 --younger-than 90d
    """
    from asif_lance.audit import runs as library

    rule = library.RetentionRule(last, younger_than)
    if everything and not rule.everything:
        raise click.UsageError("--everything goes with neither --last nor --younger-than")
    store = open_store(context)
    if everything or not rule.everything:
        library.set_retention(store, rule)
    note(f"kept: {_in_words(library.retention_rule(store))}")


def _in_words(rule: RetentionRule) -> str:
    last = rule.last and ("the newest run" if rule.last == 1 else f"the newest {rule.last:,} runs")
    young = rule.younger_than and f"runs younger than {_age(rule.younger_than)}"
    return " and ".join(part for part in (last, young) if part) or "all runs"


def _age(age: timedelta) -> str:
    """As `Age` reads it."""
    minutes = age // timedelta(minutes=1)
    for unit, length in (("d", 24 * 60), ("h", 60)):
        if minutes % length == 0:
            return f"{minutes // length}{unit}"
    return f"{minutes}m"


@runs.command()
@click.option(
    "--keep-last", "--last", "keep_last", type=Count(0), metavar="N", help="The newest N runs stay."
)
@click.option("--older-than", type=Age(), help="Drop only runs older than this: 90d, 12h.")
@click.pass_obj
def prune(context: Context, keep_last: int | None, older_than: timedelta | None) -> None:
    """Drop old runs with their predictions and attributions.

    \b
      asif-lance runs prune --older-than 90d
    """
    from asif_lance.audit import runs as library

    if keep_last is None and older_than is None:
        raise click.UsageError("give --keep-last or --older-than")
    gone = library.prune_runs(open_store(context), keep_last=keep_last, older_than=older_than)
    note(f"dropped {format_count(len(gone), 'run')}")
