"""An image encoder that other processes load and compute: pictures go there in batches, as bytes.

Pictures are read in the process that asks, so the others need not see the files, and what gives a
picture need not be sent. They are decoded, prepared and encoded there. Batches are those of one
process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from PIL import Image

from asif_lance.anchors import Mapper
from asif_lance.database import check_pin
from asif_lance.encoders import (
    BatchEncoder,
    EncodedBatch,
    EncoderThreads,
    ImageEncoder,
    ImageItem,
    check_pinned,
    image_encoder,
    map_ahead,
    read_bytes,
    upright_rgb,
)
from asif_lance.errors import ImageError
from asif_lance.records import EncoderPin, Float32Array

if TYPE_CHECKING:
    from torch import Tensor

_READERS = 16  # threads
_GROUP_BYTES = 2**28  # of pictures sent at once; a single batch may have more

ReadPicture = bytes | Image.Image


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Pictures that one process encodes together.

    Attributes:
        pin: of the encoder.
        pictures: their encoded bytes, or upright RGB.
    """

    pin: EncoderPin
    pictures: tuple[ReadPicture, ...]


def encode_batch(batch: PictureBatch) -> EncodedBatch:
    """Encode pictures in this process, which loads their encoder once, on the best device it has.

    Raises:
        EncoderUnavailableError: it is not to be had here.
        EncoderMismatchError: here it is another revision.
    """
    with EncoderThreads(most=1) as threads:
        return threads.encode(_load_encoder(batch.pin), batch.pictures).result()


@lru_cache(maxsize=4)
def _load_encoder(pin: EncoderPin) -> ImageEncoder:
    encoder = image_encoder(check_pinned("image", pin.name))
    check_pin("image", pin, encoder.pin)
    return encoder


class SharedEncoder(BatchEncoder):
    """Stands for an image encoder that processes have which a mapper reaches.

    Only who prepares or encodes single tensors with it, as the CLIP interface does, has the encoder
    in this process.

    Attributes:
        pin: of the encoder.
    """

    def __init__(
        self, pin: EncoderPin, load: Callable[[], ImageEncoder], mapper: Mapper, together: int
    ) -> None:
        """Load nothing yet.

        Args:
            pin: of the encoder, whose name means the same in any process.
            load: gives it in this process.
            mapper: has processes encode.
            together: batches that one call of the mapper has encoded.
        """
        self.pin = pin
        self._load, self._map, self._together = load, mapper, together

    def encode_batches(self, batches: Iterator[list[ImageItem]]) -> Iterator[EncodedBatch]:
        """Encode batches in order: some are read and encoded while those before are used."""
        with ThreadPoolExecutor(_READERS) as readers:
            asking = ThreadPoolExecutor(1)
            groups = self._read_groups(batches, readers)
            try:
                for found in map_ahead(lambda group: asking.submit(self._ask, group), groups, 1):
                    yield from found
            finally:
                # Whoever stops here does not wait for processes that may never answer.
                asking.shutdown(wait=False, cancel_futures=True)

    def _read_groups(
        self, batches: Iterator[list[ImageItem]], readers: Executor
    ) -> Iterator[list[list[ReadPicture | ImageError]]]:
        """Batches that are sent together, so few that their pictures fit into memory."""
        group, size = list[list[ReadPicture | ImageError]](), 0
        for batch in batches:
            group.append(list(readers.map(_read_picture, batch)))
            size += sum(map(_count_bytes, group[-1]))
            if len(group) == self._together or size >= _GROUP_BYTES:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _ask(self, group: Sequence[Sequence[ReadPicture | ImageError]]) -> list[EncodedBatch]:
        readable = ([p for p in batch if not isinstance(p, ImageError)] for batch in group)
        asked = [PictureBatch(self.pin, tuple(pictures)) for pictures in readable]
        found = self._map(encode_batch, asked)
        return [_add_faults(batch, made) for batch, made in zip(group, found, strict=True)]

    @cached_property
    def _here(self) -> ImageEncoder:
        return self._load()

    @property
    def min_side(self) -> int:
        """See `ImageEncoder`."""
        return self._here.min_side

    @property
    def decode(self) -> Callable[[bytes], Any]:
        """Only an encoder of other things than pictures has it; see `ImageEncoder`."""
        found: Callable[[bytes], Any] = self._here.decode  # type: ignore[attr-defined]
        return found

    def prepare(self, image: Any, /) -> Tensor:
        """See `ImageEncoder`; done in this process."""
        return self._here.prepare(image)

    def encode(self, batch: Tensor) -> Float32Array:
        """See `ImageEncoder`; done in this process."""
        return self._here.encode(batch)


def _read_picture(item: ImageItem) -> ReadPicture | ImageError:
    """A picture that can be sent, or why there is none."""
    try:
        content = item() if callable(item) else item
        if not isinstance(content, Image.Image):
            return read_bytes(content)
        pixels = upright_rgb(content)
    except ImageError as error:
        return ImageError(error.reason)  # without the traceback, which holds the picture's bytes
    # Without what its file said of it: it would be turned upright a second time.
    return Image.frombytes(pixels.mode, pixels.size, pixels.tobytes())


def _count_bytes(picture: ReadPicture | ImageError) -> int:
    if isinstance(picture, Image.Image):
        return 3 * picture.width * picture.height
    return len(picture) if isinstance(picture, bytes) else 0


def _add_faults(batch: Sequence[ReadPicture | ImageError], made: EncodedBatch) -> EncodedBatch:
    """What was made of the pictures of a batch that could be read, with those that could not."""
    rest = iter(made.rows)
    rows = (one if isinstance(one, ImageError) else next(rest) for one in batch)
    return EncodedBatch(made.vectors, tuple(rows))
