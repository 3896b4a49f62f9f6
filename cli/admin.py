"""info, migrate: the database itself."""

from __future__ import annotations

import click

from .options import Context, format_option
from .output import note, print_json, print_table


@click.command()
@format_option
@click.pass_obj
def info(context: Context, output: str) -> None:
    """Show what is in the database: encoders, versions, pairs."""
    from asif_lance.store import PairStore

    store = PairStore.open(context.db)
    versions = store.versions()
    facts = {
        "database": store.uri,
        "image encoder": f"{store.image.name} ({store.image.dimension}-d)",
        "text encoder": f"{store.text.name} ({store.text.dimension}-d)",
        "versions": len(versions),
        "newest": versions[-1].name if versions else "none yet",
        "pairs": versions[-1].pairs if versions else 0,
    }
    if output == "json":
        print_json(facts)
    else:
        print_table(["", ""], [(k, str(v)) for k, v in facts.items()])


@click.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Bring a database that an older release made to this release's schema."""
    from asif_lance.schema import migrate as run

    applied = run(context.db)
    for name in applied:
        note(f"applied {name}")
    if not applied:
        note("nothing to do: the database is up to date")
