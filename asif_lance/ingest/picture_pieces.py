"""Rows with their image vectors, a few at a time; each picture is encoded once.

While some rows are handed on, the pictures of later ones are decoded and encoded, also across the
batches of a source and from one source to the next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import polars as pl

from asif_lance.encoders import EncodedBatch, EncoderThreads, PictureSource
from asif_lance.errors import ImageError
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.naming import pictures_to_encode
from asif_lance.ingest.recent_items import RecentItems
from asif_lance.ingest.vector_columns import given_vectors, unit_float16
from asif_lance.records import Float16Array

#: Rows and seconds after which rows that took encoding are handed on, to be stored.
PIECE_ROWS, PIECE_SECONDS = 64, 5.0

_REMEMBERED_PICTURES = 10_000  # 25 MB at 1,280 numbers each
_WAITING_FRAMES = 16

Encoded = Float16Array | ImageError


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive rows of a batch.

    Attributes:
        frame: m rows.
        faults: m reasons why a row's picture cannot be used, None where it can.
        images: (g, d) the vectors of the g others in order, as they are stored.
    """

    frame: pl.DataFrame
    faults: list[str | None]
    images: Float16Array


class _Picture:
    """A picture whose vector is known, or under way."""

    def __init__(self, known: Encoded | None = None) -> None:
        self._known = known
        self._batch: Future[EncodedBatch] | None = None
        self._place = 0

    def begin(self, batch: Future[EncodedBatch], place: int) -> None:
        self._batch, self._place = batch, place

    @property
    def is_begun(self) -> bool:
        return self._known is not None or self._batch is not None

    def result(self) -> Encoded:
        """Its vector, or why it has none; waits for it."""
        if self._known is None:
            assert self._batch is not None
            row = self._batch.result().row(self._place)
            self._known = row if isinstance(row, ImageError) else unit_float16(row[None])[0]
            self._batch = None
        return self._known


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Rows, with a picture each or all with vectors."""

    frame: pl.DataFrame
    pictures: list[_Picture]
    images: Float16Array | None = None


class PictureEncoder:
    """Encodes the pictures that came without a vector, each once.

    A picture is known by its hash: one with several captions may come again anywhere, in other
    sources and in later ingests, and has the vector then that is stored.
    """

    def __init__(self, destination: Destination, threads: EncoderThreads, batch_size: int) -> None:
        self._destination, self._threads, self._batch_size = destination, threads, batch_size
        self._recent: RecentItems[str, _Picture] = RecentItems(_REMEMBERED_PICTURES)
        self._unread = 0  # pictures in the window that the table may have by now
        self._gathered: list[tuple[_Picture, PictureSource]] = []
        self._under_way: deque[Future[EncodedBatch]] = deque()

    def pieces(self, frames: Iterator[pl.DataFrame]) -> Iterator[Piece]:
        """The rows in order; a frame at once where neither side of it has to be encoded."""
        waiting: deque[_Waiting] = deque()
        for frame in frames:
            waiting.append(self._begin(frame))
            while waiting and (waiting[0].images is not None or self._is_full(waiting)):
                yield from self._finish(waiting.popleft())
        while waiting:
            yield from self._finish(waiting.popleft())

    def _is_full(self, waiting: deque[_Waiting]) -> bool:
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft()
        return len(self._under_way) > self._threads.side_by_side or len(waiting) > _WAITING_FRAMES

    def _begin(self, frame: pl.DataFrame) -> _Waiting:
        images = given_vectors(frame, "image_vector")
        if images is not None:
            return _Waiting(frame, [], unit_float16(images))
        digests = frame["image_sha256"].to_list()
        sources: dict[str, PictureSource] = {}
        for digest, source in zip(digests, pictures_to_encode(frame), strict=True):
            if isinstance(source, bytes) or digest not in sources:  # bytes need not be read again
                sources[digest] = source
        found = {digest: self._recent.get(digest) for digest in sources}
        new = [digest for digest, picture in found.items() if picture is None]
        stored = self._find_stored(new)
        for digest in new:
            found[digest] = picture = _Picture(stored.get(digest))
            self._recent.put(digest, picture)
            if digest not in stored:
                self._gathered.append((picture, sources[digest]))
        while len(self._gathered) >= self._batch_size:
            self._encode_gathered()
        pictures = [own for digest in digests if (own := found[digest])]
        # The bytes are with those that decode them.
        return _Waiting(frame.with_columns(image_bytes=pl.lit(None, pl.Binary)), pictures)

    def _find_stored(self, digests: list[str]) -> dict[str, Float16Array]:
        """The vectors of those pictures that the table has."""
        self._unread += len(digests)
        anew = 2 * self._unread > _REMEMBERED_PICTURES  # before they fall out of the window
        if anew:
            self._unread = 0
        _ = self._destination.image_encoder  # which is checked against what made these vectors
        return self._destination.find_pictures(digests, anew=anew)

    def _encode_gathered(self) -> None:
        batch, self._gathered = (
            self._gathered[: self._batch_size],
            self._gathered[self._batch_size :],
        )
        items = [source for _, source in batch]
        future = self._threads.encode(self._destination.image_encoder, items)
        self._under_way.append(future)
        for place, (picture, _) in enumerate(batch):
            picture.begin(future, place)

    def _finish(self, rows: _Waiting) -> Iterator[Piece]:
        """Hand rows on as their vectors come, in pieces."""
        frame = rows.frame
        if rows.images is not None:
            step = len(frame) if frame["text_vector"].count() else PIECE_ROWS
            for start in range(0, len(frame), step):
                part = frame[start : start + step]
                yield Piece(part, [None] * len(part), rows.images[start : start + step])
            return
        done: list[Encoded] = []
        begun = time.monotonic()
        for end, picture in enumerate(rows.pictures, 1):
            while not picture.is_begun:
                self._encode_gathered()
            done.append(picture.result())
            late = time.monotonic() - begun > PIECE_SECONDS
            if late or len(done) == PIECE_ROWS or end == len(frame):
                yield _as_piece(frame[end - len(done) : end], done)
                done, begun = [], time.monotonic()


def _as_piece(frame: pl.DataFrame, rows: list[Encoded]) -> Piece:
    faults = [row.reason if isinstance(row, ImageError) else None for row in rows]
    usable = [row for row in rows if not isinstance(row, ImageError)]
    images = np.stack(usable) if usable else np.empty((0, 0), np.float16)
    return Piece(frame, faults, images)
