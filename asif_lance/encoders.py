"""Frozen encoders by name, images encoded in a stream, and both registered with LanceDB.

Importing this module registers `asif-timm` and `asif-sentence-transformers` in LanceDB's embedding
registry; no model is loaded before it is used.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from lancedb.embeddings import EmbeddingFunction, register
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from asif_lance.devices import pick_device
from asif_lance.errors import EncoderUnavailableError, ImageError
from asif_lance.images import decode_image, upright_rgb
from asif_lance.records import EncoderPin

DEFAULT_IMAGE = "timm/tf_efficientnet_lite0"
DEFAULT_TEXT = "sentence-transformers/all-MiniLM-L6-v2"

ImageItem: TypeAlias = bytes | Path | Image.Image
T = TypeVar("T")
R = TypeVar("R")


class ImageEncoder(Protocol):
    """A frozen image network. `prepare` may run in many threads, `encode` in one at a time.

    A row of `encode` depends on its own image only, up to float noise (about 1e-6).

    Attributes:
        pin: name, weights and dimension.
        min_side: pixels of the short side that `prepare` needs; bigger JPEGs are decoded smaller.
    """

    pin: EncoderPin
    min_side: int

    def prepare(self, image: Image.Image) -> Tensor:
        """One RGB image as the network's input, of the same shape for all images."""
        ...

    def encode(self, batch: Tensor) -> NDArray[np.float32]:
        """L2-normalised float32 vectors (b, d) of b prepared images."""
        ...


class TextEncoder(Protocol):
    """A frozen text network; a row depends on its own text only, up to float noise.

    Attributes:
        pin: name, weights and dimension.
    """

    pin: EncoderPin

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """L2-normalised float32 vectors (m, d) of m texts."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Some consecutive items of a stream.

    Attributes:
        vectors: (g, d) float32, the g usable images in order.
        rows: one entry per item, in order: its row in `vectors`, or why it has none.
    """

    vectors: NDArray[np.float32]
    rows: tuple[int | ImageError, ...]


def image_encoder(name: str | None = None, *, device: str = "auto") -> ImageEncoder:
    """Load an image encoder: `timm/NAME`, or `timm/` and the path of a model folder.

    Raises:
        EncoderUnavailableError: unknown name, or weights that are not to be had here.
    """
    # Not at the top: timm and sentence-transformers take seconds to import, and many need one.
    from asif_lance.timm_encoder import PREFIX, TimmEncoder

    name = name or DEFAULT_IMAGE
    _check_prefix("image", name, PREFIX)
    return TimmEncoder(name, pick_device(device))


def text_encoder(name: str | None = None, *, device: str = "auto") -> TextEncoder:
    """Load a text encoder: `sentence-transformers/NAME`, or that prefix and a folder's path.

    Raises:
        EncoderUnavailableError: unknown name, or weights that are not to be had here.
    """
    from asif_lance.sentence_encoder import PREFIX, SentenceEncoder  # see image_encoder

    name = name or DEFAULT_TEXT
    _check_prefix("text", name, PREFIX)
    return SentenceEncoder(name, pick_device(device))


def _check_prefix(side: str, name: str, prefix: str) -> None:
    if not name.removeprefix(prefix) or not name.startswith(prefix):
        raise EncoderUnavailableError(f"unknown {side} encoder {name!r}: name it {prefix}NAME")


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
        items: encoded bytes, files or decoded images; consumed as needed.
        batch_size: images per call of the encoder.
        workers: decoding threads; one per core, at most 16, by default.

    Yields:
        Batches that cover all items in order; unusable ones carry their `ImageError`.
    """
    pool = ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1))
    try:
        prepared = _mapped_ahead(pool, partial(_prepare, encoder), items, ahead=3 * batch_size)
        while batch := list(islice(prepared, batch_size)):
            yield _encode_batch(encoder, batch)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def encode_each(
    encoder: ImageEncoder, items: Iterable[ImageItem], *, batch_size: int = 32
) -> Iterator[NDArray[np.float32] | ImageError]:
    """The (d,) vector of each item in order, or why it has none; see `encode_images`."""
    for batch in encode_images(encoder, items, batch_size=batch_size):
        for row in batch.rows:
            yield row if isinstance(row, ImageError) else batch.vectors[row]


def _mapped_ahead(
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
        if isinstance(item, Image.Image):
            return encoder.prepare(upright_rgb(item))
        return encoder.prepare(decode_image(item, min_side=encoder.min_side))
    except ImageError as error:
        return ImageError(error.reason)  # without the traceback, which holds the picture's bytes


def _encode_batch(encoder: ImageEncoder, batch: list[Tensor | ImageError]) -> EncodedBatch:
    tensors = [entry for entry in batch if isinstance(entry, Tensor)]
    count = iter(range(len(tensors)))
    rows = tuple(next(count) if isinstance(entry, Tensor) else entry for entry in batch)
    if not tensors:
        return EncodedBatch(np.empty((0, encoder.pin.dimension), np.float32), rows)
    return EncodedBatch(encoder.encode(torch.stack(tensors)), rows)


# LanceDB makes a new function object for every add and search: they share the loaded models.
_shared_image_encoder = lru_cache(maxsize=2)(image_encoder)
_shared_text_encoder = lru_cache(maxsize=2)(text_encoder)


class _LocalEmbeddings(EmbeddingFunction):  # type: ignore[misc]  # lancedb ships no types
    """Common to both sides: LanceDB retries what fails, but a local failure is final."""

    device: str = "auto"

    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> Any:
        return self.compute_source_embeddings(*args, **kwargs)

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> Any:
        return self.compute_query_embeddings(*args, **kwargs)


@register("asif-timm")
class TimmEmbeddings(_LocalEmbeddings):
    """Embeds a LanceDB column of images (paths or encoded bytes) with `image_encoder(name)`."""

    name: str = DEFAULT_IMAGE

    def ndims(self) -> int:
        """Length of the vectors."""
        return self._encoder().pin.dimension

    def compute_source_embeddings(self, images: Any) -> list[list[float] | None]:
        """One vector per image; None, and a warning, for one that cannot be used.

        LanceDB's `on_bad_vectors` decides what becomes of those rows (by default: an error).
        """
        items = [_image_item(image) for image in self.sanitize_input(images)]
        vectors: list[list[float] | None] = []
        for batch in encode_images(self._encoder(), items):
            for row in batch.rows:
                if isinstance(row, ImageError):
                    warnings.warn(f"image {len(vectors)} of this batch: {row}", stacklevel=2)
                vectors.append(None if isinstance(row, ImageError) else batch.vectors[row].tolist())
        return vectors

    def compute_query_embeddings(self, query: Any) -> list[list[float]]:
        """The vector of one image: a path, encoded bytes, or a PIL image.

        Raises:
            ImageError: it cannot be used.
        """
        (batch,) = encode_images(self._encoder(), [_image_item(query)])
        if isinstance(batch.rows[0], ImageError):
            raise batch.rows[0]
        vectors: list[list[float]] = batch.vectors.tolist()
        return vectors

    def _encoder(self) -> ImageEncoder:
        return _shared_image_encoder(self.name, device=self.device)


@register("asif-sentence-transformers")
class SentenceEmbeddings(_LocalEmbeddings):
    """Embeds a LanceDB column of captions with `text_encoder(name)`."""

    name: str = DEFAULT_TEXT

    def ndims(self) -> int:
        """Length of the vectors."""
        return self._encoder().pin.dimension

    def compute_source_embeddings(self, texts: Any) -> list[list[float] | None]:
        """One vector per text; None for a null."""
        texts = self.sanitize_input(texts)
        vectors = iter(self._encoder().encode([text for text in texts if text is not None]))
        return [None if text is None else next(vectors).tolist() for text in texts]

    def compute_query_embeddings(self, query: str) -> list[list[float] | None]:
        """The vector of one text, in a list."""
        return self.compute_source_embeddings([query])

    def _encoder(self) -> TextEncoder:
        return _shared_text_encoder(self.name, device=self.device)


def _image_item(image: Any) -> ImageItem:
    """What LanceDB hands over, as an item; a null counts as an empty file."""
    return Path(image) if isinstance(image, str) else image or b""
