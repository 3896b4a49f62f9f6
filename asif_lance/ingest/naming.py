"""What identifies an item: the digest of its picture, and the id of its pair."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from asif_lance.database import HashTable, hash_ids
from asif_lance.encoders import PictureSource, sha256_of
from asif_lance.errors import ImageError, printable
from asif_lance.ingest.vector_columns import given_vectors
from asif_lance.ingest.window import Window
from asif_lance.records import BoolArray

#: Threads that hash pictures: reading dominates, and it releases the interpreter lock.
HASHING_THREADS = 4

_REMEMBERED_PATHS = 65_536  # some 20 MB

Digest = str | ImageError


class PictureDigests:
    """Digests of pictures; a file that comes up again and again is read once."""

    def __init__(self) -> None:
        self._by_path: Window[PictureSource, Digest] = Window(_REMEMBERED_PATHS)

    def digest(self, pictures: Sequence[PictureSource | None]) -> list[Digest | None]:
        """Each picture's sha256, or what is wrong with its file; None where there is no picture."""
        distinct = [picture for picture in dict.fromkeys(pictures) if picture is not None]
        held = {picture: self._by_path.get(picture) for picture in distinct}
        digests = {picture: digest for picture, digest in held.items() if digest is not None}
        new = [picture for picture in distinct if picture not in digests]
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            digests |= zip(new, pool.map(_digest_or_fault, new), strict=True)
        for picture in new:
            if isinstance(picture, Path):
                self._by_path.put(picture, digests[picture])
        return [None if picture is None else digests[picture] for picture in pictures]


def _digest_or_fault(picture: PictureSource) -> Digest:
    try:
        return sha256_of(picture)
    except ImageError as error:
        # A new one, without the traceback, which holds the picture's bytes.
        missing = error.reason == "missing file"
        return ImageError(f"missing file ({printable(str(picture))})" if missing else error.reason)


def pictures_to_encode(frame: pl.DataFrame) -> list[PictureSource | None]:
    """The picture of every row that has no image vector: its bytes or its path."""
    needed = frame["image_vector"].is_null()
    if not needed.any():
        return [None] * len(frame)
    return [
        (data if data is not None else Path(path)) if need else None
        for need, data, path in zip(needed, frame["image_bytes"], frame["image_path"], strict=True)
    ]


def pair_ids(frame: pl.DataFrame) -> pl.Series:
    """The user's own id, or a hash of the picture (or its vectors) and the caption."""
    unnamed = frame.filter(pl.col("pair_id").is_null())
    if not len(unnamed):
        return frame["pair_id"]
    digests = [(digest or "").encode() for digest in unnamed["image_sha256"]]
    captions = [(caption or "").encode() for caption in unnamed["caption"]]
    sides = (_vector_bytes(unnamed, side) for side in ("image_vector", "text_vector"))
    hashed = [
        hashlib.sha256(b"".join((digest, image, text, b"\0", caption))).hexdigest()[:32]
        for digest, image, text, caption in zip(digests, *sides, captions, strict=True)
    ]
    if len(unnamed) == len(frame):
        return pl.Series(hashed, dtype=pl.String)
    ids = iter(hashed)
    return pl.Series([next(ids) if own is None else own for own in frame["pair_id"]])


def _vector_bytes(frame: pl.DataFrame, name: str) -> list[bytes | memoryview]:
    """Each row's given vector as it is in memory; nothing where it has none."""
    vectors, missing = given_vectors(frame, name)
    width = vectors.shape[1] * vectors.itemsize
    if not width:
        return [b""] * len(frame)
    whole = vectors.data.cast("B")
    parts: list[bytes | memoryview] = [
        whole[start : start + width] for start in range(0, len(whole), width)
    ]
    for row in missing:
        parts[row] = b""
    return parts


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
