"""info, check, optimize, migrate: the database itself."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count

from .encoders import describe
from .options import Context, format_option, open_store
from .output import megabytes, note, print_json, print_table

if TYPE_CHECKING:
    from asif_lance.store import Info


@click.command(short_help="Show what is in the database: encoders, versions, pairs, size.")
@format_option
@click.pass_obj
def info(context: Context, output: str) -> None:
    """Show what is in the database, and the processor that searches it.

    Encoders, versions, pairs and size; the processor's instruction sets, how many threads it may
    use, and in which type it multiplies batches fastest, measured in this process.
    """
    from asif_lance.search import describe_processor
    from asif_lance.store import maintenance

    found = maintenance.info(open_store(context))
    if output == "json":
        print_json({**_facts(found), "processor": asdict(describe_processor())})
        return
    at_once = megabytes(found.bytes_reclaimable + found.bytes_waiting)
    facts = {
        "database": found.uri,
        "image encoder": describe(found.image),
        "text encoder": describe(found.text),
        "versions": found.versions,
        "newest": found.latest.name if found.latest else "none yet",
        "pairs": found.latest.pairs if found.latest else 0,
        "unpublished changes": found.unpublished,
        "fragments": found.fragments,
        "size": megabytes(found.bytes),
        "reclaimable by optimize": f"{megabytes(found.bytes_reclaimable)} ({at_once} with --now)",
        "indices": ", ".join(found.indices) or "none",
        "rejected items": found.rejects,
        "receipts": found.receipts,
        "last checked": _tell_check(found),
        "processor": describe_processor(),
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
        "waiting_bytes": found.bytes_waiting,
        "indices": found.indices,
        "rejected_items": found.rejects,
        "receipts": found.receipts,
        "checked_at": found.checked_at,
        "damaged_files": found.damaged,
    }


def _tell_check(found: Info) -> str:
    if found.checked_at is None:
        return "never"
    damaged = f", {format_count(found.damaged, 'file')} damaged" if found.damaged else ""
    return f"{found.checked_at:%Y-%m-%d %H:%M:%S}{damaged}"


@click.command(short_help="Look for files that are not as they were written.")
@format_option
@click.pass_obj
def check(context: Context, output: str) -> None:
    """Look for damaged files: compare each with what it was when it was written.

    Every file of the tables has a digest, made when the command that wrote it ended. Files that
    have none yet (the newest receipt, what an earlier release, another program or a command that
    was killed wrote) are decoded instead, told as not known, and get theirs. Every table and
    version is opened, too, and the journal of a forget that was killed is read. Nothing is
    repaired: what is damaged has to come from a backup. Leaves with status 1 if anything is
    damaged.

    \b
      asif-lance check
      asif-lance check --format json
    """
    from asif_lance.database import check, resolve_uri

    report = check(resolve_uri(context.db))
    if output == "json":
        print_json({**asdict(report), "ok": report.ok})
    else:
        print_table(
            ["surface", "files", "bytes", "ok", "damaged", "not known"],
            [(s.name, s.files, s.bytes, s.ok, s.damaged, s.unknown) for s in report.surfaces],
        )
    for damage in report.damage:
        note(f"DAMAGED: {damage.file}: {damage.reason}")
    if report.forgetting:
        note(
            "a forget has begun and not ended: if it was killed, the next command that opens the "
            "database finishes it"
        )
    if not report.recorded:
        note("the database cannot be written: that it was checked is not kept")
    if not report.ok:
        sys.exit(1)


@click.command(short_help="Compact files, update indices, free what no version needs.")
@click.option("--now", is_flag=True, help="Free at once what readers may still have open.")
@click.pass_obj
def optimize(context: Context, now: bool) -> None:
    """Compact small fragments, bring indices up to date, free what no version needs.

    Who has the table open with plain Lance or LanceDB reads on undisturbed for ten minutes after
    its state was replaced; then the next `optimize` frees it. `--now` does not wait, nor do
    `versions prune` and `forget`. Readers of a model version's name are never disturbed.
    """
    from asif_lance.database import GRACE
    from asif_lance.store import maintenance

    done = maintenance.optimize(open_store(context), grace=timedelta(0) if now else GRACE)
    sizes = megabytes(done.bytes_before), megabytes(done.bytes_after)
    fragments = done.fragments_before, done.fragments_after
    if not done.bytes_freed and fragments[0] == fragments[1] and not done.bytes_waiting:
        note(f"nothing to do: {format_count(fragments[1], 'fragment')}, {sizes[1]}")
        return
    note(
        f"fragments: {fragments[0]:,} before, {fragments[1]:,} now; "
        f"size: {sizes[0]} before, {sizes[1]} now; freed {megabytes(done.bytes_freed)}"
    )
    if done.bytes_after > done.bytes_before:
        note("older versions keep their own files: `versions prune` frees those")
    if done.bytes_waiting:
        minutes = int(GRACE.total_seconds() // 60)
        note(
            f"{megabytes(done.bytes_waiting)} of it stay {minutes} minutes for readers that have "
            "them open; `optimize --now` frees them at once"
        )


@click.command(short_help="Bring an older release's database to this release's schema.")
@click.pass_obj
def migrate(context: Context) -> None:
    """Bring a database that an older release made to this release's schema.

    A forget that was killed is finished, whichever release began it.
    """
    from asif_lance.store import migrate as library

    for told in library(context.db):
        note(told)
