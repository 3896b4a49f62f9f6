"""Pairs that a search found, as a page: one file that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asif_lance.encoders import make_thumbnail, shown_picture
from asif_lance.errors import printable
from asif_lance.explain.page import make_environment
from asif_lance.model import Match


def matches_page(asked: str | Path, model: str, matches: Sequence[Match]) -> str:
    """The HTML of what was found.

    Args:
        asked: the text, or the picture's file.
        model: the version's name.
        matches: from `Model.search_text` or `Model.search_image`.

    Raises:
        ImageError: the picture that was asked with cannot be read any more.
    """
    picture = shown_picture(asked) if isinstance(asked, Path) else b""
    name = asked.name if isinstance(asked, Path) else asked
    rows = [(match, make_thumbnail(match.image_uri)) for match in matches]
    template = make_environment().get_template("matches.html")
    return template.render(name=printable(name), picture=picture, model=model, rows=rows)
