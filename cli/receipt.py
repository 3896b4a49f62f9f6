"""receipt: receipts of forgetting, to look at, to hand out, to sign and to date."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asif_lance.errors import InputError, format_count

from .manners import CommandGroup
from .options import Context, format_option, keys_option, open_store
from .output import megabytes, moment, note, print_json, print_table
from .parameter_types import FileArgument, PathOption
from .twins import count_staying

if TYPE_CHECKING:
    from asif_lance.evaluation import Proof
    from asif_lance.forgetting import Keys, Receipt
    from asif_lance.store import PairStore

output_option = click.option(
    "-o",
    "--output",
    "path",
    type=PathOption(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write.",
)


@click.group(
    cls=CommandGroup,
    short_help="Look at receipts of forgetting, hand them out, sign and date them.",
)
def receipt() -> None:
    """Receipts of forgetting: to look at, to hand out, to sign and to date.

    A receipt is signed and names the one before by its hash. Whoever gets a copy of the database, a
    receipt and the public key can check them with `asif-lance-verify`, without asif-lance itself.
    """


@receipt.command("list")
@format_option
@click.pass_obj
def list_(context: Context, output: str) -> None:
    """List the receipts of this database, oldest first."""
    from asif_lance.forgetting import load_receipts

    columns = ("receipt_id", "number", "created_at", "pairs", "clean", "reason")
    rows = [[getattr(r, name) for name in columns] for r in load_receipts(open_store(context).uri)]
    if output == "json":
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)))
        return
    print_table(columns, [(*row[:2], moment(row[2]), *row[3:]) for row in rows])


@receipt.command()
@format_option
@click.pass_obj
def waivers(context: Context, output: str) -> None:
    """List what was let in although it was forgotten, or may have been, and why; oldest first."""
    from asif_lance.forgetting import list_waivers

    records = [asdict(record) for record in list_waivers(open_store(context).uri)]
    if output == "json":
        for record in records:
            print_json(record)
        return
    columns = ("waiver_id", "created_at", "allows", "pairs", "reason")
    rows = [[record[name] for name in columns] for record in records]
    print_table(columns, [(row[0], moment(row[1]), *row[2:]) for row in rows])


@receipt.command()
@click.argument("receipt_id", metavar="ID")
@click.option(
    "-o",
    "--output",
    "path",
    type=PathOption(dir_okay=False, path_type=Path),
    help="Write it to a file: .html is a page for the person, .json the signed document.",
)
@click.pass_obj
def show(context: Context, receipt_id: str, path: Path | None) -> None:
    """Show what a receipt says, or write it to hand it out.

    \b
      asif-lance receipt show f20260131-120000-1a2b3c4d -o receipt.html
    """
    from asif_lance.forgetting import load_document, receipt_page

    document, timestamp = load_document(open_store(context).uri, receipt_id)
    if path is None:
        from asif_lance.evaluation import load_proofs

        proofs = load_proofs(open_store(context).uri, receipt_id)
        told = [("proof", _describe(proof)) for proof in proofs]
        print_table(["", ""], [*facts(document.receipt).items(), *told])
    elif path.suffix == ".html":
        _write(path, receipt_page(document, timestamp).encode())
    elif path.suffix == ".json":
        _write(path, document.body.encode())
    else:
        raise click.UsageError(f"{path}: a receipt is written as .html or .json")


@receipt.command()
@click.argument("receipt_id", metavar="ID")
@format_option
@click.pass_obj
def prove(context: Context, receipt_id: str, output: str) -> None:
    """Show that every version answers as if the forgotten pairs had never been there.

    Each version is built anew from its rows in a fresh database, in a temporary place, and both are
    asked the same: recorded queries, vectors of its own pairs, and random ones. Neighbors, scores
    and labels have to be the same, bit for bit. The result is kept beside the receipt. Versions
    with the same content are built once; the largest needs as much room again, and the time that
    writing it takes. Leaves with status 1 if a version differs.
    """
    from asif_lance.forgetting import load_document

    store = open_store(context)
    load_document(store.uri, receipt_id)
    print_proof(store, receipt_id, output)


@receipt.command("public-key")
@output_option
@keys_option
def public_key(path: Path, keys_folder: Path | None) -> None:
    """Write the key that checks your signatures; hand it out once, apart from the receipts."""
    _write(path, _need_keys(keys_folder).public_pem)


@receipt.command()
@click.argument("receipt_id", metavar="ID")
@keys_option
@click.pass_obj
def sign(context: Context, receipt_id: str, keys_folder: Path | None) -> None:
    """Sign a receipt that was finished where the signing key was not at hand."""
    from asif_lance.forgetting import sign_receipt

    sign_receipt(open_store(context).uri, receipt_id, _need_keys(keys_folder))
    note(f"signed {receipt_id}")


@receipt.command("timestamp-request")
@click.argument("receipt_id", metavar="ID")
@output_option
@click.pass_obj
def timestamp_request(context: Context, receipt_id: str, path: Path) -> None:
    """Write what a timestamp authority is sent (RFC 3161): a hash, and nothing of the receipt.

    \b
      asif-lance receipt timestamp-request ID -o receipt.tsq
      curl -H "Content-Type: application/timestamp-query" --data-binary @receipt.tsq \\
        -o receipt.tsr URL
      asif-lance receipt attach ID receipt.tsr
    """
    from asif_lance.forgetting import load_document
    from asif_lance.verifier import make_request

    _write(path, make_request(load_document(open_store(context).uri, receipt_id)[0]))


@receipt.command()
@click.argument("receipt_id", metavar="ID")
@click.argument("response", type=FileArgument)
@click.pass_obj
def attach(context: Context, receipt_id: str, response: Path) -> None:
    """Keep a timestamp authority's response (.tsr) with its receipt."""
    from asif_lance.forgetting import attach_timestamp

    told = attach_timestamp(open_store(context).uri, receipt_id, response.read_bytes())
    note(f"attached to {receipt_id}: {told}")


def facts(receipt: Receipt) -> dict[str, Any]:
    """What a person reads first."""
    return {
        "receipt": receipt.receipt_id,
        "forgotten": format_count(receipt.pairs, "pair"),
        "reason": receipt.reason or "none given",
        "rewritten": (
            f"{format_count(receipt.fragments, 'fragment')}, {megabytes(receipt.bytes_written)}"
        ),
        "searched": (
            f"{format_count(receipt.files_scanned, 'file')}, {megabytes(receipt.bytes_scanned)}"
        ),
        "found": "nothing" if receipt.clean else "; ".join(receipt.findings),
        **({} if receipt.twins is None else {"twins": _count_twins(receipt.twins)}),
    }


def _count_twins(number: int) -> str:
    return count_staying(number, "the same picture")


def print_proof(store: PairStore, receipt_id: str, output: str) -> None:
    """Prove that versions answer as ones built anew; leave with status 1 if one does not."""
    from asif_lance.evaluation import prove_equivalence

    proof = prove_equivalence(store, receipt_id)
    if output == "json":
        print_json({**asdict(proof), "holds": proof.holds})
    else:
        print_table(["", ""], [("proof", _describe(proof)), ("answers", f"sha256 {proof.digest}")])
    if not proof.holds:
        sys.exit(1)


def _describe(proof: Proof) -> str:
    if not proof.holds:
        return f"refuted: {', '.join(proof.different)} differ from models built anew"
    return (
        f"{', '.join(proof.versions) or 'no versions'} answer {proof.queries:,} queries as models "
        f"built anew do, bit for bit ({', '.join(proof.recipes)}; {moment(proof.proved_at)})"
    )


def _need_keys(folder: Path | None) -> Keys:
    from asif_lance.forgetting import find_keys, find_keys_folder

    keys = find_keys(folder)
    if keys is None:
        raise InputError(f"no keys in {find_keys_folder(folder)}: the first forget makes them")
    return keys


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    note(f"wrote {path}")
