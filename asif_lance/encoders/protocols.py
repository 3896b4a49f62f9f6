"""What an encoder of pictures or of texts has to offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from PIL import Image

from asif_lance.records import EncoderPin, Float32Array

if TYPE_CHECKING:
    from torch import Tensor

#: A picture, or what gives its bytes or pixels when an encoder comes to it.
ImageItem: TypeAlias = bytes | Path | Image.Image | Callable[[], bytes | Image.Image]


class ImageEncoder(Protocol):
    """A frozen image network, which any number of threads may use at once.

    A row of `encode` depends on its own image only, up to float noise (about 1e-6).

    What it encodes need not be pictures. One of sounds, say, has a further method
    `decode(content: bytes)`, which makes of a file's bytes what `prepare` takes, or raises
    ImageError (ValueError or OSError will do): it costs only that file. It needs no `min_side`.

    Attributes:
        pin: name, weights and dimension; an empty revision is one that is not known.
        min_side: pixels of the short side that `prepare` needs; bigger JPEGs are decoded smaller.
    """

    pin: EncoderPin

    @property
    def min_side(self) -> int:
        """See above."""
        ...

    def prepare(self, image: Any, /) -> Tensor:
        """One RGB image as the network's input, of the same shape for all images."""
        ...

    def encode(self, batch: Tensor) -> Float32Array:
        """L2-normalised float32 vectors (b, d) of b prepared images."""
        ...


class TextEncoder(Protocol):
    """A frozen text network, which any number of threads may use at once.

    A row of `encode` depends on its own text only, up to float noise.

    Attributes:
        pin: name, weights and dimension.
        max_tokens: what is read of a text; None for all of it.
    """

    pin: EncoderPin
    max_tokens: int | None

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """L2-normalised float32 vectors (m, d) of m texts."""
        ...

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts have more than `max_tokens` tokens."""
        ...
