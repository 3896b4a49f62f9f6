from __future__ import annotations

import hashlib
import random
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from asif_lance.encoders import decoding
from asif_lance.encoders.decoding import MAX_PIXELS, decode_image, sha256_of
from asif_lance.errors import ImageError


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = decode_image(data)
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[at[1], at[0]].tolist())


def reason(data: bytes | Path) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def bomb(width: int, height: int) -> bytes:
    """A tiny PNG that claims to be enormous: its header is enough for that."""
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_rgb_passes_unchanged() -> None:
    assert pixel(encoded(Image.new("RGB", (4, 3), (10, 20, 30)))) == (10, 20, 30)


def test_a_file_decodes_like_its_bytes(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (4, 3), (10, 20, 30)))
    (tmp_path / "a.png").write_bytes(data)
    assert decode_image(tmp_path / "a.png").tobytes() == decode_image(data).tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"])
def test_every_common_format_is_read(format: str) -> None:
    red, green, blue = pixel(encoded(Image.new("RGB", (32, 32), (200, 40, 40)), format))
    assert abs(red - 200) < 6
    assert abs(green - 40) < 6
    assert abs(blue - 40) < 6


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode: str) -> None:
    clear = Image.new(mode, (2, 2), (0,) * len(mode))
    assert pixel(encoded(clear)) == (255, 255, 255)


def test_half_transparency_is_mixed_with_white() -> None:
    assert pixel(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))) == (127, 127, 127)


def test_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (2, 2), 0)
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((1, 0), 1)
    data = encoded(image, transparency=0)
    assert pixel(data) == (255, 255, 255)
    assert pixel(data, (1, 0)) == (200, 100, 50)


def test_rgb_with_a_transparent_key_lies_on_white() -> None:
    data = encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert pixel(data) == (255, 255, 255)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(ramp))
    assert [pixel(data, (x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_float_grey_is_stretched_over_its_range() -> None:
    ramp = np.array([[-1.0, 0.0, np.nan, 1.0]], dtype=np.float32)
    data = encoded(Image.fromarray(ramp), "TIFF")
    assert [pixel(data, (x, 0))[0] for x in range(4)] == [0, 128, 128, 255]


def test_flat_float_grey_does_not_divide_by_zero() -> None:
    assert pixel(encoded(Image.new("F", (2, 2), 7.0), "TIFF")) == (0, 0, 0)


def test_cmyk_becomes_rgb() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    assert pixel(data) == (255, 0, 0)


def test_lab_becomes_rgb() -> None:
    red, green, blue = pixel(encoded(Image.new("LAB", (2, 2), (128, 128, 128)), "TIFF"))
    assert max(abs(v - 119) for v in (red, green, blue)) < 3


def test_one_bit_becomes_rgb() -> None:
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)


def test_exif_rotation_is_applied() -> None:
    image = Image.new("RGB", (20, 10), "red")
    image.paste("blue", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode_image(encoded(image, exif=exif))
    assert upright.size == (10, 20)
    assert upright.getpixel((5, 2)) == (0, 0, 255)


def test_broken_exif_data_does_not_spoil_the_picture() -> None:
    data = encoded(Image.new("RGB", (16, 16), "red"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff")
    assert decode_image(data).size == (16, 16)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixel(data) == (255, 0, 0)


def test_big_jpegs_are_decoded_small_but_no_smaller_than_needed() -> None:
    data = encoded(Image.new("RGB", (4000, 3000), "red"), "JPEG")
    assert decode_image(data, min_side=256).size == (1000, 750)
    assert decode_image(data).size == (4000, 3000)


def test_a_missing_file_is_named_so(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.png") == "missing file"


@pytest.mark.parametrize("name", ["nul\0.png", "x" * 300 + ".png", "../../none.png", "a\nb.png"])
def test_hostile_names_are_only_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    assert reason(tmp_path / name) in ("missing file", "unreadable file (File name too long)")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert reason(tmp_path) == "not a file"


def test_an_empty_file_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png") == "empty file"
    assert reason(b"") == "empty file"


@pytest.mark.parametrize("data", [b"hello", b"<svg></svg>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0"])
def test_other_files_are_not_images(data: bytes) -> None:
    assert reason(data) == "not an image"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_picture_cut_in_half_is_truncated(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    assert reason(data[: len(data) // 2]) == "truncated image"


@pytest.mark.parametrize("size", [(50_000, 50_000), (10_000, 10_000)])
def test_a_decompression_bomb_is_refused_unopened(size: tuple[int, int]) -> None:
    width, height = size
    assert width * height > MAX_PIXELS
    assert reason(bomb(*size)) == f"image too large ({width}×{height} pixels)"


def test_a_hairline_picture_is_refused() -> None:
    # Scaled to 256 pixels on its short side it would need 5 gigabytes.
    assert reason(encoded(Image.new("L", (1, 5000)))) == "image too narrow (1×5000 pixels)"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"])
def test_damaged_bytes_give_a_picture_or_a_reason_never_a_crash(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    data, rng = encoded(Image.fromarray(noise), format), random.Random(0)
    refused = 0
    for _ in range(150):
        broken = bytearray(data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data)
        for _ in range(rng.randrange(1, 12)):
            broken[rng.randrange(min(len(broken), 200))] = rng.randrange(256)
        try:
            assert decode_image(bytes(broken)).mode == "RGB"
        except ImageError:
            refused += 1
    assert refused > 10


def test_sha256_is_of_the_stored_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    assert sha256_of(tmp_path / "a") == sha256_of(b"picture")
    assert sha256_of(b"picture") == hashlib.sha256(b"picture").hexdigest()


def test_sha256_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^missing file$"):
        sha256_of(tmp_path / "none")


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def test_heic_names_its_extra_where_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decoding._heif_format.cache_clear()
    with pytest.raises(ImageError, match=r"HEIC needs an extra: pip install 'asif-lance\[heif\]'"):
        decode_image(HEIC)


@pytest.fixture
def heic() -> bytes:
    """A picture as telephones take them: blue on its left, red on its right, and lying."""
    decoding._heif_format.cache_clear()
    image = Image.new("RGB", (320, 240), "red")
    image.paste("blue", (0, 0, 160, 240))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = BytesIO()
    pillow_heif.from_pillow(image).save(stream, exif=exif.tobytes())
    return stream.getvalue()


def test_heic_is_read_upright(heic: bytes) -> None:
    image = decode_image(heic, min_side=32)
    assert image.size == (240, 320)
    (top, _, blue), (red, _, bottom) = image.getpixel((120, 10)), image.getpixel((120, 310))  # type: ignore[misc]
    assert min(blue, red) > 200 > 60 > max(top, bottom)


def test_damaged_heic_is_refused_with_a_reason(heic: bytes) -> None:
    reasons = {reason(heic[: len(heic) * part // 10]) for part in range(1, 10)}
    assert reasons <= {"truncated image", "damaged image", "not an image"}
    rng, refused = random.Random(0), 0
    for _ in range(100):
        broken = bytearray(heic)
        for _ in range(rng.randrange(1, 12)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            assert decode_image(bytes(broken)).mode == "RGB"
        except ImageError:
            refused += 1
    assert refused > 10


def test_avif_is_read_without_any() -> None:
    stream = BytesIO()
    Image.new("RGB", (64, 48), "red").save(stream, "AVIF")
    assert decode_image(stream.getvalue()).size == (64, 48)
