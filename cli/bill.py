"""bill: what a model is made of, as a table, a page, or a file for inventories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asif_lance.errors import format_count

from .options import Context, format_option, open_store
from .output import moment, note, print_json, print_table, to_json
from .parameter_types import OutputFile

if TYPE_CHECKING:
    from asif_lance.bill import Bill

#: Rows of a table on the terminal; the formats for programs have all.
SHOWN = 50

_NOT_STATED = "not stated"


@click.command(short_help="Say what a model is made of: sources, licences, encoders.")
@click.option("--model", metavar="V", help="A version (v3) or alias; by default the newest.")
@click.option("--since", metavar="V", help="Also say what changed since this version.")
@click.option(
    "--output",
    "-o",
    "paths",
    multiple=True,
    type=OutputFile(".html", ".json"),
    help="Write a file instead, and by its name: .html a page, …cdx.json CycloneDX ML-BOM, "
    "…croissant.json Croissant, other .json the bill itself. Repeat it for several.",
)
@format_option
@click.pass_obj
def bill(
    context: Context,
    /,
    model: str | None,
    since: str | None,
    paths: tuple[Path, ...],
    output: str,
) -> None:
    """Say what a model is made of: sources, licences, encoders, what was refused and forgotten.

    Licences become SPDX identifiers where that is certain ("CC BY 4.0" is CC-BY-4.0, "CC BY" could
    be several). What encoders were trained on is what their model cards and packages say. Counts
    only: no caption, no picture and no pair's id is in a bill.

    \b
      asif-lance bill
      asif-lance bill --model prod --since v3 -o bill.html -o bill.cdx.json -o croissant.json
    """
    from asif_lance.bill import make_bill

    made = make_bill(open_store(context), model or "latest", since=since)
    for path in paths:
        path.write_text(_writer(path.name.lower())(made), encoding="utf-8")
        note(f"wrote {path}")
    if not paths:
        print_json(asdict(made)) if output == "json" else _print(made)


def _writer(name: str) -> Callable[[Bill], str]:
    """What makes a file of this name of a bill."""
    from asif_lance.bill import bill_page, to_croissant, to_cyclonedx

    if name.endswith(".html"):
        return bill_page
    if name.endswith("cdx.json"):
        return to_cyclonedx
    if name.endswith("croissant.json"):
        return to_croissant
    return lambda made: to_json(asdict(made)) + "\n"


def _print(made: Bill) -> None:
    click.echo(
        f"{made.model}: {format_count(made.pairs, 'pair')}, made {moment(made.model_made_at)}"
    )
    _print_rows(
        ["source", "license", "spdx", "pairs", "pictures"],
        [
            (s.source or _NOT_STATED, s.license or _NOT_STATED, s.spdx, s.pairs, s.pictures)
            for s in made.sources
        ],
    )
    if made.reserved:
        click.echo(f"\nrights reserved: {format_count(made.reserved, 'pair')}")
    for side, card in zip(("image", "text"), made.encoders, strict=True):
        facts = {
            f"{side} encoder": f"{card.name}, {card.dimension} dimensions",
            "revision": card.revision or _NOT_STATED,
            "license": card.license or _NOT_STATED,
            "trained on": ", ".join(card.trained_on) or _NOT_STATED,
            **({"stated by": card.stated_by} if card.stated_by else {}),
            **({"remark": card.remark} if card.remark else {}),
        }
        click.echo()
        print_table(["", ""], facts.items())
    _print_gone(made)
    if made.since:
        _print_changes(made)


def _print_gone(made: Bill) -> None:
    """What was refused, and what was forgotten."""
    click.echo(f"\nrefused: {format_count(sum(n for _, n in made.refused), 'item')}")
    if made.refused:
        _print_rows(["reason", "items"], made.refused)
    click.echo(f"\nforgotten: {format_count(sum(f.pairs for f in made.forgotten), 'pair')}")
    if made.forgotten:
        _print_rows(
            ["receipt", "made (UTC)", "pairs", "reason"],
            [
                (f.receipt_id, moment(f.created_at), f.pairs, f.reason or "none given")
                for f in made.forgotten
            ],
        )
    if made.let_in:
        click.echo("\nlet in all the same:")
        _print_rows(
            ["made (UTC)", "allows", "pairs", "reason"],
            [(moment(w.created_at), w.allows, w.pairs, w.reason) for w in made.let_in],
        )


def _print_changes(made: Bill) -> None:
    since = made.since
    assert since is not None  # asked for
    click.echo(
        f"\nsince {since.version}: {since.added:,} added, {since.removed:,} removed, "
        f"{since.changed:,} changed"
    )
    for name, rows in (("source", since.sources), ("license", since.licenses)):
        shown = [(first or _NOT_STATED, *counts) for first, *counts in rows]
        if shown:
            _print_rows([name, "added", "removed", "changed"], shown)


def _print_rows(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print_table(columns, rows[:SHOWN])
    if len(rows) > SHOWN:
        note(f"… and {len(rows) - SHOWN:,} more: --format json has all")
