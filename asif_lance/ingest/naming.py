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
from asif_lance.ingest.columns import VECTORS
from asif_lance.ingest.vector_columns import given_vectors
from asif_lance.ingest.window import Window
from asif_lance.records import BoolArray, Float32Array

#: Threads that hash pictures: reading dominates, and it releases the interpreter lock.
HASHING_THREADS = 4

_REMEMBERED_PATHS = 65_536  # some 20 MB

Digest = str | ImageError


class PictureDigests:
    """Digests of pictures; a file that comes up again and again is read once."""

    def __init__(self) -> None:
        self._by_path: Window[PictureSource, Digest] = Window(_REMEMBERED_PATHS)

    def digest(self, pictures: Sequence[PictureSource]) -> list[Digest]:
        """Each picture's sha256, or what is wrong with its file."""
        distinct = dict.fromkeys(pictures)
        held = {picture: self._by_path.get(picture) for picture in distinct}
        digests = {picture: digest for picture, digest in held.items() if digest is not None}
        new = [picture for picture in distinct if picture not in digests]
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            digests |= zip(new, pool.map(_digest_or_fault, new), strict=True)
        for picture in new:
            if isinstance(picture, Path):
                self._by_path.put(picture, digests[picture])
        return [digests[picture] for picture in pictures]


def _digest_or_fault(picture: PictureSource) -> Digest:
    try:
        return sha256_of(picture)
    except ImageError as error:
        # A new one, without the traceback, which holds the picture's bytes.
        missing = error.reason == "missing file"
        return ImageError(f"missing file ({printable(str(picture))})" if missing else error.reason)


def pictures_to_encode(frame: pl.DataFrame) -> list[PictureSource]:
    """Every row's picture, its bytes or its path; none where all have an image vector."""
    if frame["image_vector"].count():
        return []
    both = zip(frame["image_bytes"], frame["image_path"], strict=True)
    return [data if data is not None else Path(path) for data, path in both]


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


def _given_bytes(frame: pl.DataFrame, name: str) -> Sequence[bytes | Float32Array]:
    """Each row's given vector, to be read as it is in memory; nothing where there are none."""
    vectors = given_vectors(frame, name)
    return [b""] * len(frame) if vectors is None else list(vectors)


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
