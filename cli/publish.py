"""publish: what other programs wrote into the pairs becomes a model version."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count

from .options import Context, format_option, message_option
from .output import note, print_json

if TYPE_CHECKING:
    from asif_lance.store import BadRow

_SHOWN = 10


@click.command(short_help="Make a version of what plain LanceDB added, changed or deleted.")
@click.option("--drop", is_flag=True, help="First take out rows that cannot be pairs.")
@message_option
@format_option
@click.pass_obj
def publish(context: Context, /, drop: bool, message: str, output: str) -> None:
    """Make a version of pairs that were added, changed or deleted with plain LanceDB.

    What is new is looked at first: an id that is there once, a caption, vectors of length 1, and
    nothing that was forgotten. If a row fails, no version is made; `--drop` takes out those that
    cannot be pairs. Columns of other programs change no pair.

    \b
      asif-lance publish --message "labelled by hand"
      asif-lance publish --drop
    """
    from asif_lance.store import PairStore

    store = PairStore.open(context.db)
    dropped = store.drop_bad_rows() if drop else ()
    version = store.publish(command="publish", message=message)
    if version is None:
        store.adopt_head()  # files that another program rewrote need no comparing any more
    if output == "json":
        name = version.name if version else None
        print_json({"version": name, "dropped": [asdict(row) for row in dropped]})
        return
    _tell_dropped(dropped)
    if version is None:
        note("nothing to publish: the newest version has the same pairs")
        return
    note(f"{version.name}: {version.added:,} added, {version.removed:,} removed")


def _tell_dropped(dropped: tuple[BadRow, ...]) -> None:
    for row in dropped[:_SHOWN]:
        note(f"taken out: {row.pair_id!r}: {row.reason}")
    if len(dropped) > _SHOWN:
        note(f"taken out: {format_count(len(dropped) - _SHOWN, 'more row')}")
