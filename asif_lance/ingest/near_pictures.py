"""Pictures that look like earlier ones: perceptual hashes, compared with all before them.

Two hashes of 64 bits that differ in at most four of them agree in one of five parts: only those
are compared. 80 bytes a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from asif_lance.database import HashTable
from asif_lance.encoders import PictureSource, decode_image
from asif_lance.errors import ImageError, InputError
from asif_lance.records import BoolArray

#: Bits that may differ. Of 1,000 photos (Flickr8k) no two are this near, even at ten; of copies of
#: 80 of them all are (JPEG of quality 20, half the size), and 5% (5% cut off each side).
DISTANCE = 4

# Where the parts of a hash begin, and how many bits each has.
_PARTS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))

# A hash of a picture without any structure says nothing: half of the bits are set otherwise.
_LEAST_BITS, _MOST_BITS = 8, 56

_MIN_SIDE, _THREADS = 64, 4

UInt64Array = NDArray[np.uint64]


class NearPictures:
    """Remembers how pictures look."""

    def __init__(self) -> None:
        """Be ready.

        Raises:
            InputError: what hashes pictures is not installed.
        """
        try:
            import imagehash
        except ImportError as error:
            raise InputError(
                "telling near duplicates takes imagehash: pip install 'asif-lance[hygiene]'"
            ) from error
        self._hash = imagehash.phash
        self._tables = [HashTable() for _ in _PARTS]

    def take_near(self, pictures: Sequence[PictureSource]) -> BoolArray:
        """(n,) which of n pictures look like one before; from now on all of them did."""
        with ThreadPoolExecutor(_THREADS) as pool:
            hashes = list(pool.map(self._hash_of, pictures))
        near = np.zeros(len(pictures), bool)
        known = [place for place, found in enumerate(hashes) if found is not None]
        own = np.array([hashes[place] for place in known], np.uint64)
        near[known] = self._is_held(own) | _is_near_earlier(own)
        for table, part in zip(self._tables, _parts(own), strict=True):
            table.add(part, own)
        return near

    def _is_held(self, hashes: UInt64Array) -> BoolArray:
        held = np.zeros(len(hashes), bool)
        for table, part in zip(self._tables, _parts(hashes), strict=True):
            places, others = table.find(part)
            held[places[np.bitwise_count(hashes[places] ^ others) <= DISTANCE]] = True
        return held

    def _hash_of(self, picture: PictureSource) -> int | None:
        """None for what has no structure, or cannot be decoded, which the encoder will tell."""
        try:
            bits = self._hash(decode_image(picture, min_side=_MIN_SIDE)).hash
        except ImageError:
            return None
        if not _LEAST_BITS <= bits.sum() <= _MOST_BITS:
            return None
        return int.from_bytes(np.packbits(bits).tobytes())


def _parts(hashes: UInt64Array) -> Iterator[UInt64Array]:
    for begin, bits in _PARTS:
        yield (hashes >> np.uint64(begin)) & np.uint64(2**bits - 1)


def _is_near_earlier(hashes: UInt64Array) -> BoolArray:
    """(n,) which of n hashes are near one before them."""
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    near: BoolArray = np.tril(distances <= DISTANCE, -1).any(axis=1)
    return near
