"""forget: pairs out of every version, with a receipt; and receipts checked again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asif_lance.errors import InputError, format_count, printable

from .options import (
    Context,
    format_option,
    keys_option,
    need_ids_or_where,
    open_store,
    pairs_arguments,
)
from .output import confirm, megabytes, note, note_error, print_json, print_table
from .receipt import facts, print_proof
from .twins import note_twins

if TYPE_CHECKING:
    from asif_lance.forgetting import ForgetPlan, Keys, Receipt, Report
    from asif_lance.store import PairStore

_SHOWN = 10  # pairs and recordings that are named
_CAPTION_LENGTH = 100


@click.command(short_help="Take pairs out of every version, physically, with a receipt.")
@pairs_arguments
@click.option("--reason", default="", help="Why; kept in the receipt. Do not quote what must go.")
@click.option("--with-twins", is_flag=True, help="Take the pairs with the same picture along.")
@click.option("--dry-run", is_flag=True, help="Say what it would touch and change nothing.")
@click.option("--list", "list_all", is_flag=True, help="List all pairs that would go, not ten.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--prove", is_flag=True, help="Compare with models built anew, as `receipt prove`.")
@click.option("--verify", "receipt_id", metavar="RECEIPT", help="Check a receipt, by id or file.")
@keys_option
@format_option
@click.pass_obj
def forget(
    context: Context,
    ids: tuple[str, ...],
    where: str | None,
    reason: str,
    with_twins: bool,
    dry_run: bool,
    list_all: bool,
    yes: bool,
    prove: bool,
    receipt_id: str | None,
    keys_folder: Path | None,
    output: str,
) -> None:
    """Take pairs out of every model version, physically, and prove it with a receipt.

    Vectors, captions, addresses and metadata of the pairs disappear from all versions, indices,
    logs and records; every version keeps its name, message and time and answers as if the pairs
    had never been in it. This cannot be undone. Afterwards every file that is left is decoded and
    searched; the receipt says what was found clean, and what no software here can reach.

    --dry-run, and the question before anything is done, show the captions and files of the pairs,
    the versions and recordings that would change, and how many more pairs a LIKE misses for their
    capital letters.

    What stays with the same picture, or nearly the same image vector, is told first: --with-twins
    takes it along. Pairs with the same caption alone are told too, and stay. What was forgotten is
    refused when it is ingested again.

    The receipt is signed, and what it says of the pairs can be read with a key only. Both keys are
    made at the first forget, outside the database. --verify leaves with status 0 if all holds, 1 if
    something is wrong, 3 if nothing is wrong but not all can be told.

    \b
      asif-lance forget 8c4b… --reason "the photographer withdrew it"
      asif-lance forget --where "license = 'CC-BY-NC'" --dry-run
      asif-lance forget --verify f20260131-120000-1a2b3c4d
    """
    from asif_lance.audit import matching_ids_anywhere
    from asif_lance.store import forget as library

    store = open_store(context)
    if receipt_id is not None:
        if ids or where is not None:
            raise click.UsageError("--verify takes a receipt, and no pairs")
        _verify(store, receipt_id, keys_folder, output)
        return
    need_ids_or_where(ids, where)
    chosen = list(ids) if where is None else matching_ids_anywhere(store, where)
    plan = library.plan(store, chosen, with_twins=with_twins, folder=keys_folder)
    _print_plan(plan, output, list_all=list_all, last=dry_run or not plan.pairs)
    if where is not None:
        _note_other_spellings(store, where)
    _print_copies(plan)
    if not plan.pairs and plan.copies and not dry_run:
        sys.exit(1)
    if dry_run or not plan.pairs:
        return
    if not yes:
        confirm("This cannot be undone. Forget them?")
    receipt = _forget(store, plan, reason, keys_folder, output)
    if prove:
        print_proof(store, receipt.receipt_id, output)
    sys.exit(0 if receipt.clean else 1)


def _verify(store: PairStore, receipt_id: str, keys_folder: Path | None, output: str) -> None:
    from asif_lance.store.forget import verify_receipt

    try:
        report = verify_receipt(store, receipt_id, folder=keys_folder)
    except InputError as error:  # there is no such receipt
        note_error(error)
        sys.exit(2)
    _print_verification(report, output)


def _forget(
    store: PairStore, plan: ForgetPlan, reason: str, keys_folder: Path | None, output: str
) -> Receipt:
    from asif_lance.forgetting import find_keys
    from asif_lance.store import forget as library

    had_keys = find_keys(keys_folder) is not None
    receipt = library.forget(store, plan.pairs, reason=reason, folder=keys_folder)
    _print_receipt(receipt, output)
    keys = find_keys(keys_folder)
    if keys is not None and not had_keys:
        _explain_keys(keys)
    return receipt


def _print_plan(plan: ForgetPlan, output: str, *, list_all: bool, last: bool) -> None:
    if output == "json":
        if last:
            print_json(asdict(plan))
        return
    _note_unknown(plan)
    if not plan.pairs:
        note("nothing to forget")
        return
    versions = ", ".join(plan.versions) or "none"
    note(
        f"{format_count(len(plan.pairs), 'pair')} in {format_count(len(plan.versions), 'version')} "
        f"({versions}); {format_count(plan.fragments, 'fragment')} to rewrite, "
        f"{megabytes(plan.bytes)}"
    )
    if plan.runs:
        recordings = format_count(len(plan.runs), "recording")
        note(f"{recordings} will change: {', '.join(plan.runs[:_SHOWN])}")
    note_twins(plan.twins)
    if plan.indices:
        note(f"indices that will be built anew: {', '.join(plan.indices)}")
    _print_pairs(plan, list_all=list_all)


def _note_unknown(plan: ForgetPlan) -> None:
    """Ids that are nowhere: forgotten already, or not known."""
    for pair_id, told in list(plan.forgotten.items())[:_SHOWN]:
        note(f"{pair_id}: {told}")
    if len(plan.forgotten) > _SHOWN:
        note(f"… and {len(plan.forgotten) - _SHOWN:,} more were forgotten before")
    never = len(plan.unknown) - len(plan.forgotten)
    if never:
        note(f"{never:,} of the ids {'is' if never == 1 else 'are'} in no version")


def _print_pairs(plan: ForgetPlan, *, list_all: bool) -> None:
    """What a person recognises them by; all of it as a result, a few as notes."""
    if list_all:
        rows = [(pair.pair_id, pair.caption, pair.image or "") for pair in plan.listing]
        print_table(["pair id", "caption", "image"], rows)
        return
    for pair in plan.listing[:_SHOWN]:
        caption = printable(pair.caption)
        if len(caption) > _CAPTION_LENGTH:
            caption = caption[:_CAPTION_LENGTH] + "…"
        note(f"  {pair.pair_id}: {caption}" + (f" ({pair.image})" if pair.image else ""))
    if len(plan.listing) > _SHOWN:
        note(f"  … and {len(plan.listing) - _SHOWN:,} more: --list shows all")


def _note_other_spellings(store: PairStore, where: str) -> None:
    from asif_lance.audit import find_other_spellings

    missed = len(find_other_spellings(store, where))
    if missed:
        more = "1 more pair differs" if missed == 1 else f"{missed:,} more pairs differ"
        note(f"{more} in capital letters: ILIKE instead of LIKE finds them")


def _print_copies(plan: ForgetPlan) -> None:
    """Told whatever the output is: what stays if nobody does something about it."""
    for copy in plan.copies:
        note(
            f"{copy.place} holds {copy.pairs:,} of these pairs and is not ours: it stays as it is "
            "(a residual in the receipt, exit status 1); take them out of it, or remove it"
        )


def _print_receipt(receipt: Receipt, output: str) -> None:
    if output == "json":
        print_json(asdict(receipt))
        return
    print_table(
        ["", ""], [*facts(receipt).items(), *(("not covered", n) for n in receipt.not_covered)]
    )
    verdicts = [(s.name, s.verdict) for s in receipt.surfaces if s.name not in receipt.not_covered]
    print_table(["surface", "verdict"], verdicts)
    columns = ("name", "pairs_before", "pairs_after")
    rows = [(v.name, v.pairs_before, v.pairs_after) for v in receipt.versions]
    print_table([c.replace("_", " ") for c in columns], rows)
    note(f"check again with: asif-lance forget --verify {receipt.receipt_id}")


def _explain_keys(keys: Keys) -> None:
    """Told once, after the first forget."""
    note(f"made two keys in {keys.folder}; keep a copy of them, and not with the database:")
    note(
        "  fingerprint.key finds again what was forgotten. Without it nobody can, you neither; "
        "whoever has it and a receipt can test guesses."
    )
    note("  signing.pem signs receipts. Hand out signing.pub.pem, which checks them.")


def _print_verification(report: Report, output: str) -> None:
    from asif_lance.verifier import STATUSES, describe

    if output == "json":
        print_json({**asdict(report), "clean": report.clean})
    else:
        print_table(["", ""], describe(report))
    for finding in report.findings:
        note(f"FOUND: {finding}")
    sys.exit(STATUSES[report.verdict])
