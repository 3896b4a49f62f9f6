"""Checks of an ingest's items: the options, the summary, the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import several
from .output import note, print_table
from .parameter_types import OutputFile

if TYPE_CHECKING:
    from asif_lance.ingest import DryRun, Finding, IngestReport

#: As `asif_lance.ingest` has them.
CHECKS = (
    *("same-picture", "near-picture", "empty-caption", "repeated-caption", "language"),
    *("license", "source", "rights"),
)
ACTIONS = ("report", "flag", "refuse")

_ALL = "all"


class CheckChoice(click.ParamType[tuple[str, str]]):
    """`NAME` or `NAME=ACTION`: a check, and what becomes of items that it finds."""

    name = "NAME[=ACTION]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Check and action."""
        if isinstance(value, tuple):
            return value
        check, _, action = str(value).partition("=")
        if check not in (*CHECKS, _ALL):
            self.fail(f"{check!r} is none of {', '.join((*CHECKS, _ALL))}", param, ctx)
        if (action or ACTIONS[0]) not in ACTIONS:
            self.fail(f"{action!r} is none of {', '.join(ACTIONS)}", param, ctx)
        return check, action or ACTIONS[0]


check_options = several(
    click.option(
        "--check",
        "checks",
        multiple=True,
        type=CheckChoice(),
        help="Look for: same-picture, near-picture, empty-caption, repeated-caption, language, "
        "license, source (missing ones), rights, or all; and report, flag or refuse what is "
        "found. Repeatable.  [default action: report]",
    ),
    click.option(
        "--page", type=OutputFile(".html"), help="Also write what was found and refused as a page."
    ),
)


def expand_checks(checks: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Every check and its action; what is named itself goes before `all`."""
    everything = {name: action for check, action in checks if check == _ALL for name in CHECKS}
    return everything | {check: action for check, action in checks if check != _ALL}


def print_findings(findings: Sequence[Finding]) -> None:
    """What the checks found, with one example each."""
    if findings:
        rows = [(f.check, f.action, f.items, _example(f)) for f in findings]
        print_table(["check", "action", "items", "for instance"], rows)


def findings_as_json(report: IngestReport | DryRun) -> dict[str, Any]:
    """The same for programs; nothing where nothing was looked for."""
    return {"findings": [asdict(one) for one in report.findings]} if report.findings else {}


def _example(finding: Finding) -> str:
    return ": ".join(finding.examples[0]) if finding.examples else ""


def write_page(report: IngestReport | DryRun, path: Path | None) -> None:
    """Write the page, if one is asked for."""
    if path is not None:
        from asif_lance.ingest import hygiene_page

        path.write_text(hygiene_page(report), encoding="utf-8")
        note(f"wrote {path}")
