"""One prediction as a page or a picture, and what a search found as a page.

Promises: the page loads nothing and runs no script; captions and names are shown, not interpreted.
Reads pictures, writes nothing.
"""

from asif_lance.explain.matches import matches_page
from asif_lance.explain.page import explain_page
from asif_lance.explain.png import explain_png

__all__ = ["explain_page", "explain_png", "matches_page"]
