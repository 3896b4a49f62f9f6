"""Decodes pictures of many formats to upright RGB; an unusable one is an error with its reason."""

from __future__ import annotations

import hashlib
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from asif_lance.errors import ImageError
from asif_lance.object_files import is_object, read_object
from asif_lance.records import Float64Array

# Pillow knows more, but its rarer readers are little tested and EPS would start Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")

# fmt: off
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".j2k", ".jpx",
    ".heic", ".heif", ".hif",
})
# Pictures that people have in folders and that cannot be read.
UNSUPPORTED_SUFFIXES = frozenset({
    ".svg", ".svgz", ".psd", ".eps", ".ai", ".jxl", ".jxr", ".ico",
    ".tga", ".exr", ".hdr", ".xcf", ".wmf", ".emf", ".dng", ".raw", ".cr2", ".cr3", ".nef",
    ".arw", ".orf", ".raf", ".rw2",
})
# fmt: on

# How the boxes of a HEIC picture begin, after their length; AVIF, which Pillow reads, has others.
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

# Pillow's own warning limit. Decoding takes at most 12 bytes per pixel: the picture as it is
# stored, the same turned, and the same as RGB.
MAX_PIXELS = 89_478_485

# Pictures of more pixels than this are decoded one at a time, however many threads there are.
_LARGE_PIXELS = MAX_PIXELS // 2
_large_picture = threading.Lock()

# Pictures are converted this many pixels at a time.
_STRIP_PIXELS = 1 << 20

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
    ArithmeticError,
    AssertionError,
    AttributeError,
    struct.error,
    zlib.error,
    ImageCms.PyCMSError,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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
    with _damage_as_reason():
        if min_side is not None:
            image.draft("RGB", (2 * min_side, 2 * min_side))
        large = image.width * image.height > _LARGE_PIXELS
        with _large_picture if large else nullcontext():
            image.load()
            _check_size(*image.size)  # a GIF's frame may be larger than its header says
            return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened picture as `decode_image` would give it; itself if it is upright RGB.

    Raises:
        ImageError: as for `decode_image`.
    """
    with _damage_as_reason():
        image.load()
        _check_size(*image.size)
        return _to_rgb(_turned(image))


@contextmanager
def _damage_as_reason() -> Iterator[None]:
    """Turn what Pillow's readers raise into an ImageError."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"image too large (over {MAX_PIXELS} pixels)") from error
    except MemoryError as error:
        raise ImageError("not enough memory for this image") from error
    except _DAMAGE as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error)
        raise ImageError("truncated image" if cut else "damaged image") from error


def _read_file(path: Path) -> bytes:
    too_large = f"file too large (over {MAX_BYTES >> 20} MiB)"
    try:
        if is_object(path):
            if (content := read_object(path, MAX_BYTES)) is None:
                raise ImageError(too_large)
            return content
        if not path.exists():
            raise ImageError("missing file")
        if not path.is_file():
            raise ImageError("not a file")
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(too_large)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing file") from error
    except OSError as error:
        raise ImageError(f"unreadable file ({error.strerror})") from error
    except ValueError as error:  # a NUL or a lone surrogate in the name
        raise ImageError("missing file") from error


def _open(content: bytes) -> ImageFile.ImageFile:
    with _damage_as_reason():
        try:
            formats = (*FORMATS, _heif_format()) if _is_heif(content) else FORMATS
            image = Image.open(BytesIO(content), formats=formats)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            if size := _header_size(content):
                _check_size(*size)
            raise
        except UnidentifiedImageError as error:
            raise ImageError("not an image") from error
    _check_size(*image.size)
    return image


def _is_heif(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS and b"avif" not in content[:64]


@cache
def _heif_format() -> str:
    """The name of Pillow's plugin for HEIC, which is an extra.

    Raises:
        ImageError: it is not installed.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError("HEIC needs an extra: pip install 'asif-lance[heif]'") from error
    register_heif_opener(thumbnails=False)
    return "HEIF"


def _header_size(content: bytes) -> tuple[int, int] | None:
    """The size that made Pillow refuse: its error does not tell, its own format readers do."""
    readers = (Image.OPEN[name] for name in FORMATS)
    fitting = (read for read, accepts in readers if accepts and accepts(content[:16]) is True)
    reader = next(fitting, None)
    if reader is None:
        return None
    width, height = reader(BytesIO(content), "").size
    return width, height


def _check_size(width: int, height: int) -> None:
    if not width * height:
        raise ImageError(f"image without pixels ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(f"image too large ({width}×{height} pixels)")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"image too narrow ({width}×{height} pixels)")


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:  # broken EXIF data beside good pixels: viewers ignore it too
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, converted strip by strip: what is between needs little memory."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    gray_range = _gray_range(image) if _is_deep_gray(image) else None
    rgb = Image.new("RGB", image.size)
    for box in _strips(image):
        strip = image.crop(box)
        rgb.paste(_gray_to_rgb(strip, *gray_range) if gray_range else _strip_to_rgb(strip), box)
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    rows = max(_STRIP_PIXELS // image.width, 1)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _is_deep_gray(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _gray_range(image: Image.Image) -> tuple[float, float]:
    """The values that become black and white."""
    strips = (_gray_values(image.crop(box)) for box in _strips(image))
    lows, highs = zip(*((float(v.min()), float(v.max())) for v in strips), strict=True)
    low, high = min(lows), max(highs)
    if image.mode != "F" and low >= 0 and high <= 65535:
        return 0.0, 65535.0
    return low, high


def _gray_values(image: Image.Image) -> Float64Array:
    return np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)


def _gray_to_rgb(image: Image.Image, low: float, high: float) -> Image.Image:
    scaled = (_gray_values(image) - low) * (255 / (high - low or 1.0))
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
