"""The command `asif-lance-verify`: a receipt checked against a copy of a database.

    asif-lance-verify copy.lancedb receipt.json --public-key signing.pub.pem
    asif-lance-verify copy.lancedb receipt.json --public-key signing.pub.pem --key fingerprint.key

It needs neither a model nor the rest of asif-lance. Exit status: 0 all holds; 1 something is wrong;
2 nothing was checked (wrong usage, no receipt, no database, files that cannot be read) or the
answer could not be written; 3 nothing is wrong, but not all can be told.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from asif_lance.errors import AsifError, printable
from asif_lance.object_stores import open_path
from asif_lance.verifier.checking import verify
from asif_lance.verifier.inputs import read_file, read_key, read_public_key
from asif_lance.verifier.report import STATUSES, Report, describe

#: The exit status where there is no verdict.
NOT_CHECKED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    asked = _make_parser().parse_args(arguments)
    try:
        report = verify(
            open_path(asked.database),
            asked.receipt,
            key=read_key(asked.key) if asked.key else None,
            public_keys=[read_public_key(path) for path in asked.public_key],
            timestamp=read_file(asked.timestamp) if asked.timestamp else None,
            authorities=asked.authority,
        )
    except (AsifError, OSError) as error:
        return _fail(str(error))
    if sys.stdout is None:
        return _fail("cannot write the answer: standard output is closed")
    try:
        _write(report, asked.format)
    except OSError as error:  # and no second try when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _fail(f"cannot write the answer: {error.strerror}")
    return STATUSES[report.verdict]


def _fail(why: str) -> int:
    sys.stderr.write(f"asif-lance-verify: {printable(why)}\n")
    return NOT_CHECKED


def _write(report: Report, form: str) -> None:
    if form == "json":
        lines = [json.dumps(asdict(report))]
    else:
        lines = [f"{name:<12} {printable(told)}" for name, told in describe(report)]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asif-lance-verify", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("database", help="a database or a copy of it: a directory, s3://…")
    parser.add_argument("receipt", help="a file that was handed out, or an id in the database")
    parser.add_argument("--key", type=Path, help="key of the fingerprints: search every file")
    parser.add_argument(
        "--public-key", type=Path, action="append", default=[], help="whose signature counts"
    )
    parser.add_argument("--timestamp", type=Path, help="an RFC 3161 response (.tsr)")
    parser.add_argument(
        "--authority", type=Path, action="append", default=[], help="its certificates, in PEM"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
