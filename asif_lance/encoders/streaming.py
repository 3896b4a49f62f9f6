"""Encodes pictures in order: decoded in threads, embedded in batches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from asif_lance.encoders.decoding import decode_image, upright_rgb
from asif_lance.encoders.protocols import ImageEncoder, ImageItem
from asif_lance.errors import ImageError
from asif_lance.records import Float32Array

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Some consecutive items of a stream.

    Attributes:
        vectors: (g, d) float32, the g usable images in order.
        rows: one entry per item, in order: its row in `vectors`, or why it has none.
    """

    vectors: Float32Array
    rows: tuple[int | ImageError, ...]


def encode_images(
    encoder: ImageEncoder,
    items: Iterable[ImageItem],
    *,
    batch_size: int = 32,
    workers: int | None = None,
) -> Iterator[EncodedBatch]:
    """Decode, prepare and encode images in order, `batch_size` at a time.

    Decoding runs in threads, at most three batches ahead of the encoder, so that the encoder
    never waits for it and memory does not grow with the number of items.

    Args:
        encoder: the network.
        items: encoded bytes, what gives them, files or decoded images; consumed as needed.
        batch_size: images per call of the encoder.
        workers: decoding threads; one per core, at most 16, by default.

    Yields:
        Batches that cover all items in order; unusable ones carry their `ImageError`.
    """
    pool = ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1))
    try:
        prepared = _map_ahead(pool, partial(_prepare, encoder), items, ahead=3 * batch_size)
        while batch := list(islice(prepared, batch_size)):
            yield _encode_batch(encoder, batch)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def encode_each(
    encoder: ImageEncoder, items: Iterable[ImageItem], *, batch_size: int = 32
) -> Iterator[Float32Array | ImageError]:
    """The (d,) vector of each item in order, or why it has none; see `encode_images`."""
    for batch in encode_images(encoder, items, batch_size=batch_size):
        for row in batch.rows:
            yield row if isinstance(row, ImageError) else batch.vectors[row]


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], *, ahead: int
) -> Iterator[R]:
    """`map(function, items)` in order, with `ahead` calls submitted before they are needed."""
    rest = iter(items)
    waiting = deque(pool.submit(function, item) for item in islice(rest, ahead))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
        yield result


def _prepare(encoder: ImageEncoder, item: ImageItem) -> Tensor | ImageError:
    try:
        picture = item() if callable(item) else item
        if isinstance(picture, Image.Image):
            return encoder.prepare(upright_rgb(picture))
        return encoder.prepare(decode_image(picture, min_side=encoder.min_side))
    except ImageError as error:
        return ImageError(error.reason)  # without the traceback, which holds the picture's bytes


def _encode_batch(encoder: ImageEncoder, batch: list[Tensor | ImageError]) -> EncodedBatch:
    tensors = [entry for entry in batch if isinstance(entry, Tensor)]
    count = iter(range(len(tensors)))
    rows = tuple(next(count) if isinstance(entry, Tensor) else entry for entry in batch)
    if not tensors:
        return EncodedBatch(np.empty((0, encoder.pin.dimension), np.float32), rows)
    return EncodedBatch(encoder.encode(torch.stack(tensors)), rows)
