"""What a verifier looks for: forgotten content in clear, or salted fingerprints of it.

Right after a purge the content is known, and vectors are sought by their cosine. A receipt keeps
fingerprints only: keyed hashes of each id, text, picture and vector, which find what is exactly
equal and do not reveal what it was, though whoever has the receipt can test a guess.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.records import Float16Array, Float32Array

Found = Iterator[tuple[int, str]]
"""Pairs of a row and the key of what was found there."""

# Two float16 roundings of one vector differ far less, two pictures far more.
SAME_COSINE = 0.9995
# Shared by many pairs by nature: to find one is no sign of a certain pair.
_COMMON = ("source", "license")
# Shorter texts turn up by chance everywhere; rows are known by their ids, however short.
_SHORTEST_TEXT = 4
_WINDOW_BYTES = 8
_VECTORS_PER_BLOCK = 1 << 10
_COORDINATES_COMPARED = 32  # of two vectors, before their cosine is computed

# Texts in binary files: runs of printable bytes, and what is quoted within them.
_RUN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{3,}")
_QUOTED = re.compile(rb"'((?:[^']|'')*)'|\"([^\"]*)\"")
# Bytes of a length or a tag that may look like a part of the text beside them.
_LEADING_BYTES, _TRAILING_BYTES = 4, 3


def hash_value(salt: bytes, value: bytes) -> str:
    """The fingerprint of a value: a keyed hash."""
    return hashlib.blake2b(value, key=salt, digest_size=16).hexdigest()


class ContentMatcher(Protocol):
    """What is looked for. The `match` methods yield the keys of what they found."""

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
    """What a receipt keeps.

    Attributes:
        salt: the key of the hashes; random for each receipt.
        ids: of the pairs' ids.
        values: of their ids, texts and pictures.
        vectors: of the exact float16 bytes of their vectors.
    """

    salt: bytes
    ids: frozenset[str]
    values: frozenset[str]
    vectors: frozenset[str]

    def is_forgotten(self, pair_id: str) -> bool:
        """See `ContentMatcher`."""
        return hash_value(self.salt, pair_id.encode()) in self.ids

    def match_values(self, values: pa.Array) -> Found:
        """See `ContentMatcher`."""
        for row, value in enumerate(_as_binary(values).to_pylist()):
            key = None if value is None else hash_value(self.salt, value)
            if key in self.values:
                yield row, key

    def match_vectors(self, vectors: Float32Array) -> Found:
        """See `ContentMatcher`."""
        for row, vector in enumerate(vectors.astype(np.float16)):
            key = hash_value(self.salt, vector.tobytes())
            if key in self.vectors:
                yield row, key

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """See `ContentMatcher`."""
        for text in find_texts(data):
            key = hash_value(self.salt, text)
            if key in self.values:
                yield key


@dataclass(frozen=True)
class Content:
    """The forgotten content itself.

    Attributes:
        salt: as in the fingerprints, so that keys agree.
        rows: the forgotten rows, columns as in `pairs`; a pair may be in several states of it.
    """

    salt: bytes
    rows: pa.Table

    def is_forgotten(self, pair_id: str) -> bool:
        """See `ContentMatcher`."""
        return pair_id in self._ids

    def match_values(self, values: pa.Array) -> Found:
        """See `ContentMatcher`."""
        binary = _as_binary(values)
        for row in np.flatnonzero(pc.is_in(binary, self._value_set).to_numpy(False)).tolist():
            value = binary[row].as_py()
            if value is not None:
                yield row, hash_value(self.salt, value)

    def match_vectors(self, vectors: Float32Array) -> Found:
        """See `ContentMatcher`."""
        sought = self._vectors.get(vectors.shape[1])
        if sought is None:
            return
        exact, unit = sought
        for start in range(0, len(vectors), _VECTORS_PER_BLOCK):
            for row, which in _find_same_direction(
                _normalise(vectors[start : start + _VECTORS_PER_BLOCK]), unit
            ):
                yield start + row, hash_value(self.salt, exact[which].tobytes())

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """See `ContentMatcher`."""
        texts = {text for text in find_texts(data) if text in self._values}
        yield from {hash_value(self.salt, text) for text in texts}
        yield from {self._long[value] for value in self._anywhere(data)}

    def _anywhere(self, data: bytes) -> Iterator[bytes]:
        """Long values wherever they begin: all places whose next 8 bytes begin one are compared."""
        for place in _find_windows(data, self._windows):
            for value in self._by_window[data[place : place + _WINDOW_BYTES]]:
                if data.startswith(value, place):
                    yield value

    def column(self, name: str) -> frozenset[str]:
        """The distinct texts of one column; what other tables may refer to a pair by."""
        return frozenset(value for value in self.rows[name].to_pylist() if value is not None)

    def fingerprints(self) -> Fingerprints:
        """What a receipt may keep of this."""
        exact = (vector for vectors, _ in self._vectors.values() for vector in vectors)
        return Fingerprints(
            self.salt,
            ids=frozenset(hash_value(self.salt, i.encode()) for i in self._ids),
            values=frozenset(hash_value(self.salt, value) for value in self._values),
            vectors=frozenset(hash_value(self.salt, vector.tobytes()) for vector in exact),
        )

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self.rows["pair_id"].to_pylist())

    @cached_property
    def _values(self) -> frozenset[bytes]:
        names = [f.name for f in self.rows.schema if is_text(f.type) and f.name not in _COMMON]
        columns = [_as_binary(self.rows[name].combine_chunks()).to_pylist() for name in names]
        values = (value for column in columns for value in column if value is not None)
        return frozenset(value for value in values if len(value) >= _SHORTEST_TEXT)

    @cached_property
    def _value_set(self) -> pa.Array:
        return pa.array(sorted(self._values), pa.large_binary())

    @cached_property
    def _vectors(self) -> dict[int, tuple[Float16Array, Float32Array]]:
        """By dimension: the distinct vectors as stored, and as unit vectors."""
        columns = [f.name for f in self.rows.schema if is_vector(f.type)]
        by_width: dict[int, list[Float16Array]] = {}
        for name in columns:
            vectors = as_matrix(self.rows[name].combine_chunks()).astype(np.float16)
            by_width.setdefault(vectors.shape[1], []).append(vectors)
        distinct = {width: np.unique(np.concatenate(v), axis=0) for width, v in by_width.items()}
        return {width: (v, _normalise(v.astype(np.float32))) for width, v in distinct.items()}

    @cached_property
    def _long(self) -> dict[bytes, str]:
        """Values that are sought anywhere in binary files, with their keys."""
        long = {
            value: hash_value(self.salt, value)
            for value in self._values
            if len(value) >= _WINDOW_BYTES
        }
        for vectors, _ in self._vectors.values():
            for vector in vectors:
                key = hash_value(self.salt, vector.tobytes())
                long[vector.tobytes()] = long[vector.astype(np.float32).tobytes()] = key
        return {value: key for value, key in long.items() if len(value) >= _WINDOW_BYTES}

    @cached_property
    def _by_window(self) -> dict[bytes, list[bytes]]:
        table: dict[bytes, list[bytes]] = {}
        for value in self._long:
            table.setdefault(value[:_WINDOW_BYTES], []).append(value)
        return table

    @cached_property
    def _windows(self) -> NDArray[np.uint64]:
        return np.array([int.from_bytes(w, "little") for w in self._by_window], dtype="<u8")


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column of this type holds vectors."""
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def as_matrix(column: pa.Array) -> NDArray[np.floating]:
    """A column of vectors as (n, d); what an empty place holds is undefined."""
    width = column.type.list_size
    flat = column.values.slice(column.offset * width, len(column) * width)
    matrix: NDArray[np.floating] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return matrix


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts or binaries."""
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def find_texts(data: bytes) -> set[bytes]:
    """Texts that binary data may hold: printable runs, their ends cut, and what they quote."""
    texts: set[bytes] = set()
    for run in _RUN.findall(data):
        texts.update(
            run[a : len(run) - b] for a in range(_LEADING_BYTES) for b in range(_TRAILING_BYTES)
        )
        for single, double in _QUOTED.findall(run):
            texts.update((single.replace(b"''", b"'"), double))
    return {text for text in texts if len(text) >= _SHORTEST_TEXT}


def _as_binary(values: pa.Array) -> pa.Array:
    return values.cast(pa.large_binary())


def _normalise(vectors: Float32Array) -> Float32Array:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32Array = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


def _find_same_direction(block: Float32Array, sought: Float32Array) -> Iterator[tuple[int, int]]:
    """Pairs of rows of two matrices of unit vectors whose cosine is near 1.

    Such vectors are near in their first coordinates, too: a short product finds the candidates,
    and only their cosines are computed. The products are of `(a, |a|^2, 1)` and
    `(2 b, -1, -|b|^2)`, which is minus the squared distance.
    """
    count = min(_COORDINATES_COMPARED, block.shape[1])
    a, b = block[:, :count], sought[:, :count]
    ones = np.ones((len(a), 1), np.float32)
    left = np.hstack([a, (a * a).sum(1, keepdims=True), ones])
    right = np.hstack([2 * b, -np.ones((len(b), 1), np.float32), -(b * b).sum(1, keepdims=True)])
    # |a - b|^2 = 2 (1 - cosine) for whole unit vectors; doubled, so that rounding loses none.
    rows, which = np.nonzero(left @ right.T >= -4 * (1 - SAME_COSINE))
    cosines = np.einsum("ij,ij->i", block[rows], sought[which])
    same = cosines >= SAME_COSINE
    yield from zip(rows[same].tolist(), which[same].tolist(), strict=True)


def _find_windows(data: bytes, windows: NDArray[np.uint64]) -> Iterator[int]:
    """Where 8 bytes of the data are one of the windows."""
    for shift in range(min(_WINDOW_BYTES, max(len(data) - _WINDOW_BYTES + 1, 0))):
        words = np.frombuffer(data, "<u8", count=(len(data) - shift) // _WINDOW_BYTES, offset=shift)
        yield from (np.flatnonzero(np.isin(words, windows)) * _WINDOW_BYTES + shift).tolist()
