"""What an ingest found and refused, as a page: one file that loads nothing and runs nothing.

Names of items and reasons come from anyone, so the template escapes all of them.
"""

from __future__ import annotations

from collections import Counter

from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.errors import printable
from asif_lance.ingest.dry_run import DryRun
from asif_lance.ingest.pipeline import IngestReport

#: Refused items that the page lists; --rejects has all.
LISTED = 200


def hygiene_page(report: IngestReport | DryRun) -> str:
    """The HTML of what an ingest, or a dry run, found."""
    environment = Environment(
        loader=PackageLoader("asif_lance.ingest"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["shown"] = printable
    environment.filters["count"] = "{:,}".format
    reasons = Counter(reject.reason for reject in report.rejects).most_common()
    return environment.get_template("hygiene.html").render(
        report=report, done=isinstance(report, IngestReport), reasons=reasons, listed=LISTED
    )
