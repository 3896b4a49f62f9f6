"""The scatter of an answer (the paper's Figure 7): where each deciding pair lies, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from asif_lance.service.messages import DecidingLabel, PairShare

#: The plot's size in its own units, with room for the largest mark.
WIDTH, HEIGHT, MARGIN = 320.0, 240.0, 30.0

_SMALLEST, _LARGEST = 3.0, 14.0  # radius


@dataclass(frozen=True, slots=True)
class Mark:
    """A pair in the plot: its place, its radius, and its entry in the list.

    Attributes:
        x: more for more similar images.
        y: less for more similar caption and label, as SVG counts.
        radius: its area is what it adds to the score.
        side: 0 for the winner's pairs, 1 for the runner-up's.
        anchor: the id of its entry; empty for pairs that are not listed.
        pair: the pair.
        told: what it says when it is pointed at.
    """

    x: float
    y: float
    radius: float
    side: int
    anchor: str
    pair: PairShare
    told: str


def place_marks(deciding: Sequence[DecidingLabel]) -> list[Mark]:
    """The marks of all plotted pairs, the largest first so that none hides another."""
    pairs = [
        (side, f"pair-{side}-{place}" if place < len(label.pairs) else "", pair)
        for side, label in enumerate(deciding)
        for place, pair in enumerate([*label.pairs, *label.others])
    ]
    xs = _spread([pair.image_similarity for _, _, pair in pairs], WIDTH)
    ys = _spread([pair.text_similarity for _, _, pair in pairs], HEIGHT)
    largest = max((pair.contribution for _, _, pair in pairs), default=0.0) or 1.0
    marks = [
        Mark(
            x,
            HEIGHT - y,
            _SMALLEST + _LARGEST * sqrt(max(pair.contribution, 0.0) / largest),
            side,
            anchor,
            pair,
            f"{' · '.join(pair.captions)}: adds {pair.contribution:.4f} to {pair.label}",
        )
        for (side, anchor, pair), x, y in zip(pairs, xs, ys, strict=True)
    ]
    return sorted(marks, key=lambda mark: -mark.radius)


def _spread(values: Sequence[float], size: float) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = size - 2 * MARGIN
    return [MARGIN + room * ((v - low) / (high - low) if high > low else 0.5) for v in values]
