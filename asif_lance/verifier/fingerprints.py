"""Keyed fingerprints: they find what is exactly equal, and say nothing without their key.

A fingerprint is a keyed hash (blake2b) of an id, text, picture or vector. All receipts made with
one key use the same function, so a new value is hashed once and looked up in all of them. The key
never lies in the database: whoever has only that and a receipt cannot test a guess.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asif_lance.records import Float32Array

Found = Iterator[tuple[int, str]]
"""Pairs of a row and the fingerprint of what was found there."""

KEY_BYTES = 32
# What a key is told from another by is the fingerprint of this.
_KEY_MARK = b"asif-lance fingerprint key"

#: Shorter texts turn up by chance everywhere; rows are known by their ids, however short.
SHORTEST_TEXT = 4
# Texts in binary files: runs of printable bytes, and what is quoted within them.
_RUN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{3,}")
_QUOTED = re.compile(rb"'((?:[^']|'')*)'|\"([^\"]*)\"")
# Bytes of a length or a tag that may look like a part of the text beside them.
_LEADING_BYTES, _TRAILING_BYTES = 4, 3


def hash_value(key: bytes, value: bytes) -> str:
    """The fingerprint of a value: 32 hex digits."""
    return hashlib.blake2b(value, key=key, digest_size=16).hexdigest()


def name_key(key: bytes) -> str:
    """The id of a key, which receipts and people may know."""
    return hash_value(key, _KEY_MARK)


class ContentMatcher(Protocol):
    """What is looked for. The `match` methods yield the fingerprints of what they found."""

    def is_forgotten(self, pair_id: str) -> bool:
        """Whether this is the id of a forgotten pair."""

    def match_values(self, values: pa.Array) -> Found:
        """Looks through strings or binaries for equal ones."""

    def match_vectors(self, vectors: Float32Array) -> Found:
        """Looks through (n, d) vectors for the same direction."""

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """Looks through a file that nothing decodes."""


@dataclass(frozen=True)
class Fingerprints:
    """What a receipt keeps, with the key that it does not keep.

    Attributes:
        key: of the hashes.
        ids: of the pairs' ids.
        values: of their ids, texts and pictures.
        vectors: of the exact float16 bytes of their vectors.
    """

    key: bytes
    ids: frozenset[str]
    values: frozenset[str]
    vectors: frozenset[str]

    def is_forgotten(self, pair_id: str) -> bool:
        """See `ContentMatcher`."""
        return hash_value(self.key, pair_id.encode()) in self.ids

    def match_values(self, values: pa.Array) -> Found:
        """See `ContentMatcher`."""
        for row, value in enumerate(as_binary(values).to_pylist()):
            digest = None if value is None else hash_value(self.key, value)
            if digest in self.values:
                yield row, digest

    def match_vectors(self, vectors: Float32Array) -> Found:
        """See `ContentMatcher`."""
        for row, vector in enumerate(vectors.astype(np.float16)):
            digest = hash_value(self.key, vector.tobytes())
            if digest in self.vectors:
                yield row, digest

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """See `ContentMatcher`."""
        digests = (hash_value(self.key, text) for text in find_texts(data))
        return (digest for digest in digests if digest in self.values)


def find_texts(data: bytes) -> set[bytes]:
    """Texts that binary data may hold: printable runs, their ends cut, and what they quote."""
    texts: set[bytes] = set()
    for run in _RUN.findall(data):
        texts.update(
            run[a : len(run) - b] for a in range(_LEADING_BYTES) for b in range(_TRAILING_BYTES)
        )
        for single, double in _QUOTED.findall(run):
            texts.update((single.replace(b"''", b"'"), double))
    return {text for text in texts if len(text) >= SHORTEST_TEXT}


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column of this type holds vectors."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts or binaries."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def as_matrix(column: pa.Array) -> NDArray[np.floating]:
    """A column of vectors as (n, d); what an empty place holds is undefined."""
    width = column.type.list_size
    flat = column.values.slice(column.offset * width, len(column) * width)
    matrix: NDArray[np.floating] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix


def as_binary(values: pa.Array) -> pa.Array:
    """Texts as their bytes."""
    return values.cast(pa.large_binary())
