"""Encodes pictures in order: decoded in threads, embedded in batches, several of them at a time.

torch is imported when something is encoded: the rest of the package is of use without it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from numbers import Integral
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from joblib import cpu_count
from PIL import Image

from asif_lance.encoders.decoding import decode_image, read_bytes, upright_rgb
from asif_lance.encoders.own_encoders import check_vectors
from asif_lance.encoders.protocols import ImageEncoder, ImageItem
from asif_lance.errors import ImageError, InputError
from asif_lance.forks import check_not_forked
from asif_lance.records import Float32Array

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

_MOST_SIDE_BY_SIDE = 4  # each holds a batch and what the network makes of it


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """Some consecutive items of a stream.

    Attributes:
        vectors: (g, d) float32, the g usable images in order.
        rows: one entry per item, in order: its row in `vectors`, or why it has none.
    """

    vectors: Float32Array
    rows: tuple[int | ImageError, ...]

    def row(self, place: int) -> Float32Array | ImageError:
        """The (d,) vector of an item, or why it has none."""
        row = self.rows[place]
        return row if isinstance(row, ImageError) else self.vectors[row]


class BatchEncoder(ABC):
    """An encoder that takes whole batches as they come, and has them decoded and encoded itself."""

    @abstractmethod
    def encode_batches(self, batches: Iterator[list[ImageItem]]) -> Iterator[EncodedBatch]:
        """Encode batches in order, as `encode_images` does; they are consumed as needed."""


class EncoderThreads:
    """Threads that decode, and threads in which encoders compute side by side.

    torch splits every operation among its threads, which wait for each other after it. Where
    others want the processors too, such as decoding, most of the time is lost so. Here each thread
    computes a batch of its own, with its share of torch's threads.
    """

    def __init__(self, decoders: int | None = None, most: int = _MOST_SIDE_BY_SIDE) -> None:
        """Start threads when they are needed.

        Args:
            decoders: how many decode; one per core, at most 16, by default.
            most: how many computations may run at once.
        """
        self._most = most
        self._decoding = ThreadPoolExecutor(decoders or min(16, os.cpu_count() or 1))
        self._computing: ThreadPoolExecutor | None = None

    def __enter__(self) -> EncoderThreads:
        """Itself; leaving ends the threads and drops what they have not begun."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._decoding.shutdown(wait=False, cancel_futures=True)
        if self._computing is not None:
            self._computing.shutdown(wait=True, cancel_futures=True)
        self._decoding.shutdown(wait=True)

    @cached_property
    def _threads(self) -> int:
        import torch

        return max(min(torch.get_num_threads(), int(cpu_count())), 1)

    @cached_property
    def side_by_side(self) -> int:
        """How many computations run at once."""
        return min(self._threads, self._most)

    def compute(self, function: Callable[P, R], /, *args: P.args, **options: P.kwargs) -> Future[R]:
        """Call a function of encoders in one of the threads."""
        check_not_forked()
        from asif_lance.devices import limit_torch

        def run() -> R:
            with limit_torch(self._threads // self.side_by_side):
                return function(*args, **options)

        if self._computing is None:
            self._computing = ThreadPoolExecutor(self.side_by_side)
        return self._computing.submit(run)

    def encode(self, encoder: ImageEncoder, items: Sequence[ImageItem]) -> Future[EncodedBatch]:
        """Decode and prepare some images each by itself, and encode them together."""
        prepared = [self._decoding.submit(_prepare, encoder, item) for item in items]
        return self.compute(_encode_batch, encoder, prepared)


def encode_images(
    encoder: ImageEncoder,
    items: Iterable[ImageItem],
    *,
    batch_size: int = 32,
    workers: int | None = None,
) -> Iterator[EncodedBatch]:
    """Decode, prepare and encode images in order, `batch_size` at a time.

    A few batches are decoded and encoded ahead, so that the encoder never waits and memory does
    not grow with the number of items.

    Args:
        encoder: the network, or a `BatchEncoder`.
        items: encoded bytes, what gives them, files or decoded images; consumed as needed.
        batch_size: images per call of the encoder.
        workers: decoding threads; one per core, at most 16, by default.

    Yields:
        Batches that cover all items in order; unusable ones carry their `ImageError`.
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise InputError(f"batch_size is a whole number above 0, not {batch_size!r}")
    rest, batch_size = iter(items), int(batch_size)
    first = list(islice(rest, batch_size))
    batches = chain([first] if first else [], iter(lambda: list(islice(rest, batch_size)), []))
    if isinstance(encoder, BatchEncoder):
        yield from encoder.encode_batches(batches)
        return
    alone = len(first) < batch_size  # and has all of torch's threads
    with EncoderThreads(workers, 1 if alone else _MOST_SIDE_BY_SIDE) as threads:
        yield from map_ahead(
            lambda batch: threads.encode(encoder, batch), batches, threads.side_by_side
        )


def encode_each(
    encoder: ImageEncoder, items: Iterable[ImageItem], *, batch_size: int = 32
) -> Iterator[Float32Array | ImageError]:
    """The (d,) vector of each item in order, or why it has none; see `encode_images`."""
    for batch in encode_images(encoder, items, batch_size=batch_size):
        for place in range(len(batch.rows)):
            yield batch.row(place)


def map_ahead(begin: Callable[[T], Future[R]], items: Iterable[T], ahead: int) -> Iterator[R]:
    """What is begun for each item, in order; `ahead` later ones are begun before one is awaited."""
    begun: deque[Future[R]] = deque()
    for item in items:
        begun.append(begin(item))
        while begun and (len(begun) > ahead or begun[0].done()):
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def prepare_item(encoder: ImageEncoder, item: ImageItem) -> Tensor:
    """Decode one item, and prepare it for its encoder.

    Raises:
        ImageError: it cannot be used.
    """
    content = item() if callable(item) else item
    decode = getattr(encoder, "decode", None)
    if decode is not None:
        if isinstance(content, Image.Image):
            raise ImageError("the encoder takes files or bytes, not pictures")
        try:
            return encoder.prepare(decode(read_bytes(content)))
        except (OSError, ValueError, LookupError, TypeError, EOFError, ArithmeticError) as error:
            raise ImageError(f"unreadable ({' '.join(str(error).split())})") from error
    if isinstance(content, Image.Image):
        return encoder.prepare(upright_rgb(content))
    return encoder.prepare(decode_image(content, min_side=encoder.min_side))


def _prepare(encoder: ImageEncoder, item: ImageItem) -> Tensor | ImageError:
    try:
        return prepare_item(encoder, item)
    except ImageError as error:
        return ImageError(error.reason)  # without the traceback, which holds the picture's bytes


def _encode_batch(
    encoder: ImageEncoder, prepared: Sequence[Future[Tensor | ImageError]]
) -> EncodedBatch:
    import torch

    batch = [future.result() for future in prepared]
    tensors = [entry for entry in batch if not isinstance(entry, ImageError)]
    if not tensors:
        faults = tuple(entry for entry in batch if isinstance(entry, ImageError))
        return EncodedBatch(np.empty((0, encoder.pin.dimension), np.float32), faults)
    vectors = check_vectors(encoder.pin, encoder.encode(torch.stack(tensors)), len(tensors))
    usable = np.logical_and(np.isfinite(vectors).all(axis=1), vectors.any(axis=1))
    good, count = iter(list(usable)), iter(range(len(tensors)))
    rows = tuple(
        entry if isinstance(entry, ImageError) else next(count) if next(good) else _no_vector()
        for entry in batch
    )
    return EncodedBatch(vectors[usable], rows)


def _no_vector() -> ImageError:
    return ImageError("the encoder makes NaN, infinity or nothing but zeros of it")
