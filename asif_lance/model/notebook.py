"""What a notebook draws of a prediction: the picture, a bar per label, and the pairs that decided.

Names and captions come from anyone, and are shown, never interpreted. Pairs are listed while the
model is at hand, and their pictures where they can be read here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from asif_lance.encoders import make_thumbnail
from asif_lance.errors import AsifError, printable

if TYPE_CHECKING:
    from asif_lance.model.predictions import Prediction

# Labels that are drawn, and pairs of the best.
_LABELS, _PAIRS = 5, 3


def draw_labels(image: str, ranking: Sequence[tuple[str, float]]) -> str:
    """The picture, and a bar for each of the best labels."""
    bars = "".join(
        f"<tr><td>{_shown(label)}</td><td>{score:.4f}</td>"
        f'<td><meter value="{score:.4f}" max="1"></meter></td></tr>'
        for label, score in ranking[:_LABELS]
    )
    return f"<p><b>{_shown(image)}</b></p>{_draw_picture(image)}<table>{bars}</table>"


def draw_pairs(prediction: Prediction) -> str:
    """The pairs that decided for the best label; nothing where they are out of reach."""
    try:
        pairs = prediction.attributions(_PAIRS)
        ids = prediction.evidence.contributions(prediction.label, _PAIRS).positions
        rows = prediction.evidence.anchors.rows(ids, ("image_uri",))
    except AsifError:  # pickled without its model, or pairs were forgotten since
        return ""
    lines = "".join(
        f"<tr><td>{pair.contribution:.4f}</td><td>{_draw_picture(row['image_uri'])}</td>"
        f"<td>{' · '.join(map(_shown, pair.captions))}</td></tr>"
        for pair, row in zip(pairs, rows, strict=True)
    )
    return f"<table>{lines}</table>"


def _draw_picture(uri: str | None) -> str:
    content = b64encode(make_thumbnail(uri)).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{content}">' if content else ""


def _shown(text: str) -> str:
    return escape(printable(text))
