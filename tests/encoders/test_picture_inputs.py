"""Pictures from a program: each kind is the same picture, and one alone is never taken apart."""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from asif_lance.encoders import decode_image, iterate_pictures, picture_name, to_image_item
from asif_lance.encoders.decoding import upright_rgb
from asif_lance.errors import ImageError, InputError

Make = Callable[[Path], Any]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def pixels_of(image: Any) -> np.ndarray:
    """What an encoder would be given of one picture."""
    item = to_image_item(image)
    item = item() if callable(item) else item
    found = upright_rgb(item) if isinstance(item, Image.Image) else decode_image(item)
    return np.asarray(found)


def array(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file))


def tensor(file: Path) -> torch.Tensor:
    return torch.from_numpy(array(file).copy()).permute(2, 0, 1)


def zip_member(file: Path) -> Any:
    with zipfile.ZipFile(file.with_suffix(".zip"), "w") as archive:
        archive.write(file, "photo.png")
    return zipfile.ZipFile(file.with_suffix(".zip")).open("photo.png")


ONE: dict[str, Make] = {
    "a path as text": str,
    "a path": lambda file: file,
    "bytes": lambda file: file.read_bytes(),
    "a bytearray": lambda file: bytearray(file.read_bytes()),
    "a memoryview": lambda file: memoryview(file.read_bytes()),
    "an open file": lambda file: file.open("rb"),
    "a file in memory": lambda file: io.BytesIO(file.read_bytes()),
    "a member of an archive": zip_member,
    "a Pillow image": Image.open,
    "an array of bytes": array,
    "an array of floats": lambda file: array(file) / 255,
    "an array with transparency": lambda file: np.asarray(Image.open(file).convert("RGBA")),
    "a tensor of bytes": tensor,
    "a tensor of floats": lambda file: tensor(file) / 255,
    "a data set's row": lambda file: {"image": Image.open(file), "label": 3},
    "a data set's undecoded row": lambda file: {"image": {"bytes": file.read_bytes(), "path": "p"}},
    "a picture column's value": lambda file: {"bytes": None, "path": str(file)},
}

SEVERAL: dict[str, Make] = {
    "a list": lambda file: [file, str(file), Image.open(file)],
    "a generator": lambda file: (path for path in [file] * 3),
    "an array of paths": lambda file: np.array([str(file)] * 3),
    "a batch as an array": lambda file: np.stack([array(file)] * 3),
    "a batch as a tensor": lambda file: torch.stack([tensor(file)] * 3),
    "a data loader": lambda file: torch.utils.data.DataLoader(
        [(tensor(file), i) for i in range(3)], batch_size=2
    ),
    "a data loader's batch": lambda file: (
        torch.stack([tensor(file)] * 3),
        torch.arange(3),
    ),
    "batches in a list": lambda file: [np.stack([array(file)] * n) for n in (1, 2)],
    "a data set of pictures and labels": lambda file: [(Image.open(file), i) for i in range(3)],
    "rows of a data set": lambda file: [{"image": Image.open(file), "label": i} for i in range(3)],
}


@pytest.mark.parametrize("make", ONE.values(), ids=list(ONE))
def test_one_picture_of_any_kind_is_one_picture(make: Make, file: Path) -> None:
    (found,) = iterate_pictures(make(file))
    assert np.array_equal(pixels_of(found), array(file))


@pytest.mark.parametrize("make", SEVERAL.values(), ids=list(SEVERAL))
def test_several_pictures_of_any_kind_stay_in_order(make: Make, file: Path) -> None:
    found = [pixels_of(picture) for picture in iterate_pictures(make(file))]
    assert len(found) == 3
    assert all(np.array_equal(pixels, array(file)) for pixels in found)


def test_an_address_says_how_to_fetch_it() -> None:
    (found,) = iterate_pictures("https://example.org/photo.png")
    assert picture_name(found) == "https://example.org/photo.png"
    with pytest.raises(ImageError, match="addresses are not fetched: give urllib"):
        pixels_of(found)


class BreaksOff:
    """A file whose content ends in an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, size: int = -1) -> bytes:
        raise self.error


BREAKS = (
    http.client.IncompleteRead(b"half of it", 99),
    EOFError("ended"),
    RuntimeError("password required"),
    TimeoutError("too slow"),
    zipfile.BadZipFile("Bad CRC-32"),
    zlib.error("invalid block"),
)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros((3, 20, 30), np.uint8), "an array is (height, width, channels)"),
        (torch.zeros(20, 30, 3), "a tensor is (channels, height, width)"),
        (torch.full((3, 4, 4), 2.1), "numbers from 2.1"),
        (np.full((4, 4), 300), "numbers from 300"),
        (np.full((4, 4), np.nan), "numbers from nan"),
        (np.zeros((4, 4), complex), "complex128 numbers are no pixels"),
        (np.zeros((0, 4, 3)), "no picture's"),
        (io.StringIO("text"), "open it with 'rb'"),
        (None, "NoneType is no picture"),
        (Image.new("RGB", (0, 5)), "image without pixels (0×5)"),
        (Image.new("RGB", (5, 0)), "image without pixels (5×0)"),
        (torch.zeros(3, 4, 4).to_sparse(), "give a dense one"),
        (torch.zeros(3, 4, 4, device="meta"), "on meta"),
        *((BreaksOff(error), "unreadable file") for error in BREAKS),
    ],
)
def test_what_is_no_picture_costs_only_itself(given: object, reason: str, file: Path) -> None:
    first, wrong, last = iterate_pictures([file, given, file])
    for good in (first, last):
        assert np.array_equal(pixels_of(good), array(file))
    with pytest.raises(ImageError, match=re.escape(reason)):
        pixels_of(wrong)


def test_a_closed_file_says_so(file: Path) -> None:
    with file.open("rb") as opened:
        pass
    (found,) = iterate_pictures([opened])
    with pytest.raises(ImageError, match="closed file"):
        pixels_of(found)


@pytest.mark.parametrize("given", [None, 7, np.zeros(()), np.zeros((2, 2, 2, 2, 2))])
def test_what_holds_no_pictures_at_all_is_refused_at_once(given: object) -> None:
    with pytest.raises(InputError, match="is no picture: give a path"):
        list(iterate_pictures(given))


@pytest.mark.parametrize("library", [pl.DataFrame, pa.table])
def test_a_table_says_that_its_column_is_wanted(library: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="is a table: give its column of pictures"):
        list(iterate_pictures(library({"image": ["a.png"]})))


def test_names_come_from_files_and_else_from_the_place(file: Path) -> None:
    with file.open("rb") as opened:
        given = [array(file), opened, {"image": Image.open(file)}, b"", file]
        names = [picture_name(picture) for picture in iterate_pictures(given)]
    assert names == ["<picture 1>", str(file), str(file), "<bytes>", str(file)]


def test_pictures_are_asked_for_only_when_needed() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"picture"

    assert next(iterate_pictures(endless())) == b"picture"


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_]),
        arrays.array_shapes(min_dims=1, max_dims=4, max_side=5),
    )
)
def test_no_array_ends_in_anything_but_a_picture_or_a_reason(values: np.ndarray) -> None:
    with contextlib.suppress(ImageError, InputError):
        for picture in iterate_pictures(values):
            assert pixels_of(picture).dtype == np.uint8
