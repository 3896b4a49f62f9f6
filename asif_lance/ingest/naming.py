"""What identifies an item: the digest of its picture, and the id of its pair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import polars as pl

from asif_lance.database import HashTable, hash_ids
from asif_lance.encoders import PIECE_BYTES, PictureSource, read_bytes, sha256_of
from asif_lance.errors import ImageError, printable
from asif_lance.ingest.columns import VECTORS
from asif_lance.ingest.recent_items import RecentItems
from asif_lance.ingest.vector_columns import given_vectors
from asif_lance.object_files import is_object, open_place
from asif_lance.records import BoolArray

#: Threads that read and hash pictures: both release the interpreter lock.
READING_THREADS = 4

_REMEMBERED_PATHS = 2**18  # some 80 MB
_SLICE_ROWS = 256
_USUAL_BYTES = 2**20

Digest = str | ImageError

_NOT_READ: tuple[Digest, None] = "", None


class PictureReader:
    """Reads pictures and hashes them; a file that comes up again and again is read once."""

    def __init__(self) -> None:
        self._by_path: RecentItems[PictureSource, Digest] = RecentItems(_REMEMBERED_PATHS)

    def read(self, pictures: Sequence[PictureSource]) -> list[tuple[Digest, bytes | None]]:
        """Each picture's sha256, or what is wrong with its file, and its bytes.

        Of a file that came up before, and of a second one of the same name, only the digest.
        """
        new = [p for p in dict.fromkeys(pictures) if self._by_path.get(p) is None]
        with ThreadPoolExecutor(READING_THREADS) as pool:
            read = dict(zip(new, pool.map(_read, new), strict=True))
        known = {p: digest for p in set(pictures) - set(new) if (digest := self._by_path.get(p))}
        known |= {picture: digest for picture, (digest, _) in read.items()}
        for picture in new:
            if not isinstance(picture, bytes):
                self._by_path.put(picture, known[picture])
        return [
            (known[p], p if isinstance(p, bytes) else read.pop(p, _NOT_READ)[1]) for p in pictures
        ]


def _read(picture: PictureSource) -> tuple[Digest, bytes | None]:
    try:
        content = read_bytes(picture)
    except ImageError as error:
        # A new one, without the traceback, which holds the picture's bytes.
        missing = error.reason == "missing file"
        told = f"missing file ({printable(str(picture))})" if missing else error.reason
        return ImageError(told), None
    return sha256_of(content), content


def slices_in_memory(pictures: Sequence[PictureSource]) -> Iterator[slice]:
    """Slices of a batch whose pictures, each at least once, can be in memory together."""
    begin, size = 0, 0
    for end, picture in enumerate(pictures):
        own = len(picture) if isinstance(picture, bytes) else _size_of(picture)
        if end > begin and (size + own > PIECE_BYTES or end - begin == _SLICE_ROWS):
            yield slice(begin, end)
            begin, size = end, 0
        size += own
    if pictures:
        yield slice(begin, len(pictures))


def _size_of(file: Path) -> int:
    if is_object(file):  # to ask would take as long as to read most of them
        return _USUAL_BYTES
    try:
        return file.stat().st_size
    except (OSError, ValueError):  # what is wrong shows when it is read
        return 0


def pictures_to_encode(frame: pl.DataFrame) -> list[PictureSource]:
    """Every row's picture, its bytes or its path; none where all have an image vector."""
    if frame["image_vector"].count():
        return []
    both = zip(frame["image_bytes"], frame["image_path"], strict=True)
    return [data if data is not None else open_place(path) for data, path in both]


def pair_ids(frame: pl.DataFrame) -> pl.Series:
    """The user's own id, or a hash of the picture (or its vectors) and the caption."""
    own = frame["pair_id"]
    if not own.null_count():
        return own
    unnamed = frame if own.null_count() == len(own) else frame.filter(own.is_null())
    texts = (
        unnamed[name].fill_null("").cast(pl.Binary).to_list()
        for name in ("image_sha256", "caption")
    )
    sides = (_given_bytes(unnamed, side) for side in VECTORS)
    hashed = [
        hashlib.sha256(b"".join((digest, image, text, b"\0", caption))).hexdigest()[:32]
        for digest, caption, image, text in zip(*texts, *sides, strict=True)
    ]
    return own.scatter(own.is_null().arg_true(), hashed)


def _given_bytes(frame: pl.DataFrame, name: str) -> Iterable[bytes | memoryview]:
    """Each row's given vector, to be read as it is in memory; nothing where there are none."""
    vectors = given_vectors(frame, name)
    if vectors is None:
        return repeat(b"", len(frame))
    data, width = vectors.reshape(-1).view(np.uint8).data, vectors.shape[1] * vectors.itemsize
    return (data[at : at + width] for at in range(0, len(data), width))


class SeenIds:
    """Ids that came up before, as two 64-bit hashes each: 16 bytes, however long they are."""

    def __init__(self) -> None:
        self._hashes = HashTable()

    def take_new(self, ids: pl.Series) -> BoolArray:
        """(n,) which of n ids come up for the first time; from now on all of them did."""
        one, other = hash_ids(ids, 1), hash_ids(ids, 2)
        new: BoolArray = ids.is_first_distinct().to_numpy().copy()
        places, values = self._hashes.find(one)
        new[places[values == other[places]]] = False
        self._hashes.add(one[new], other[new])
        return new
