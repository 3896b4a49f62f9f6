"""What page and picture show of a prediction: the scores, and the pairs behind the best two labels.

Names and captions come from anyone: control characters and marks that turn the writing direction
are blanked here, and what is shown is never interpreted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asif_lance.arguments import check_kinds, instance_of
from asif_lance.encoders import PictureInput, make_thumbnail, shown_picture
from asif_lance.errors import InputError, printable
from asif_lance.model import Prediction
from asif_lance.records import Attribution
from asif_lance.relative import format_sides

#: Labels in the bar chart, and marks per label in the scatter plot.
SCORES, MARKS = 10, 200

_PREDICTION = instance_of("a prediction of `classify`", Prediction)
_COLUMNS = ("image_uri", "source", "license")


@dataclass(frozen=True, slots=True)
class ShownPair:
    """A pair of one label.

    Attributes:
        anchor: names it within the page.
        number: its number in list and plot; None where it is not among the listed ones.
        pair_id: the pair.
        caption: its caption; of several, all of them.
        role: `example`; empty for ordinary pairs.
        source: where it came from; empty if unknown.
        license: its license; empty if unknown.
        image_similarity: with the picture, as the recipe measures it.
        text_similarity: of its caption with the label's prompt, likewise.
        contribution: what it adds to the label's score.
        thumbnail: JPEG; empty for pairs that are not listed or whose picture cannot be read here.
    """

    anchor: str
    number: int | None
    pair_id: str
    caption: str
    role: str
    source: str
    license: str
    image_similarity: float
    text_similarity: float
    contribution: float
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class ShownLabel:
    """A label with the pairs that add most to its score.

    Attributes:
        name: the label.
        score: its score.
        pairs: the strongest pairs, which are listed.
        others: the next ones, which are only plotted.
    """

    name: str
    score: float
    pairs: tuple[ShownPair, ...]
    others: tuple[ShownPair, ...]

    @property
    def total(self) -> str:
        """The sum of the listed contributions as they are written, and their share of the score."""
        total = sum(round(pair.contribution, 4) for pair in self.pairs)
        share = sum(pair.contribution for pair in self.pairs) / (self.score or 1.0)
        return f"{total:.4f} of its score {self.score:.4f} ({share:.0%})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One prediction, ready to be shown.

    Attributes:
        image: the picture's name.
        setting: model, recipe, k and p in words.
        picture: JPEG.
        scores: the best labels with their scores.
        labels: the chosen label and the runner-up.
    """

    image: str
    setting: str
    picture: bytes
    scores: tuple[tuple[str, float], ...]
    labels: tuple[ShownLabel, ...]


def describe_prediction(prediction: Prediction, picture: PictureInput, pairs: int) -> Explanation:
    """Gather what is shown of a prediction.

    Args:
        prediction: from `Model.classify`.
        picture: what was classified, as `classify` takes it.
        pairs: how many are listed for each label.

    Raises:
        ImageError: the picture cannot be read any more.
        InputError: `prediction` or `picture` is something else, or `pairs` is below 1.
    """
    check_kinds({"prediction": _PREDICTION}, {"prediction": prediction})
    if pairs < 1:
        raise InputError(f"pairs of a label: n must be at least 1, got {pairs}")
    recipe = prediction.recipe
    k, p = format_sides(recipe.k), format_sides(recipe.p)
    return Explanation(
        image=printable(prediction.image),
        setting=f"model {prediction.model}, recipe {recipe.name}, k = {k}, p = {p}",
        picture=shown_picture(picture),
        scores=tuple((printable(name), score) for name, score in prediction.ranking[:SCORES]),
        labels=tuple(
            _describe_label(prediction, side, name, pairs)
            for side, (name, _) in enumerate(prediction.ranking[:2])
        ),
    )


def _describe_label(prediction: Prediction, side: int, name: str, count: int) -> ShownLabel:
    attributions = prediction.attributions(max(count, MARKS), name)
    positions = prediction.evidence.contributions(name, count).positions
    rows = prediction.evidence.anchors.rows(positions, _COLUMNS)
    shown = tuple(
        _describe_pair(attribution, f"pair-{side}-{place}", 1 + place + side * count, row)
        for place, (attribution, row) in enumerate(zip(attributions, rows, strict=False))
    )
    others = tuple(
        _describe_pair(attribution, f"pair-{side}-{place}", None, {})
        for place, attribution in enumerate(attributions[count:], count)
    )
    return ShownLabel(printable(name), dict(prediction.ranking)[name], shown, others)


def _describe_pair(
    attribution: Attribution, anchor: str, number: int | None, row: dict[str, Any]
) -> ShownPair:
    return ShownPair(
        anchor=anchor,
        number=number,
        pair_id=printable(attribution.pair_id),
        caption=" · ".join(map(printable, attribution.captions)),
        role=attribution.role or "",
        source=printable(row.get("source") or ""),
        license=printable(row.get("license") or ""),
        image_similarity=attribution.image_similarity,
        text_similarity=attribution.text_similarity,
        contribution=attribution.contribution,
        thumbnail=make_thumbnail(row.get("image_uri")),
    )
