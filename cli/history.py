"""versions, tag, rollback: the life of a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .options import Context, format_option, message_option
from .output import note, print_json, print_table

if TYPE_CHECKING:
    from asif_lance.records import ModelVersion


def as_json(version: ModelVersion) -> dict[str, Any]:
    """What users see of a version; Lance's own number stays inside."""
    value = asdict(version)
    del value["lance_version"], value["number"]
    return value | {"created_at": version.created_at.isoformat()}


@click.command()
@format_option
@click.pass_obj
def versions(context: Context, output: str) -> None:
    """List the model versions, oldest first."""
    from asif_lance.store import PairStore

    found = PairStore.open(context.db).versions()
    if output == "json":
        for version in found:
            print_json(as_json(version))
        return
    print_table(
        ["version", "pairs", "added", "removed", "made (UTC)", "command", "message", "aliases"],
        [
            (
                v.name,
                v.pairs,
                v.added,
                v.removed,
                f"{v.created_at:%Y-%m-%d %H:%M:%S}",
                v.command,
                v.message,
                ", ".join(v.aliases),
            )
            for v in found
        ],
    )


@click.command()
@click.argument("alias")
@click.argument("version", required=False, default="latest")
@click.option("--remove", is_flag=True, help="Take the alias away; the version stays.")
@click.pass_obj
def tag(context: Context, alias: str, version: str, remove: bool) -> None:
    """Give a version (by default the newest) a further name, or move that name.

    \b
      asif-lance tag prod v3
      asif-lance classify cat.jpg --labels cat,dog --model prod
    """
    from asif_lance.store import PairStore

    store = PairStore.open(context.db)
    if remove:
        store.untag(alias)
        note(f"{alias} is no alias any more")
        return
    store.tag(alias, version)
    note(f"{alias} is {store.version(alias).name} now")


@click.command()
@click.argument("version")
@message_option
@click.pass_obj
def rollback(context: Context, version: str, message: str) -> None:
    """Make an old version the newest one: a new version with the old one's pairs."""
    from asif_lance.store import PairStore

    made = PairStore.open(context.db).rollback(version, message=message)
    note(f"{made.name} has the {made.pairs:,} pairs of {version}")
