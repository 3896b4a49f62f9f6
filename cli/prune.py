"""prune: pairs that recorded predictions do without."""

from __future__ import annotations

import click

from asif_lance.errors import format_count

from .options import Context, format_option, open_store
from .output import note, percent, print_json
from .parameter_types import Count, Real


@click.command(short_help="Take out the pairs that recorded predictions do without.")
@click.option(
    "--unused-in",
    "run_ids",
    multiple=True,
    metavar="RUN",
    help="A recorded run to agree with; repeat it for several. By default all of them.",
)
@click.option(
    "--agreement",
    type=Real(0, 1),
    default=0.99,
    show_default=True,
    metavar="SHARE",
    help="The share of recorded predictions that must keep its label.",
)
@click.option("--keep", type=Count(), metavar="N", help="Pairs that stay, at most.")
@click.option("--dry-run", is_flag=True, help="Measure, and leave the model as it is.")
@format_option
@click.pass_obj
def prune(
    context: Context,
    run_ids: tuple[str, ...],
    agreement: float,
    keep: int | None,
    dry_run: bool,
    output: str,
) -> None:
    """Take out of the newest model the pairs that recorded predictions do without.

    Those with the least recorded weight go first, as many as --agreement allows, or all but --keep.
    The agreement is measured on every recorded prediction. A new version is made; older ones
    still have the pairs, and `rollback` brings them back.

    \b
      asif-lance prune --dry-run
      asif-lance prune --unused-in r20261124-101500-5ab1f4c0d2e3 --agreement 0.995
      asif-lance prune --keep 100000
    """
    from asif_lance.whatif import prunable_pairs

    store = open_store(context)
    if not dry_run:
        store.check_own("prune")
    found = prunable_pairs(store, run_ids, agreement=agreement, keep=keep)
    version = found.version
    if found.removable and not dry_run:
        message = f"{percent(found.agreement)} of {found.predictions} recorded predictions agree"
        store.delete(found.removable)
        made = store.publish(command="prune", message=message)
        version = made.name if made else version
    if output == "json":
        names = ("pairs", "unused", "coverage", "predictions", "agreement")
        facts = {name: getattr(found, name) for name in names}
        count = len(found.removable)
        print_json({"pruned": count, **facts, "dry_run": dry_run, "version": version})
        return
    can = "could go" if dry_run else "went"
    click.echo(
        f"{len(found.removable):,} of {format_count(found.pairs, 'pair')} {can}; "
        f"{percent(found.agreement)} of {format_count(found.predictions, 'recorded prediction')} "
        "keep their label"
    )
    note(
        f"{found.unused:,} are in no recorded attribution (which cover {percent(found.coverage)} "
        f"of the scores); the newest model is {version}"
    )
