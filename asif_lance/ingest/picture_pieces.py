"""The rows of a batch with their image vectors, a few at a time; each picture is encoded once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from asif_lance.encoders import encode_each
from asif_lance.errors import ImageError
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.naming import pictures_to_encode
from asif_lance.ingest.vector_columns import given_vectors
from asif_lance.ingest.window import Window
from asif_lance.records import Float32Array

#: Rows and seconds after which rows that took encoding are handed on, to be stored.
PIECE_ROWS, PIECE_SECONDS = 64, 5.0

_REMEMBERED_PICTURES = 10_000  # 50 MB at 1,280 numbers each

Encoded = Float32Array | ImageError


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive rows of a batch.

    Attributes:
        frame: m rows.
        faults: m reasons why a row's picture cannot be used, None where it can.
        images: (g, d) float32, the vectors of the g others in order.
    """

    frame: pl.DataFrame
    faults: list[str | None]
    images: Float32Array


class PictureEncoder:
    """Encodes the pictures that came without a vector; one with several captions once."""

    def __init__(self, destination: Destination, batch_size: int) -> None:
        self._destination, self._batch_size = destination, batch_size
        self._recent: Window[str, Encoded] = Window(_REMEMBERED_PICTURES)

    def pieces(self, frame: pl.DataFrame) -> Iterator[Piece]:
        """The rows in order; all at once where neither side has to be encoded."""
        images = given_vectors(frame, "image_vector")
        if images is not None and frame["text_vector"].count():
            yield Piece(frame, [None] * len(frame), images)
            return
        rows: list[Encoded] = []
        begun = time.monotonic()
        vectors = self._encode(frame) if images is None else iter(images)
        for end, row in enumerate(vectors, 1):
            rows.append(row)
            late = time.monotonic() - begun > PIECE_SECONDS
            if late or len(rows) == PIECE_ROWS or end == len(frame):
                yield _as_piece(frame[end - len(rows) : end], rows)
                rows, begun = [], time.monotonic()

    def _encode(self, frame: pl.DataFrame) -> Iterator[Encoded]:
        """The vector of each row's picture, or why it has none; equal ones are encoded once."""
        digests = frame["image_sha256"].to_list()
        wanted = dict(zip(digests, pictures_to_encode(frame), strict=True))
        held = {digest: self._recent.get(digest) for digest in wanted}
        found = {digest: result for digest, result in held.items() if result is not None}
        new = {digest: picture for digest, picture in wanted.items() if digest not in found}
        encoder = self._destination.image_encoder
        results = zip(
            new, encode_each(encoder, new.values(), batch_size=self._batch_size), strict=True
        )
        for digest in digests:
            while digest not in found:
                made, result = next(results)
                found[made] = result
                self._recent.put(made, result)
            yield found[digest]


def _as_piece(frame: pl.DataFrame, rows: list[Encoded]) -> Piece:
    faults = [row.reason if isinstance(row, ImageError) else None for row in rows]
    usable = [row for row in rows if not isinstance(row, ImageError)]
    images = np.stack(usable) if usable else np.empty((0, 0), np.float32)
    return Piece(frame, faults, images)
