"""Pictures of any mode become upright RGB; what cannot is refused with its reason."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from asif_lance.errors import ImageError

#: Larger pictures are refused before they are decoded: 100 megapixels are 300 MB as RGB.
MAX_PIXELS = 100_000_000

#: JPEGs are decoded at a fraction of their size when they stay at least this large.
DRAFT = (512, 512)

Picture = Path | str | bytes


def read_bytes(picture: Picture) -> bytes:
    """A picture's file content.

    Raises:
        ImageError: the file is missing, empty or unreadable.
    """
    if isinstance(picture, bytes):
        data = picture
    else:
        try:
            data = Path(picture).read_bytes()
        except FileNotFoundError:
            raise ImageError("missing file") from None
        except (OSError, ValueError) as error:
            raise ImageError(f"unreadable file ({_reason(error)})") from None
    if not data:
        raise ImageError("empty file")
    return data


def sha256_of(picture: Picture) -> str:
    """Hex sha256 of a picture's file content.

    Raises:
        ImageError: as `read_bytes`.
    """
    return hashlib.sha256(read_bytes(picture)).hexdigest()


def decode_image(picture: Picture) -> Image.Image:
    """A picture as upright RGB: first frame, EXIF-rotated, transparency on white.

    Raises:
        ImageError: missing, empty, not an image, truncated, damaged, or too large.
    """
    data = read_bytes(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of sizes and metadata; we check sizes
        try:
            with Image.open(io.BytesIO(data)) as image:
                return _upright_rgb(image)
        except UnidentifiedImageError:
            raise ImageError("not an image") from None
        except Image.DecompressionBombError:
            raise ImageError("image too large") from None
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
            # What Pillow's many decoders raise on damaged files.
            truncated = "truncated" in str(error).lower()
            raise ImageError("truncated image" if truncated else "damaged image") from None
        except MemoryError:
            raise ImageError("image too large") from None


def _upright_rgb(image: Image.Image) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"image too large ({width}×{height} pixels)")
    if min(width, height) < 1:
        raise ImageError("image has no pixels")
    if image.format == "JPEG":
        image.draft(None, DRAFT)
    image.load()
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit and float greys scaled to 8 bits; `convert` would clip them to white."""
    low, high = image.convert("F").getextrema()
    top = 65535.0 if float(high) > 255 else 255.0 if float(high) > 1 else 1.0  # type: ignore[arg-type]  # greys have one band
    floor = min(float(low), 0.0)  # type: ignore[arg-type]  # likewise
    scaled = image.convert("F").point(lambda v: (v - floor) * (255.0 / max(top - floor, 1e-12)))
    return scaled.convert("L")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "bad name"
