"""Decodes pictures of many formats to upright RGB; an unusable one is an error with its reason."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

from asif_lance.errors import ImageError

# Pillow knows more, but its rarer readers are little tested and EPS would start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")

# fmt: off
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm",
    ".pgm", ".avif", ".jp2",
})
# fmt: on

# Pillow's own warning limit: a quarter of a gigabyte once decoded.
MAX_PIXELS = 89_478_485
MAX_BYTES = 512 * 2**20

# Encoders scale the short side up to what they need, and the long side with it.
MAX_ASPECT = 100

# What Pillow's readers raise on damaged data (collected by fuzzing them).
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    RuntimeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)

# Damaged metadata makes Pillow warn on stderr; it is either harmless or ends in an ImageError.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def read_bytes(data: bytes | Path) -> bytes:
    """The file's content, or `data` itself.

    Raises:
        ImageError: there is no such file, or it is empty, too large or cannot be read.
    """
    content = data if isinstance(data, bytes) else _read_file(data)
    if not content:
        raise ImageError("empty file")
    return content


def sha256_of(data: bytes | Path) -> str:
    """Hex SHA-256 of a picture's bytes as they are stored, before any decoding.

    Raises:
        ImageError: as for `read_bytes`.
    """
    return hashlib.sha256(read_bytes(data)).hexdigest()


def decode_image(data: bytes | Path, *, min_side: int | None = None) -> Image.Image:
    """Decode the first frame to RGB, rotated as its EXIF data says, transparency on white.

    16-bit grey keeps its upper 8 bits' worth; 32-bit integers and floats, which have no white of
    their own, are stretched from their darkest to their brightest value.

    Args:
        data: the encoded picture or its file.
        min_side: pixels that the short side needs. JPEGs of more than twice that are decoded at a
            half, a quarter or an eighth of their size, several times faster.

    Raises:
        ImageError: with a short reason: `missing file`, `empty file`, `not an image`,
            `truncated image`, `damaged image`, `image too large (… pixels)`, …
    """
    image = _open(read_bytes(data))
    if min_side is not None:
        image.draft("RGB", (2 * min_side, 2 * min_side))
    return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as `decode_image` would give it.

    Raises:
        ImageError: as for `decode_image`.
    """
    try:
        image.load()
        return _to_rgb(_turned(image))
    except _DAMAGE as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error)
        raise ImageError("truncated image" if cut else "damaged image") from error


def _read_file(path: Path) -> bytes:
    try:
        if not path.exists():
            raise ImageError("missing file")
        if not path.is_file():
            raise ImageError("not a file")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"file too large (over {MAX_BYTES >> 20} MiB)")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"unreadable file ({error.strerror})") from error
    except ValueError as error:  # a NUL or a lone surrogate in the name
        raise ImageError("missing file") from error


def _open(content: bytes) -> ImageFile.ImageFile:
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(*_header_size(content)) from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image") from error
    except _DAMAGE as error:
        raise ImageError("damaged image") from error
    _check_size(*image.size)
    return image


def _header_size(content: bytes) -> tuple[int, int]:
    """The size that made Pillow refuse: its error does not tell, its format readers do."""
    readers = (Image.OPEN[name] for name in FORMATS)
    reader = next(read for read, accepts in readers if accepts and accepts(content[:16]) is True)
    width, height = reader(BytesIO(content), "").size
    return width, height


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(width, height)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"image too narrow ({width}×{height} pixels)")


def _too_large(width: int, height: int) -> ImageError:
    return ImageError(f"image too large ({width}×{height} pixels)")


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:  # broken EXIF data beside good pixels: viewers ignore it too
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep_gray_to_rgb(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _deep_gray_to_rgb(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (values - low) * (255 / (high - low or 1.0))
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
