"""Quick hashes of ids, pictures and vectors: whole columns at once, and few values have the same.

They are kept in databases (see `sealed_hashes`): a value's hash is the same in every release and
on every machine, and must stay so. Nothing is secret about them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.records import Int64Array
from asif_lance.verifier import as_binary, as_matrix, is_vector

UInt64Array = NDArray[np.uint64]

_WORD_BYTES = 8
_LONGEST = 256  # bytes of a text that is hashed by its words; thumbnails are longer
_SAMPLED_WORDS = 8  # of a vector, spread over it: 32 of its float16 coordinates
_ROWS_AT_ONCE = 1 << 13  # what is computed in between stays in the processor's cache
_MARKS_PER_HASH = 16


def _permute(words: UInt64Array, factor: int, shift: int) -> UInt64Array:
    """Stirs the bits of (n,) words; the factor is odd, so that no two become one."""
    for _ in range(2):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(shift))


def _scramble(words: UInt64Array) -> UInt64Array:
    """Of two permutations the sum is none: nobody computes a short id from its hash."""
    return _permute(words, 0xBF58476D1CE4E5B9, 29) ^ _permute(words, 0xFF51AFD7ED558CCD, 32)


# One for each word, and one more for the length.
_FACTORS = _scramble(np.arange(1, _LONGEST // _WORD_BYTES + 2, dtype=np.uint64)) | np.uint64(1)


def hash_column(column: pa.Array) -> UInt64Array:
    """(n,) hashes of n texts, binaries or vectors (of float16 when stored), none of them null."""
    hash_some = _hash_vectors if is_vector(column.type) else _hash_texts
    starts = range(0, len(column), _ROWS_AT_ONCE)
    parts = [hash_some(column.slice(start, _ROWS_AT_ONCE)) for start in starts]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _hash_texts(column: pa.Array) -> UInt64Array:
    texts = as_binary(column)
    sizes = pc.binary_length(texts).to_numpy().astype(np.uint64)
    is_long = sizes > _LONGEST
    if not is_long.any():
        return _hash_short(texts, sizes)
    hashes = np.empty(len(texts), np.uint64)
    hashes[~is_long] = _hash_short(texts.filter(pa.array(~is_long)), sizes[~is_long])
    hashes[is_long] = [_digest(value) for value in texts.filter(pa.array(is_long)).to_pylist()]
    return hashes


def _hash_short(texts: pa.Array, sizes: UInt64Array) -> UInt64Array:
    """Texts as words of 8 bytes, with zeros behind them, which change nothing."""
    count = -(-int(sizes.max(initial=1)) // _WORD_BYTES)
    # Arrow pads what it takes for a text, byte by byte.
    padded = pc.ascii_rpad(texts.view(pa.large_string()), count * _WORD_BYTES, "\0")
    words = np.frombuffer(padded.buffers()[2] or b"", "<u8", len(texts) * count)
    return _scramble(_add_words(words.reshape(-1, count)) + sizes * _FACTORS[-1])


def _hash_vectors(column: pa.Array) -> UInt64Array:
    """Vectors by some of their words: equal ones have equal hashes, and hardly any others."""
    matrix = as_matrix(column).astype(np.float16, copy=False)
    width = matrix.shape[1] // 4 * 4
    whole = matrix[:, :width] if width else np.pad(matrix, ((0, 0), (0, 4 - matrix.shape[1])))
    words = np.ascontiguousarray(whole).view("<u8")
    step = max(words.shape[1] // _SAMPLED_WORDS, 1)
    return _scramble(_add_words(words[:, ::step][:, :_SAMPLED_WORDS]))


def _add_words(words: UInt64Array) -> UInt64Array:
    """(n,) one word for n rows of words; the last bits of a product hang on those of its factor."""
    spread = words ^ (words >> np.uint64(29))
    total: UInt64Array = spread @ _FACTORS[: words.shape[1]]
    return total


def _digest(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=_WORD_BYTES).digest(), "little")


class HashSet:
    """Some hashes: tells of whole columns which values may be among what was hashed.

    Nearly all that is not there is ruled out by one mark in a table of them.
    """

    def __init__(self, hashes: UInt64Array) -> None:
        self._hashes = np.sort(hashes, kind="stable")  # each receipt's are sorted already
        bits = (_MARKS_PER_HASH * len(hashes) + 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._marks = np.zeros(1 << bits, np.bool_)
        self._marks[self._hashes >> self._shift] = True

    def __len__(self) -> int:
        return len(self._hashes)

    def find(self, column: pa.Array) -> Int64Array:
        """The places of values, in order, that may be among them; a null is none."""
        if not len(self):
            return np.empty(0, np.int64)
        hashes = hash_column(column.drop_null())
        starts = range(0, len(hashes), _ROWS_AT_ONCE)
        parts = [start + self._find(hashes[start : start + _ROWS_AT_ONCE]) for start in starts]
        found: Int64Array = np.concatenate([np.empty(0, np.int64), *parts])
        if column.null_count:
            found = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))[found]
        return found

    def _find(self, hashes: UInt64Array) -> Int64Array:
        marked = np.flatnonzero(self._marks[hashes >> self._shift])
        sought = hashes[marked]
        near = np.searchsorted(self._hashes, sought)
        found: Int64Array = marked[self._hashes[np.minimum(near, len(self) - 1)] == sought]
        return found
