"""delete: pairs out of the newest model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count

from .options import (
    Context,
    format_option,
    message_option,
    need_ids_or_where,
    open_store,
    pairs_arguments,
)
from .output import confirm, note, print_json

if TYPE_CHECKING:
    from asif_lance.records import ModelVersion


@click.command()
@pairs_arguments
@click.option("--dry-run", is_flag=True, help="Say how many pairs it would take; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before taking most of the pairs.")
@message_option
@format_option
@click.pass_obj
def delete(
    context: Context,
    ids: tuple[str, ...],
    where: str | None,
    dry_run: bool,
    yes: bool,
    message: str,
    output: str,
) -> None:
    """Take pairs out of the newest model, by ID or by a predicate.

    Older versions still have them, so `rollback` brings them back. To take pairs out of every
    version and off the disk, see `forget`. A predicate that takes more than half of the pairs has
    to be confirmed.

    \b
      asif-lance delete 8c4b…  f01d…
      asif-lance delete --where "license = 'CC-BY-NC'"
    """
    need_ids_or_where(ids, where)
    store = open_store(context)
    from asif_lance.audit import HEAD, matching_ids

    chosen = list(dict.fromkeys(ids)) if where is None else matching_ids(store, where, HEAD)
    newest = store.version()
    if dry_run:
        _print_deletion(len(store.existing(chosen)), len(chosen), newest, output, done=False)
        return
    if where is not None and not yes and 2 * len(chosen) > newest.pairs:
        confirm(f"That takes {len(chosen):,} of {format_count(newest.pairs, 'pair')}. Delete them?")
    deleted = store.delete(chosen)
    version = store.publish(command="delete", message=message) or newest
    _print_deletion(deleted, len(chosen), version, output, done=True)


def _print_deletion(
    deleted: int, asked: int, version: ModelVersion, output: str, *, done: bool
) -> None:
    if output == "json":
        print_json({"deleted": deleted, "not_found": asked - deleted, "version": version.name})
        return
    if deleted < asked:
        note(f"not in the newest model: {asked - deleted:,} of the ids")
    if done:
        note(f"deleted {format_count(deleted, 'pair')}; the newest model is {version.name}")
    else:
        note(
            f"would delete {deleted:,} of {format_count(version.pairs, 'pair')}; "
            "nothing was changed"
        )
