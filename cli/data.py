"""ingest and delete: pairs in, pairs out of the newest model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import (
    Context,
    OutputFile,
    device_option,
    format_option,
    message_option,
    need_ids_or_where,
    open_store,
    pairs_arguments,
)
from .output import note, print_json, print_table
from .progress import progress

if TYPE_CHECKING:
    from asif_lance.ingest import IngestReport

#: Rejected items listed on the terminal; the rejects table and file have them all.
SHOWN_REJECTS = 10


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="SOURCE...")
@click.option(
    "--source-format",
    type=click.Choice(["folder", "csv", "tsv", "jsonl", "parquet"]),
    help="What the sources are; by default told from their names.",
)
@click.option("--image-encoder", metavar="N", help="timm/NAME; by default the database's own.")
@click.option(
    "--text-encoder", metavar="N", help="sentence-transformers/NAME; by default the database's own."
)
@click.option("--license", help="Recorded with every pair that names no license of its own.")
@click.option(
    "--source-name", metavar="S", help="Recorded with every pair that names no source of its own."
)
@click.option(
    "--rejects",
    type=OutputFile(".csv"),
    help="Also write refused items to this CSV file.",
)
@message_option
@device_option
@format_option
@click.pass_obj
def ingest(
    context: Context,
    sources: tuple[str, ...],
    source_format: str | None,
    image_encoder: str | None,
    text_encoder: str | None,
    license: str | None,
    source_name: str | None,
    rejects: Path | None,
    message: str,
    device: str,
    output: str,
) -> None:
    """Add image-text pairs; the result is a new model version.

    A SOURCE is a folder of pictures with captions in .txt files beside them, a CSV, TSV, JSONL or
    Parquet file with image and caption columns, or one with image_vector and text_vector columns,
    which needs no encoder. Ingesting a source again adds only what is new in it. Items that cannot
    be pairs are refused with a reason, and the rest goes in; the exit status is 1 only if nothing
    of the sources is in the model.

    \b
      asif-lance ingest photos/ --license CC-BY --message "first pictures"
      asif-lance ingest embeddings.parquet
    """
    from asif_lance.ingest import IngestOptions, ingest_sources

    options = IngestOptions(
        format=source_format,
        image_encoder=image_encoder,
        text_encoder=text_encoder,
        license=license,
        source=source_name,
        message=message,
        device=device,
    )
    with progress("pairs") as advance:
        report = ingest_sources(context.db, sources, options, progress=advance)
    if rejects is not None:
        report.write_rejects(rejects)
    _print_report(report, output)
    if report.rejects and not report.added + report.already_there:
        sys.exit(1)


@click.command()
@pairs_arguments
@message_option
@format_option
@click.pass_obj
def delete(
    context: Context, ids: tuple[str, ...], where: str | None, message: str, output: str
) -> None:
    """Take pairs out of the newest model, by ID or by a predicate.

    Older versions still have them, so `rollback` brings them back. To take pairs out of every
    version and off the disk, see `forget`.

    \b
      asif-lance delete 8c4b…  f01d…
      asif-lance delete --where "license = 'CC-BY-NC'"
    """
    need_ids_or_where(ids, where)
    store = open_store(context)
    from asif_lance.audit import HEAD, matching_ids

    chosen = list(ids) if where is None else matching_ids(store, where, HEAD)
    deleted = store.delete(chosen)
    version = store.publish(command="delete", message=message)
    name = version.name if version else store.version().name
    if output == "json":
        print_json({"deleted": deleted, "not_found": len(chosen) - deleted, "version": name})
        return
    if deleted < len(chosen):
        note(f"{len(chosen) - deleted:,} of the ids are not in the newest model")
    note(f"deleted {deleted:,} pairs; the newest model is {name}")


def _print_report(report: IngestReport, output: str) -> None:
    version = report.version.name if report.version else None
    if output == "json":
        print_json(
            {
                "added": report.added,
                "already_there": report.already_there,
                "rejected": len(report.rejects),
                "version": version,
            }
        )
    else:
        made = f"the newest model is {version}" if version else "no new version"
        note(
            f"added {report.added:,}, already there {report.already_there:,}, "
            f"rejected {len(report.rejects):,}; {made}"
        )
    if report.rejects and output == "table":
        shown = report.rejects[:SHOWN_REJECTS]
        print_table(["rejected", "reason"], [(r.item, r.reason) for r in shown])
        if len(report.rejects) > SHOWN_REJECTS:
            note(f"… and {len(report.rejects) - SHOWN_REJECTS:,} more: --rejects FILE lists all")
