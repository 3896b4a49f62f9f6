"""Pictures as programs hold them: paths, bytes, files, Pillow, NumPy, PyTorch, data set rows."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, Union
from urllib.parse import urlsplit
from urllib.request import url2pathname
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asif_lance.encoders.decoding import MAX_BYTES
from asif_lance.encoders.picture_files import HeldPicture, ImageFile
from asif_lance.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

#: One picture: a path, encoded bytes, an open file, a Pillow image, an array (height, width) or
#: (height, width, channels), a tensor (channels, height, width), or a row of a Hugging Face data
#: set. Whole numbers count from 0 to 255, floats from 0 to 1.
PictureInput: TypeAlias = Union[
    ImageFile,
    os.PathLike[str],
    bytearray,
    memoryview,
    BinaryIO,
    Image.Image,
    NDArray[Any],
    "Tensor",
    Mapping[str, Any],
]

#: One picture, or several of any kinds; an array or tensor of one more dimension is a batch.
PicturesInput: TypeAlias = PictureInput | Iterable[Any]

_KINDS = (
    "a path, bytes, an open file, a Pillow image, an array (height, width, channels), "
    "a tensor (channels, height, width), a data set's row with an 'image', or several of these"
)
# What the read of a file raises that breaks off: a disk's, an archive's, a download's.
_READ_ERRORS = (OSError, ValueError, EOFError, RuntimeError, HTTPException, BadZipFile, zlib.error)
_ADDRESSES = ("http://", "https://")
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_SINGLE: tuple[type, ...] = (
    str,
    os.PathLike,
    bytes,
    bytearray,
    memoryview,
    Image.Image,
    Mapping,
    HeldPicture,
)


def iterate_pictures(given: PicturesInput) -> Iterator[ImageFile]:
    """One picture, or several of any kinds, as `encode_pictures` takes them.

    A string is one path, never a row of letters. What is not a picture stands in its place as one
    that cannot be used. Of a data loader's batch, or a data set's `(picture, label)`, only the
    pictures are taken.

    Raises:
        InputError: not a picture, and not several.
    """
    numbers = count(1)
    if hasattr(given, "columns") and not _is_single(given):
        raise InputError(f"{type(given).__name__} is a table: give its column of pictures")
    if _is_single(given):
        return _take(given, numbers)
    if _is_labelled_batch(given):
        return _take_item(given, numbers)
    if not isinstance(given, Iterable) or _is_batch(given):
        return _take_batch(given, numbers)
    return (picture for item in given for picture in _take_item(item, numbers))


def take_picture(given: PictureInput, taker: str) -> ImageFile:
    """The one picture that something takes.

    Raises:
        InputError: it is none, or several; it calls what takes it `taker`.
    """
    pictures = list(islice(iterate_pictures(given), 2))
    if len(pictures) != 1:
        raise InputError(f"{taker} takes one picture")
    return pictures[0]


def _is_single(given: object) -> bool:
    if _is_array(given):
        return given.ndim in (2, 3)
    return isinstance(given, _SINGLE) or hasattr(given, "read")


def _is_batch(given: object) -> bool:
    return _is_array(given) and given.ndim != 1


def _is_array(given: object) -> TypeGuard[NDArray[Any] | Tensor]:
    return isinstance(given, np.ndarray) or _is_tensor(given)


def _is_tensor(given: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")  # without it nobody has a tensor
    return torch is not None and isinstance(given, torch.Tensor)


def _is_labelled_batch(given: object) -> bool:
    """A batch of pictures, and lists of numbers that go with it: what a data loader gives."""
    if not isinstance(given, tuple | list) or len(given) < 2 or not _is_batch(given[0]):
        return False
    labels = (_is_array(one) and one.ndim == 1 for one in given[1:])
    return given[0].ndim == 4 and all(labels)


def _take_item(item: Any, numbers: Iterator[int]) -> Iterator[ImageFile]:
    """The pictures of one entry: itself, a batch of them, or those that labels go with."""
    if isinstance(item, tuple | list) and item:
        first = item[0]
        item = first if isinstance(first, Image.Image) or _is_array(first) else item
    if _is_batch(item) and not _is_single(item):
        return _take_batch(item, numbers)
    return _take(item, numbers)


def _take_batch(given: Any, numbers: Iterator[int]) -> Iterator[ImageFile]:
    if not _is_batch(given) or given.ndim != 4:
        shape = f" of shape {tuple(given.shape)}" if _is_batch(given) else ""
        raise InputError(f"{type(given).__name__}{shape} is no picture: give {_KINDS}")
    return (picture for row in given for picture in _take(row, numbers))


def _take(item: Any, numbers: Iterator[int]) -> Iterator[ImageFile]:
    number = next(numbers)
    item = item.as_py() if hasattr(item, "as_py") else item  # of an Arrow column
    if isinstance(item, Mapping):
        item, name = _unfold_row(item)
    else:
        name = _name_of(item)
    if isinstance(item, str) and item.lower().startswith(_ADDRESSES):
        yield HeldPicture(item, _refuse_address)
    elif isinstance(item, str) and item.lower().startswith("file://"):
        yield Path(url2pathname(urlsplit(item).path))
    elif isinstance(item, str | bytes | Path | HeldPicture):
        yield item
    elif isinstance(item, os.PathLike):
        yield Path(item)
    else:
        yield HeldPicture(name or f"<picture {number}>", lambda: _read(item))


def _refuse_address() -> bytes:
    raise ImageError("addresses are not fetched: give urllib.request.urlopen(address)")


def _name_of(item: object) -> str:
    """A file's name, where a program's object knows it."""
    name = getattr(item, "filename", "") or getattr(item, "name", "")
    return name if isinstance(name, str) else ""


def _unfold_row(row: Mapping[str, Any]) -> tuple[Any, str]:
    """The picture of a Hugging Face row or of its picture column, and the file's name."""
    if "image" in row:
        value = row["image"]
        return _unfold_row(value) if isinstance(value, Mapping) else (value, _name_of(value))
    content, path = row.get("bytes"), row.get("path")
    return (path if content is None else bytes(content), str(path or ""))


def _read(item: Any) -> bytes | Image.Image:
    """A picture's bytes, or its pixels.

    Raises:
        ImageError: it is none.
    """
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    if _is_tensor(item):
        return _to_image(_channels_last(item))
    if isinstance(item, np.ndarray):
        return _to_image(item)
    if hasattr(item, "read"):
        return _read_file(item)
    raise ImageError(f"{type(item).__name__} is no picture")


def _read_file(file: Any) -> bytes:
    try:
        content = file.read(MAX_BYTES + 1)
    except UnicodeDecodeError:
        content = ""
    except _READ_ERRORS as error:  # a closed file is a ValueError
        raise ImageError(f"unreadable file ({' '.join(str(error).split())})") from error
    if not isinstance(content, bytes):
        raise ImageError("the file is opened as text: open it with 'rb'")
    if len(content) > MAX_BYTES:
        raise ImageError(f"file too large (over {MAX_BYTES >> 20} MiB)")
    return content


def _channels_last(tensor: Tensor) -> NDArray[Any]:
    """A tensor (channels, height, width) as an array (height, width, channels)."""
    if tensor.layout is not sys.modules["torch"].strided or tensor.is_meta or tensor.is_quantized:
        kind = f"{tensor.layout}, {tensor.dtype}, on {tensor.device}"
        raise ImageError(f"a tensor without pixels to read ({kind}): give a dense one")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.itemsize < 4:  # NumPy has no bfloat16
        tensor = tensor.float()
    if tensor.ndim == 3 and tensor.shape[0] not in _CHANNELS and tensor.shape[2] in _CHANNELS:
        raise ImageError(f"shape {tuple(tensor.shape)}: a tensor is (channels, height, width)")
    return np.asarray(tensor.movedim(0, -1) if tensor.ndim == 3 else tensor)


def _to_image(pixels: NDArray[Any]) -> Image.Image:
    """An array (height, width) or (height, width, channels) as a Pillow image.

    Raises:
        ImageError: another shape, numbers outside their range.
    """
    shape = tuple(pixels.shape)
    if pixels.ndim == 3 and shape[2] not in _CHANNELS:
        raise ImageError(f"shape {shape}: an array is (height, width, channels)")
    if pixels.ndim not in (2, 3) or 0 in shape:
        raise ImageError(f"shape {shape} is no picture's")
    if pixels.ndim == 3 and shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(_to_bytes(pixels)))


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "uif":
        raise ImageError(f"{pixels.dtype} numbers are no pixels")
    limit = 1 if pixels.dtype.kind == "f" else 255
    low, top = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and top <= limit):  # NaN too
        raise ImageError(
            f"numbers from {low:g} to {top:g}: {pixels.dtype} pixels go from 0 to {limit} "
            "(give pictures before they are normalised)"
        )
    scaled: NDArray[np.uint8] = (pixels * 255).round().astype(np.uint8)
    return scaled if limit == 1 else pixels.astype(np.uint8)
