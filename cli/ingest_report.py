"""What `ingest` prints of what became of the items, or would become of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from asif_lance.errors import format_count

from .hygiene import findings_as_json, print_findings
from .output import note, print_json, print_table

if TYPE_CHECKING:
    from asif_lance.ingest import DryRun, IngestReport
    from asif_lance.records import Reject

#: Rejected items listed on the terminal; the rejects table and file have them all.
SHOWN_REJECTS = 10


def print_report(report: IngestReport, output: str) -> None:
    """What became of the items, as JSON or for people."""
    version = report.version.name if report.version else None
    if output == "json":
        print_json(
            {
                "added": report.added,
                "already_there": report.already_there,
                "changed": report.changed,
                "updated": report.updated,
                "rejected": len(report.rejects),
                "version": version,
                "cut_captions": report.cut_captions,
                **findings_as_json(report),
            }
        )
    else:
        made = f"the newest model is {version}" if version else "no new version"
        changed = f"changed {report.changed:,}, " if report.changed else ""
        note(
            f"added {report.added:,}, already there {report.already_there:,}, {changed}"
            f"rejected {len(report.rejects):,}; {made}"
        )
        _note_details(report)
    if output == "table":
        print_findings(report.findings)
        print_rejects(report.rejects)


def print_dry_run(found: DryRun, on_conflict: str, output: str) -> None:
    """What would become of them, and how long it would take."""
    counts = {
        "would_add": found.added,
        "already_there": found.already_there,
        "changed": found.changed,
        "would_update": found.updated,
        "rejected": len(found.rejects),
        "seconds": found.seconds,
        "bytes": found.bytes,
        **findings_as_json(found),
    }
    if output == "json":
        print_json({**counts, "first": [asdict(pair) for pair in found.first]})
        return
    rows = [(p.pair_id, " · ".join(p.captions), p.image or "") for p in found.first]
    if rows:
        print_table(["pair id", "caption", "picture"], rows)
    changed = f"changed {found.changed:,}, " if found.changed else ""
    note(
        f"would add {found.added:,}, already there {found.already_there:,}, {changed}"
        f"rejected {len(found.rejects):,}; nothing was written"
    )
    if found.changed and on_conflict == "fail":
        note("with --on-conflict fail nothing would be added")
    if found.sample:
        room = f"{found.bytes / 1e6:,.1f} MB" if found.bytes > 1e5 else f"{found.bytes:,} bytes"
        took = "time not estimated, no encoder is needed"
        if found.seconds is not None:
            took = f"about {found.seconds:,.0f} s"
        note(f"by the first {format_count(found.sample, 'pair')}: {took}; about {room}")
    print_findings(found.findings)
    print_rejects(found.rejects)


def _note_details(report: IngestReport) -> None:
    if report.updated:
        note(f"{report.updated:,} of the changed pairs were updated")
    elif report.changed:
        note(
            "changed pairs are in the database with other content and were left as they were: "
            "--on-conflict update replaces them"
        )
    if report.apart:
        note(
            f"came again apart from their other captions: {format_count(report.apart, 'picture')}; "
            "sort the source by picture to join them, too"
        )
    if report.cut_captions:
        note(
            f"longer than the encoder reads ({report.max_tokens} tokens): "
            f"{format_count(report.cut_captions, 'caption')}, of which the rest is not used"
        )


def print_rejects(rejects: Sequence[Reject]) -> None:
    """The first of what was refused, and how many more there are."""
    if rejects:
        print_table(["rejected", "reason"], [(r.item, r.reason) for r in rejects[:SHOWN_REJECTS]])
        if len(rejects) > SHOWN_REJECTS:
            note(f"… and {len(rejects) - SHOWN_REJECTS:,} more: --rejects FILE lists all")
