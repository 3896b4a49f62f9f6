"""reencode: the same pairs and versions under other encoders, as a new database."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import format_count

from .ingest import stoppable
from .ingest_report import print_rejects
from .options import Context, device_option, format_option, keys_option, tell_of_database
from .output import note, print_json, print_table
from .parameter_types import OutputFile, PathOption

if TYPE_CHECKING:
    from asif_lance.ingest import ReencodeReport


@click.command(short_help="Make a new DATABASE of the same pairs with other encoders.")
@click.argument("new", metavar="DATABASE")
@click.option(
    "--image-encoder",
    metavar="N",
    help="resnet18, facebook/dinov2-small, a folder, …; by default the vectors are kept.",
)
@click.option(
    "--text-encoder",
    metavar="N",
    help="all-MiniLM-L6-v2, a folder, …; by default the vectors are kept.",
)
@click.option(
    "--image-root",
    type=PathOption(path_type=Path),
    metavar="FOLDER",
    help="Where pictures are by now, under the ends of their recorded paths.",
)
@click.option(
    "--allow-missing", is_flag=True, help="Make versions without pairs that cannot be encoded."
)
@click.option("--rejects", type=OutputFile(".csv"), help="Also write such pairs to this CSV file.")
@keys_option
@device_option
@format_option
@click.pass_obj
def reencode(
    context: Context, /, new: str, rejects: Path | None, output: str, **given: Any
) -> None:
    """Make a new DATABASE of the same pairs and versions with other encoders.

    Pairs keep their ids, captions, sources, licenses, attributes and times, versions their names,
    messages, times and aliases; what was forgotten stays forgotten, for the receipts go along.
    Settings of `tune`, recorded runs and search indices do not: they belong to the vectors.

    A side whose encoder is not named keeps its vectors. For other image vectors the pictures have
    to be there: files, tars and ZIP archives where they were when they came in, or below
    --image-root. A pair whose picture is gone, or another one by now, is told, and its version is
    not made unless --allow-missing says so.

    Stopped and run again it goes on; run again later it takes in the versions made since.

    \b
      asif-lance reencode new.lancedb --image-encoder timm/tf_efficientnet_lite2
      asif-lance reencode new.lancedb --text-encoder sentence-transformers/all-mpnet-base-v2
    """
    with stoppable():
        from asif_lance.ingest import ReencodeOptions, reencode

        tell_of_database(context)
        report = reencode(context.db, new, ReencodeOptions(**given))
    if rejects is not None:
        report.write_rejects(rejects)
    if output == "json":
        print_json(asdict(report))
    else:
        _print(report)
    if report.unfinished:
        sys.exit(1)


def _print(report: ReencodeReport) -> None:
    print_table(
        ["version", "pairs", "missing"], [(v.name, v.pairs, v.missing) for v in report.versions]
    )
    note(f"encoded {format_count(report.encoded, 'pair')}")
    if report.forgotten:
        note(f"forgotten here, too: {format_count(report.forgotten, 'pair')}")
    if report.cut_captions:
        note(f"longer than the encoder reads: {format_count(report.cut_captions, 'caption')}")
    print_rejects(report.rejects)
    if report.unfinished:
        version, missing = report.unfinished
        note(
            f"{version} is not made: {format_count(missing, 'pair')} of it cannot be encoded. "
            "Run it again once they are back (--image-root says where pictures are by now), or "
            "with --allow-missing, which leaves them out"
        )
