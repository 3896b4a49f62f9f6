"""attach: somebody else's Lance table as a model, where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from asif_lance.errors import format_count

from .encoders import describe
from .options import Context, download_option, format_option
from .output import note, print_json, print_table


@click.command(short_help="Make a model of any Lance table with image and text vectors.")
@click.argument("table", type=click.Path(), metavar="TABLE")
@click.option("--image-vector", metavar="NAME", help="The column of image vectors.")
@click.option("--text-vector", metavar="NAME", help="The column of text vectors.")
@click.option("--id", metavar="NAME", help="The column that names rows: texts or whole numbers.")
@click.option("--caption", metavar="NAME", help="The column of captions.")
@click.option("--image", metavar="NAME", help="The column of pictures or of where they are.")
@click.option("--source", metavar="NAME", help="The column of what rows come from.")
@click.option("--license", metavar="NAME", help="The column of licences.")
@click.option(
    "--image-encoder", metavar="N", help="What made the image vectors: resnet18, a folder, …"
)
@click.option(
    "--text-encoder", metavar="N", help="What made the text vectors: all-MiniLM-L6-v2, a folder, …"
)
@download_option
@format_option
@click.pass_obj
def attach(context: Context, /, table: str, output: str, **chosen: Any) -> None:
    """Make a model of any Lance or LanceDB table with image and text vectors, where it is.

    The table is not changed and no row is copied: the database of --db holds the table's address,
    recorded runs and settings. Its Lance versions are the model versions, called 1, 2, …, and its
    tags are their aliases. Columns and encoders that are not named are found by common names and
    by the table's embedding functions.

    \b
      asif-lance --db birds.asif attach birds.lancedb/birds.lance --image-vector clip --id key
      asif-lance --db birds.asif classify bird.jpg --labels robin,heron
    """
    from asif_lance.ingest import attach as library

    found = library(table, context.db, **chosen)
    if output == "json":
        print_json(asdict(found))
        return
    print_table(["column", "in the table"], list(found.columns.items()))
    note(f"image encoder: {describe(found.image)}; text encoder: {describe(found.text)}")
    note(f"{found.uri} reads {format_count(found.pairs, 'pair')} of {found.table}")
    tell_left_out(found.left_out)


def tell_left_out(left_out: Mapping[str, int]) -> None:
    """Say which rows are no pairs, if there are some."""
    if left_out:
        reasons = ", ".join(f"{count:,} with {reason}" for reason, count in left_out.items())
        note(f"{format_count(sum(left_out.values()), 'row')} of the table left out: {reasons}")
