"""info, optimize, migrate: the database itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count

from .options import Context, format_option, open_store
from .output import megabytes, note, print_json, print_table

if TYPE_CHECKING:
    from asif_lance.store import Info


@click.command()
@format_option
@click.pass_obj
def info(context: Context, output: str) -> None:
    """Show what is in the database: encoders, versions, pairs, size."""
    from asif_lance.store import maintenance

    found = maintenance.info(open_store(context))
    if output == "json":
        print_json(_facts(found))
        return
    facts = {
        "database": found.uri,
        "image encoder": f"{found.image.name} ({found.image.dimension}-d)",
        "text encoder": f"{found.text.name} ({found.text.dimension}-d)",
        "versions": found.versions,
        "newest": found.latest.name if found.latest else "none yet",
        "pairs": found.latest.pairs if found.latest else 0,
        "unpublished changes": found.unpublished,
        "fragments": found.fragments,
        "size": megabytes(found.bytes),
        "reclaimable by optimize": megabytes(found.bytes_reclaimable),
        "indices": ", ".join(found.indices) or "none",
        "rejected items": found.rejects,
        "receipts": found.receipts,
    }
    print_table(["", ""], [(k, str(v)) for k, v in facts.items()])


def _facts(found: Info) -> dict[str, object]:
    """The same for programs: numbers as numbers, their unit in the key."""
    return {
        "database": found.uri,
        "image_encoder": asdict(found.image),
        "text_encoder": asdict(found.text),
        "versions": found.versions,
        "newest": found.latest.name if found.latest else None,
        "pairs": found.latest.pairs if found.latest else 0,
        "unpublished_changes": found.unpublished,
        "fragments": found.fragments,
        "bytes": found.bytes,
        "reclaimable_bytes": found.bytes_reclaimable,
        "indices": found.indices,
        "rejected_items": found.rejects,
        "receipts": found.receipts,
    }


@click.command()
@click.pass_obj
def optimize(context: Context) -> None:
    """Compact small fragments, bring indices up to date, free what no version needs."""
    from asif_lance.store import maintenance

    done = maintenance.optimize(open_store(context))
    sizes = megabytes(done.bytes_before), megabytes(done.bytes_after)
    fragments = done.fragments_before, done.fragments_after
    if sizes[0] == sizes[1] and fragments[0] == fragments[1]:
        note(f"nothing to do: {format_count(fragments[1], 'fragment')}, {sizes[1]}")
        return
    note(
        f"fragments: {fragments[0]:,} before, {fragments[1]:,} now; "
        f"size: {sizes[0]} before, {sizes[1]} now"
    )


@click.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Bring a database that an older release made to this release's schema."""
    from asif_lance.database import run_migrations

    applied = run_migrations(context.db)
    for name in applied:
        note(f"applied {name}")
    if not applied:
        note("nothing to do: the database is up to date")
