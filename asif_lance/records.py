"""Frozen values that packages hand to each other. No behaviour beyond derived fields."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

#: Arrays by what they hold; a docstring gives the shape.
BoolArray = NDArray[np.bool_]
Float16Array = NDArray[np.float16]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]
UInt64Array = NDArray[np.uint64]

#: The encoder name of embeddings that users bring without saying what made them.
BROUGHT = "vectors"

#: The role of pairs that are labelled pictures; the others are ordinary and have none.
EXAMPLE = "example"

#: The name that always means the newest version; no alias.
LATEST = "latest"
_CHANCE = 0.01  # pictures of the same kind are told to be of another one at most that often

#: Neighbors found beyond the k that count, so that what enters when others go is known already.
SPARE = 64


@dataclass(frozen=True, slots=True)
class EncoderPin:
    """What a database remembers of an encoder, so that vectors of two are never mixed.

    Attributes:
        name: `timm/NAME`, `sentence-transformers/NAME`, either with `+bfloat16` in half precision,
            or `vectors` for brought ones.
        revision: identifies the weights (a sha256 prefix or hub revision); empty when unknown.
        dimension: length of the vectors.
    """

    name: str
    revision: str
    dimension: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One state of the pairs table that users can name.

    Attributes:
        name: `v1`, `v2`, …
        number: the number in the name; grows by one per completed command.
        lance_version: Lance's own version number, an inner detail that forgetting rewrites.
        message: what the user or the command said of it.
        command: `ingest`, `delete`, `rollback`, …
        created_at: UTC.
        pairs: live pairs in it.
        added: pairs that the version before did not have.
        removed: pairs that only the version before had.
        aliases: further names (`prod`), never `latest`.
    """

    name: str
    number: int
    lance_version: int
    message: str
    command: str
    created_at: datetime
    pairs: int
    added: int
    removed: int
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The k most similar anchors of each of m queries, best first.

    Attributes:
        indices: (m, k) int64, positions in the anchors that were searched.
        similarities: (m, k) float32, descending; equal ones by the anchors' tie order.
    """

    indices: Int64Array
    similarities: Float32Array


@dataclass(frozen=True, slots=True)
class RelativeVectors:
    """m sparse vectors over n anchors (paper, definition 2.1 with the recipe's k and p).

    Attributes:
        indices: (m, k) int64, the anchors that carry weight.
        values: (m, k) float32, non-negative, each row of L2 norm 1 (or all zero).
        n: number of anchor positions the indices refer to.
    """

    indices: Int64Array
    values: Float32Array
    n: int


@dataclass(frozen=True, slots=True)
class Attribution:
    """One pair's share of one prediction: image part times text part.

    Attributes:
        pair_id: the pair.
        caption: its caption; of several, the first.
        captions: all of them.
        role: `EXAMPLE`, or None for an ordinary pair.
        label: the label whose score it shares in.
        image_similarity: of the classified image and the pair's image, as the recipe measures it:
            their cosine, or that of their differences from the mean, or of these whitened.
        text_similarity: the same of the label's prompt and the pair's caption.
            Of an example, the cosines that `relative.examples` has of it.
        contribution: what it adds to the label's score; all contributions sum to the score. That
            of an example may be below 0.
    """

    pair_id: str
    caption: str
    captions: tuple[str, ...]
    role: str | None
    label: str
    image_similarity: float
    text_similarity: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Reject:
    """One item that an ingest refused.

    Attributes:
        source: the source it came from.
        item: the item in that source: a file, or `row 17`.
        reason: one short phrase.
        forgotten: it was forgotten, so that a database must not keep its name either.
    """

    source: str
    item: str
    reason: str
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class PictureKind:
    """Whether pictures are of the kind that a calibration was made of.

    Attributes:
        pictures: how many were looked at.
        low: share whose best score is as low as in a tenth of the calibrating pictures.
        far: share that is as unlike its most similar pair as a tenth of the calibrating pictures
            are. Many pictures of another kind are classified well all the same.
        usual: what `low` would be for pictures of the same kind: about a tenth.
    """

    pictures: int
    low: float
    far: float
    usual: float = 0.1

    @property
    def is_another(self) -> bool:
        """Whether the labels fit these pictures far worse than those of the calibration.

        Most of them have low scores, and more than chance would give so many of the same kind: of
        one picture alone nothing can be said.
        """
        if self.low <= 0.5:
            return False
        from scipy.stats import binomtest  # takes half a second, and most ask nothing of it

        count = round(self.low * self.pictures)
        test = binomtest(count, self.pictures, self.usual, alternative="greater")
        return bool(test.pvalue < _CHANCE)
