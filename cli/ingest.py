"""ingest: pairs in."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import IngestInterruptedError, format_count
from asif_lance.progress import step

from .engine import check_engine, engine_options
from .hygiene import (
    check_options,
    expand_checks,
    write_page,
)
from .ingest_report import print_dry_run, print_report
from .interrupts import StoppedError
from .options import (
    Context,
    device_option,
    format_option,
    keys_option,
    message_option,
    open_store,
    tell_of_database,
)
from .output import note
from .parameter_types import Choices, ColumnChoice, Count, OutputFile, PathOption

if TYPE_CHECKING:
    from asif_lance.forgetting import Waiver
    from asif_lance.ingest import DryRun, IngestOptions, IngestReport

#: What sources may be, as `asif_lance.ingest.FORMATS` has it.
SOURCE_FORMATS = (
    *("folder", "lance", "parquet", "webdataset", "zip", "coco", "flickr", "csv", "tsv"),
    *("jsonl", "json", "imagefolder"),
)


@click.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="SOURCE...")
@click.option(
    "--source-format",
    type=click.Choice(SOURCE_FORMATS),
    help="What the sources are; by default told from their content and names.",
)
@click.option(
    "--image-root",
    type=PathOption(path_type=Path),
    metavar="FOLDER",
    help="Where relative image paths begin; by default the manifest's folder, or one in it.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    type=ColumnChoice(),
    metavar="ROLE=NAME",
    help="What the image, caption, id, license, source, … column is called; repeatable.",
)
@click.option(
    "--image-encoder",
    metavar="N",
    help="resnet18, facebook/dinov2-small, a folder, …; with +bfloat16 in half precision. "
    "By default the database's own.",
)
@click.option(
    "--text-encoder",
    metavar="N",
    help="all-MiniLM-L6-v2, a folder, …, likewise.",
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
@click.option(
    "--on-conflict",
    type=click.Choice(["skip", "update", "fail"]),
    default="skip",
    show_default=True,
    help="Pairs that are there with other content: leave them, replace them, or add nothing.",
)
@click.option(
    "--captions",
    type=click.Choice(["mean", "each"]),
    default="mean",
    show_default=True,
    help="Neighbouring captions of one picture: one pair with their mean vector, or a pair each.",
)
@click.option(
    "--batch-size",
    type=Count(most=4096),
    default=32,
    show_default=True,
    metavar="N",
    help="Pictures encoded at once; more may be faster on a large device, and take its memory.",
)
@click.option(
    "--role",
    type=click.Choice(["example"]),
    help="Labelled pictures that teach their labels, captioned by them; ordinary pairs otherwise.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go in; write nothing.")
@engine_options
@click.option(
    "--require",
    type=Choices("license", "source"),
    default=(),
    metavar="NAME,…",
    help="Refuse pairs that do not state it: license, source or both.",
)
@click.option(
    "--rights",
    type=click.Choice(["flag", "refuse"]),
    help="Pairs with a mark that reserves their rights (noai, noindex, tdm-reservation, …): flag "
    "them in their attributes, or refuse them.",
)
@check_options
@click.option("--allow-forgotten", is_flag=True, help="Let in what `forget` took out.")
@click.option(
    "--without-key",
    is_flag=True,
    help="Go on where nobody can tell what was forgotten, for the key is missing.",
)
@click.option(
    "--reason", default="", help="Why, for either of these; kept on record. Do not quote a pair."
)
@keys_option
@message_option
@device_option
@format_option
@click.pass_obj
def ingest(
    context: Context,
    /,
    sources: tuple[str, ...],
    source_format: str | None,
    columns: tuple[tuple[str, str], ...],
    source_name: str | None,
    rejects: Path | None,
    checks: tuple[tuple[str, str], ...],
    page: Path | None,
    dry_run: bool,
    engine: str | None,
    workers: int | None,
    allow_forgotten: bool,
    without_key: bool,
    reason: str,
    output: str,
    **given: Any,
) -> None:
    """Add image-text pairs; the result is a new model version.

    A SOURCE is a folder of pictures with captions in .txt files beside them (hidden files and
    folders are left out, linked folders are followed, each once; a note counts what is left out);
    a CSV, TSV, JSON (a list of objects, or one per line) or Parquet file, or a Lance table, with
    image and caption columns; or one with image_vector and text_vector columns, which needs no
    encoder; a tar of webdataset or img2dataset, a ZIP archive, COCO or Flickr captions; a folder of
    such files or with metadata.csv; any of these in an object store (s3://BUCKET/…, gs://, az://);
    a pattern in quotes; or - for a list of all these on standard input. A list of captions, or rows
    of one picture that follow each other, become one pair, whose text vector is the mean of its
    captions' vectors (rows with pair_ids of their own stay apart).

    Ingesting a source again adds only what is new in it, also after it was stopped half way: what
    is done is kept. Items that cannot be pairs are refused with a reason, and the rest goes in; the
    exit status is 1 only if nothing of the sources is in the model.

    Pairs that were forgotten are refused, under other ids too. Telling them takes the key that the
    receipts were made with. `receipt waivers` lists what was let in all the same, and why.

    \b
      asif-lance ingest photos/ --license CC-BY --message "first pictures"
      asif-lance ingest embeddings.parquet "shards/*.tar" --dry-run
      asif-lance ingest list.csv --image-root photos/ --column caption=titel
      asif-lance ingest photos/ --allow-forgotten --reason "its author agreed again"
      asif-lance ingest s3://bucket/shards --engine ray
    """
    waiver = _make_waiver(reason, allow_forgotten=allow_forgotten, without_key=without_key)
    check_engine(engine, workers)
    with stoppable():
        from asif_lance.ingest import IngestOptions, count_items, expand_sources

        expanded = expand_sources(sources)
    given |= {"format": source_format, "columns": dict(columns), "source": source_name}
    options = IngestOptions(**given, checks=expand_checks(checks), waiver=waiver)
    total = count_items(expanded, source_format)
    tell_of_database(context)
    if dry_run:
        tried = _try_ingest(context, expanded, options, total, output)
        write_page(tried, page)
        _finish(tried, rejects)
        return
    report = _add_pairs(context, expanded, options, total, engine, workers)
    write_page(report, page)
    _finish_ingest(report, rejects, output)
    if report.version is not None and output == "table":
        _note_unnamed(context)


def _add_pairs(
    context: Context,
    sources: Sequence[Any],
    options: IngestOptions,
    total: int | None,
    engine: str | None,
    workers: int | None,
) -> IngestReport:
    with stoppable(total):
        if engine is not None:
            from asif_lance.cluster import ingest_with_ray

            return ingest_with_ray(context.db, sources, options, workers=workers)
        from asif_lance.ingest import ingest_sources

        with step("ingest pairs", total) as advance:
            return ingest_sources(context.db, sources, options, progress=advance)


def _note_unnamed(context: Context) -> None:
    """Say what vectors of encoders without a name keep from working."""
    from asif_lance.records import BROUGHT

    store = open_store(context)
    pins = {"image": store.image, "text": store.text}
    if sides := [side for side, pin in pins.items() if pin.name == BROUGHT]:
        note(
            f"no encoder of the {' and '.join(sides)} vectors is named, so pictures and texts "
            "cannot be asked with: `asif-lance encoders` names them"
        )


def _make_waiver(reason: str, *, allow_forgotten: bool, without_key: bool) -> Waiver | None:
    from asif_lance.forgetting import Waiver

    if not (allow_forgotten or without_key):
        if reason:
            raise click.UsageError("--reason is for --allow-forgotten or --without-key")
        return None
    if not reason.strip():
        raise click.UsageError("--allow-forgotten and --without-key need a --reason")
    return Waiver(reason, allow_forgotten=allow_forgotten, without_key=without_key)


@contextmanager
def stoppable(total: int | None = None) -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM end the command with a line that says what is kept."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = "what was stored is kept"
        if isinstance(error, IngestInterruptedError):
            of = f"{error.kept:,} of " if total is not None else ""
            kept = f"kept {of}{format_count(total or error.kept, 'pair')} so far"
        raise StoppedError(error, f"{kept}; run the same command again to go on") from error


def _finish_ingest(report: IngestReport, rejects: Path | None, output: str) -> None:
    print_report(report, output)
    _finish(report, rejects)


def _finish(report: IngestReport | DryRun, rejects: Path | None) -> None:
    _write_rejects(report, rejects)
    if report.rejects and not report.added + report.already_there + report.changed:
        sys.exit(1)


def _try_ingest(
    context: Context,
    sources: Sequence[Any],
    options: IngestOptions,
    total: int | None,
    output: str,
) -> DryRun:
    from asif_lance.ingest import try_ingest

    with step("look through the sources", total) as advance:
        found = try_ingest(context.db, sources, options, progress=advance)
    print_dry_run(found, options.on_conflict, output)
    return found


def _write_rejects(report: IngestReport | DryRun, path: Path | None) -> None:
    if path is not None:
        report.write_rejects(path)
