"""Pictures that are damaged, or made to take memory: they cost themselves and little of it."""

from __future__ import annotations

import struct

import pytest
from limited import run_limited

from asif_lance.encoders.decoding import decode_image
from asif_lance.errors import ImageError


def gif_with_frame(width: int, height: int) -> bytes:
    """A GIF of 10 × 10 pixels by its header, whose frame is larger."""
    header = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return header + frame + b"\x3b"


@pytest.mark.parametrize("size", [(60_000, 60_000), (12_000, 10_000), (65_000, 20)])
def test_a_frame_that_is_larger_than_its_picture_is_a_reason(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"image too (large|narrow)|truncated image"):
        decode_image(gif_with_frame(*size))


LARGE = """
import io, struct, sys, zlib
import numpy as np
from PIL import Image
SIDE = 9400  # just below the limit on pixels
kind = sys.argv[1]
if kind == "float":
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE), np.float32)).save(
        buffer, "TIFF", compression="tiff_deflate"
    )
    data = buffer.getvalue()
else:
    depth, colour, width = {"grey": (16, 0, 2), "alpha": (8, 6, 4), "rgb": (8, 2, 3)}[kind]
    pixels = zlib.compressobj(9)
    rows = b"".join(pixels.compress(bytes(1 + width * SIDE)) for _ in range(SIDE))
    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum
    data = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    ) + chunk(b"IDAT", rows + pixels.flush()) + chunk(b"IEND", b"")
before = peak()
size = decode_image(data, min_side=224).size
print(len(data) // 1000, size[0], round(peak() - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grey", "alpha", "rgb", "float"])
def test_no_picture_takes_more_than_twelve_bytes_a_pixel(kind: str) -> None:
    kilobytes, side, grown = map(int, run_limited(LARGE, kind, megabytes=2000).split())
    assert kilobytes < 1000
    assert side == 9400
    assert grown < 12 * 9400**2 / 2**20


MUTATE = """
import io, random, sys, warnings
import numpy as np
from PIL import Image, ImageCms, PngImagePlugin
warnings.simplefilter("ignore")
rng, noise = random.Random(int(sys.argv[1])), np.random.default_rng(0)
pixels = noise.integers(0, 255, (24, 24, 3), dtype=np.uint8)
exif = Image.Exif()
exif[0x0112], exif[0x010F] = 6, "maker"
text = PngImagePlugin.PngInfo()
text.add_text("note", "x" * 5000, zip=True)
text.add_itxt("other", "y" * 5000, zip=True)
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

def made(format, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()

marked = {"exif": exif, "icc_profile": profile}
bases = [made("JPEG", **marked), made("PNG", pnginfo=text, **marked), made("WEBP", **marked)]
bases += [made("TIFF", mode, compression=how, exif=exif) for mode in ("RGB", "LAB", "CMYK", "F")
          for how in ("raw", "tiff_lzw", "tiff_deflate")]
bases += [made("GIF", save_all=True, append_images=[Image.new("RGB", (24, 24), "red")] * 3)]
bases += [made("PNG", "P", transparency=3), made("PNG", "I;16"), made("JPEG", "CMYK")]
bases += [made("AVIF", **marked), made("JPEG2000"), made("BMP"), made("PPM")]
refused = 0
for i in range(int(sys.argv[2])):
    data = bytearray(bases[i % len(bases)])
    if rng.random() < 0.2:
        del data[rng.randrange(1, len(data)):]
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(min(len(data), rng.choice([60, 600, 10**9])))] = rng.randrange(256)
    try:
        assert decode_image(bytes(data), min_side=224).mode == "RGB"
    except ImageError as error:
        assert len(error.reason) < 80
        refused += 1
print(refused, round(peak() - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_mutated_pictures_give_pixels_or_reasons_within_little_memory(seed: int) -> None:
    refused, grown = map(int, run_limited(MUTATE, seed, 600, megabytes=2000).split())
    assert refused > 100
    assert grown < 1200
