"""What checking a receipt brings: answers to questions, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from asif_lance.verifier.documents import Surface

#: Verdicts on a receipt: all holds; something is wrong; nothing is wrong, but not all can be told.
CONFIRMED, REFUTED, UNDECIDED = "confirmed", "refuted", "undecided"
#: Exit statuses of commands that verify; 2 is wrong usage.
STATUSES = {CONFIRMED: 0, REFUTED: 1, UNDECIDED: 3}
_MEANINGS = {
    CONFIRMED: "all of it holds",
    REFUTED: "it does not hold",
    UNDECIDED: "nothing is wrong, but not all can be told",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One question about a receipt.

    Attributes:
        name: what was asked.
        holds: the answer; None if it cannot be told.
        told: the answer in words.
    """

    name: str
    holds: bool | None
    told: str


@dataclass(frozen=True, slots=True)
class Report:
    """A receipt checked.

    Attributes:
        receipt_id: which.
        verdict: `confirmed`, `refuted` or `undecided`.
        checks: what was asked, and the answers.
        surfaces: a verdict for each place, as it is now.
        findings: where something was found, `file: where`.
        files: how many files were read.
        bytes: their size.
    """

    receipt_id: str
    verdict: str
    checks: tuple[Check, ...]
    surfaces: tuple[Surface, ...]
    findings: tuple[str, ...]
    files: int
    bytes: int

    @property
    def clean(self) -> bool:
        """Whether all holds."""
        return self.verdict == CONFIRMED


def judge(checks: list[Check]) -> str:
    """The verdict that some answers come to."""
    answers = {check.holds for check in checks}
    if False in answers:
        return REFUTED
    return UNDECIDED if None in answers else CONFIRMED


def describe(report: Report) -> list[tuple[str, str]]:
    """A report for people: what is told, and in what words; the verdict comes first."""
    answers = {True: "holds", False: "WRONG", None: "cannot tell"}
    rows = [
        ("receipt", report.receipt_id),
        ("verdict", f"{report.verdict}: {_MEANINGS[report.verdict]}"),
    ]
    rows += [(check.name, f"{answers[check.holds]}: {check.told}") for check in report.checks]
    by_verdict: dict[str, list[str]] = {}
    for surface in report.surfaces:
        by_verdict.setdefault(surface.verdict, []).append(surface.name)
    rows += [(verdict, ", ".join(names)) for verdict, names in by_verdict.items()]
    return [*rows, ("read", f"{report.files:,} files, {report.bytes / 1e6:,.1f} MB")]
