"""A bill as a page to show: one file that loads nothing and runs nothing.

Names of sources and licences, reasons and model cards come from anyone, so the template escapes all
of them, and none becomes a link.
"""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.bill.content import Bill
from asif_lance.errors import printable

#: Sources, licences and reasons that the page lists; JSON and the other formats have all.
LISTED = 200


def bill_page(bill: Bill) -> str:
    """The HTML of a bill."""
    environment = Environment(
        loader=PackageLoader("asif_lance.bill"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["shown"] = printable
    environment.filters["count"] = "{:,}".format
    return environment.get_template("bill.html").render(bill=bill, listed=LISTED)
