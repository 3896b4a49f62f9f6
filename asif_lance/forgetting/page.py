"""A receipt as a page to hand to the person whose pairs were forgotten.

The page is one file that loads nothing and runs nothing; the signed document is inside it, to be
saved from there. Reasons and names come from anyone, so the template escapes all of them.
"""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined

from asif_lance.verifier import Document, check_timestamp


def receipt_page(document: Document, timestamp: bytes | None = None) -> str:
    """The HTML of one receipt.

    Args:
        document: the receipt.
        timestamp: an authority's response about it.
    """
    environment = Environment(
        loader=PackageLoader("asif_lance.forgetting"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("receipt.html").render(
        receipt=document.receipt,
        signed=document.signed,
        altered=document.signed and not document.signed_by_its_signer(),
        timestamp=check_timestamp(document, timestamp).told if timestamp else None,
        document=base64.b64encode(document.body.encode()).decode(),
    )
