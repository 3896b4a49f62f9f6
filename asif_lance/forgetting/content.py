"""The forgotten content itself, as it is sought right after a purge: vectors by cosine.

A receipt keeps fingerprints of it only, see `verifier.fingerprints`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.database import CAPTIONS
from asif_lance.records import BoolArray, Float16Array, Float32Array, Int64Array
from asif_lance.verifier import (
    LOSSLESS,
    PRINTABLE_RUN,
    REDACTED,
    SHORTEST_IN_BINARY,
    SHORTEST_TEXT,
    Fingerprints,
    Found,
    as_binary,
    as_matrix,
    cut_ends,
    find_quoted,
    hash_value,
    is_plain,
    is_text,
    is_vector,
    list_leaves,
    list_quotable,
    split_words,
)

# Two float16 roundings of one vector differ far less, two pictures far more.
SAME_COSINE = 0.9995
# Columns whose texts many pairs may share: they are sought if no pair that stays has them.
_COMMON = ("source", "license")
# Columns that are about one pair, or one picture.
_OWN = ("pair_id", "caption", "image_uri", "image_sha256", "captions")
_WINDOW_BYTES = 8
_FEW_VALUES = 64
# Of vectors and those that are sought: as many products are made at once.
_PRODUCTS_PER_BLOCK = 1 << 22
# Coordinates of two vectors that are compared before their cosine is computed, at least and most.
_COORDINATES_COMPARED = 16, 32


def find_quote(rows: pa.Table, shared: AbstractSet[str], text: str) -> str | None:
    """What a text quotes of pairs: an id, a caption, a file's name or path, a value; or None.

    Args:
        rows: of the pairs, with the columns of `pairs`.
        shared: values that other pairs have, too.
        text: what a person wrote. Case does not count, and a quotation is a whole word or more.
    """
    phrases = {phrase.casefold() for phrase in list_quotable(text)}
    names = {uri.rpartition("/")[2] for uri in list_texts(rows, "image_uri")}
    quotable = (*list_texts(rows, *_OWN), *names, *(list_values(rows) - shared))
    return next((v for v in quotable if _is_sought(v) and v.casefold().strip() in phrases), None)


def list_texts(rows: pa.Table | pa.RecordBatch, *columns: str) -> list[str]:
    """The distinct texts of some columns, lists' too, as far as they are there."""
    there = (unlist(rows[name]) for name in columns if name in rows.schema.names)
    return [text for texts in there for text in texts.unique().to_pylist() if text]


def list_values(rows: pa.Table) -> set[str]:
    """Sources, licenses and the texts in attributes."""
    attributes = list_texts(rows, "attributes")
    leaves = (leaf for text in attributes for leaf in list_leaves(text))
    return {*list_texts(rows, *_COMMON), *leaves}


def list_captions(rows: pa.Table | pa.RecordBatch) -> list[str]:
    """The distinct captions of pairs, all of those that have several."""
    return list(dict.fromkeys(list_texts(rows, "caption", "captions")))


def have_one_of(rows: pa.Table | pa.RecordBatch, captions: AbstractSet[str]) -> BoolArray:
    """(n,) which of n pairs have one of some captions, among several or alone."""
    wanted = pa.array(sorted(captions), pa.string())
    found: BoolArray = np.asarray(pc.is_in(rows["caption"], wanted), np.bool_).copy()
    if "captions" in rows.schema.names and rows["captions"].null_count < len(rows):
        lists = rows["captions"]
        found[
            np.asarray(pc.list_parent_indices(lists))[
                np.asarray(pc.is_in(unlist(lists), wanted), np.bool_)
            ]
        ] = True
    return found


def unlist(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """A column of texts; of lists, all that is in them."""
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return pc.list_flatten(column) if is_list else column


def _is_sought(text: str) -> bool:
    return len(text.strip()) >= SHORTEST_TEXT


@dataclass(frozen=True)
class Content:
    """The forgotten content itself.

    Attributes:
        key: of the fingerprints that are told of it.
        rows: the forgotten rows, columns as in `pairs`; a pair may be in several states of it.
        shared: those of their texts that pairs which stay have, too, see `find_shared`.
    """

    key: bytes
    rows: pa.Table
    shared: frozenset[str] = frozenset()

    def is_forgotten(self, pair_id: str) -> bool:
        """See `ContentMatcher`."""
        return pair_id in self.ids

    def find_forgotten(self, ids: pa.Array) -> BoolArray:
        """See `ContentMatcher`."""
        wanted = pa.array(sorted(self.ids), pa.string()).cast(ids.type)
        found: BoolArray = np.asarray(pc.is_in(ids, wanted), np.bool_)
        return found

    def match_values(self, values: pa.Array) -> Found:
        """See `ContentMatcher`."""
        binary = as_binary(values)
        for row in np.flatnonzero(pc.is_in(binary, self._value_set).to_numpy(False)).tolist():
            value = binary[row].as_py()
            if value is not None:
                yield row, hash_value(self.key, value)

    def match_texts(self, texts: Iterable[str]) -> Iterator[str]:
        """See `ContentMatcher`."""
        values = (text.encode(*LOSSLESS) for text in texts)
        return (hash_value(self.key, value) for value in values if value in self._values)

    def list_quoted(self, text: str) -> Iterator[str]:
        """See `ContentMatcher`."""
        if text.encode(*LOSSLESS) in self._values:
            yield text
        yield from (text[start:end] for start, end in self._find_phrases(text))

    def _find_phrases(self, text: str) -> Iterator[tuple[int, int]]:
        """Where the text has what is sought as whole words and marks."""
        words = split_words(text)
        ends = {end for _, end in words}
        for start, end in words:
            for phrase in self._phrases.get(text[start:end], ()):
                if text.startswith(phrase, start) and start + len(phrase) in ends:
                    yield start, start + len(phrase)

    def match_vectors(self, vectors: NDArray[np.floating]) -> Found:
        """See `ContentMatcher`."""
        sought = self._vectors.get(vectors.shape[1])
        if sought is None:
            return
        exact, search = sought
        size = max(_PRODUCTS_PER_BLOCK // max(len(exact), 1), 1)
        for start in range(0, len(vectors), size):
            for row, which in search.find(vectors[start : start + size]):
                yield start + row, hash_value(self.key, exact[which].tobytes())

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """See `ContentMatcher`."""
        found = {text for text in find_quoted(data) if text in self._values}
        found |= set(self._find_short(data))
        yield from {hash_value(self.key, text) for text in found}
        yield from {self._long[value] for value in self._anywhere(data)}

    def _find_short(self, data: bytes) -> Iterator[bytes]:
        """Short values: whole words of a text; in other data, all of a printable run."""
        sought = {value for value in self._short if value in data}
        if sought and is_plain(data):
            yield from (text.encode() for text in self.list_quoted(data.decode()))
        elif sought:
            for run in PRINTABLE_RUN.findall(data):
                words = (text.encode(*LOSSLESS) for text in self.list_quoted(run.decode(*LOSSLESS)))
                found = (v for vs in (words, cut_ends(run)) for v in vs if v in self._values)
                yield from (v for v in found if len(v) >= SHORTEST_IN_BINARY)

    def _anywhere(self, data: bytes) -> Iterator[bytes]:
        """Long values wherever they begin; in a text they do not begin or end within a word."""
        found = list(self._find_long(data))
        plain = bool(found) and is_plain(data)
        for place, value in found:
            around = data[max(place - 1, 0) : place], data[place + len(value) :][:1]
            # Lance names its files by long rows of zeros and ones: numbers are whole anywhere.
            whole = plain or value.isdigit()
            if not (whole and any(byte.isalnum() for byte in around)):
                yield value

    def _find_long(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Few are sought one by one; of many, those that begin with 8 bytes found in the data."""
        if len(self._long) <= _FEW_VALUES:
            for value in self._long:
                place = data.find(value)
                while place >= 0:
                    yield place, value
                    place = data.find(value, place + 1)
            return
        for place in _find_windows(data, self._windows):
            for value in self._by_window[data[place : place + _WINDOW_BYTES]]:
                if data.startswith(value, place):
                    yield place, value

    def own(self) -> Content:
        """What only the forgotten pairs have: a picture with another pair's address is not."""
        rows, shared = self.rows, pa.array(sorted(self.shared), pa.string())
        hidden = {
            name: pc.is_in(rows[name], shared).to_numpy()
            for name in ("caption", "image_uri", "image_sha256", "attributes")
            if name in rows.column_names
        }
        picture = np.any([hidden[n] for n in ("image_uri", "image_sha256") if n in hidden], axis=0)
        text = hidden["caption"]
        if "captions" in rows.column_names:
            lists = rows["captions"].to_pylist()
            left = [[c for c in each or () if c not in self.shared] for each in lists]
            place = rows.column_names.index("captions")
            rows = rows.set_column(place, CAPTIONS, pa.array(left, CAPTIONS.type))
            text = text & ~np.array(list(map(bool, left)), np.bool_)
        hidden |= {"image_vector": picture, "thumbnail": picture, "text_vector": text}
        for name in hidden.keys() & set(rows.column_names):
            kept = rows[name].take(pa.array(np.arange(len(rows)), mask=hidden[name]))
            rows = rows.set_column(rows.column_names.index(name), name, kept)
        return replace(self, rows=rows)

    def redact(self, text: str) -> str:
        """The text with `REDACTED` for all that it quotes."""
        merged: list[list[int]] = []
        for start, end in sorted(self._find_phrases(text)):
            if merged and start < merged[-1][1]:
                merged[-1][1] = max(end, merged[-1][1])
            else:
                merged.append([start, end])
        for start, end in reversed(merged):
            text = text[:start] + REDACTED + text[end:]
        return text

    def fingerprints(self) -> Fingerprints:
        """What a receipt may keep of this."""
        exact = (vector for vectors, _ in self._vectors.values() for vector in vectors)
        return Fingerprints(
            self.key,
            ids=frozenset(hash_value(self.key, i.encode()) for i in self.ids),
            values=frozenset(hash_value(self.key, value) for value in self._values),
            vectors=frozenset(hash_value(self.key, vector.tobytes()) for vector in exact),
        )

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of the pairs."""
        return frozenset(self.rows["pair_id"].to_pylist())

    @cached_property
    def _values(self) -> frozenset[bytes]:
        columns = [
            as_binary(column.combine_chunks()).to_pylist()
            for name, column in zip(
                self.rows.column_names, map(unlist, self.rows.columns), strict=True
            )
            if is_text(column.type) and name not in _COMMON
        ]
        values = {value for column in columns for value in column if value is not None}
        values |= {value.encode(*LOSSLESS) for value in list_values(self.rows) - self.shared}
        return frozenset(v for v in values if _is_sought(v.decode(errors="replace")))

    @cached_property
    def _short(self) -> tuple[bytes, ...]:
        return tuple(value for value in self._values if len(value) < _WINDOW_BYTES)

    @cached_property
    def _phrases(self) -> dict[str, list[str]]:
        """The texts that are sought, by their first word."""
        table: dict[str, list[str]] = {}
        for value in self._values:
            text = value.decode(*LOSSLESS).strip()
            for start, end in split_words(text)[:1]:
                table.setdefault(text[start:end], []).append(text)
        return table

    @cached_property
    def _value_set(self) -> pa.Array:
        return pa.array(sorted(self._values), pa.large_binary())

    @cached_property
    def _vectors(self) -> dict[int, tuple[Float16Array, _DirectionSearch]]:
        """By dimension: the distinct vectors as stored, and what finds their directions."""
        columns = [f.name for f in self.rows.schema if is_vector(f.type)]
        by_width: dict[int, list[Float16Array]] = {}
        for name in columns:
            vectors = as_matrix(self.rows[name].drop_null().combine_chunks()).astype(np.float16)
            by_width.setdefault(vectors.shape[1], []).append(vectors)
        distinct = {width: np.unique(np.concatenate(v), axis=0) for width, v in by_width.items()}
        return {width: (v, _DirectionSearch(v)) for width, v in distinct.items()}

    @cached_property
    def _long(self) -> dict[bytes, str]:
        """Values that are sought anywhere in binary files, with their keys."""
        long = {
            value: hash_value(self.key, value)
            for value in self._values
            if len(value) >= _WINDOW_BYTES
        }
        for vectors, _ in self._vectors.values():
            for vector in vectors:
                key = hash_value(self.key, vector.tobytes())
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
        return np.sort(np.array([int.from_bytes(w, "little") for w in self._by_window], "<u8"))


def _normalise(vectors: Float32Array) -> Float32Array:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32Array = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


class _DirectionSearch:
    """Finds vectors whose cosine with one of those that are sought is near 1.

    Such vectors are near each other in their first coordinates, too, and those tell nearly all
    others apart. With v = |v| (cos t u + sin t w), where u and w are unit vectors at a right angle,
    b the first coordinates of u and a those of v: a's part at a right angle to b is |v| sin t at
    most, its part along b at least |v| (|b| cos t - sin t). So a's length is at most that part's
    times `slack`, and no norm of a whole vector is needed.
    """

    def __init__(self, sought: Float16Array) -> None:
        self._unit = _normalise(sought.astype(np.float32))
        few = np.clip(self._unit.shape[1] // 24, *_COORDINATES_COMPARED)  # a fifth of the length
        first = self._unit[:, :few]
        cosine = 1 - 2 * (1 - SAME_COSINE)  # doubled, so that rounding loses none
        sine = (1 - cosine**2) ** 0.5
        length = np.linalg.norm(first, axis=1, keepdims=True)
        least = length * cosine - sine
        telling = least[:, 0] > sine
        slack = np.sqrt(1 + (sine / least[telling]) ** 2)
        self._telling, self._others = np.flatnonzero(telling), np.flatnonzero(~telling)
        self._first = (first[telling] / length[telling] * slack).T

    def find(self, vectors: NDArray[np.floating]) -> Iterator[tuple[int, int]]:
        """Rows of the vectors, each with the row of one that is sought."""
        first = vectors[:, : len(self._first)].astype(np.float32)
        along = np.maximum(first @ self._first, 0)
        squares = np.einsum("ij,ij->i", first, first)[:, np.newaxis]
        squares[squares == 0] = np.inf  # nothing is along them
        rows, which = np.divmod(np.flatnonzero(along**2 >= squares), max(along.shape[1], 1))
        yield from self._compare(vectors, rows, self._telling[which])
        for one in self._others.tolist():
            everyone = np.arange(len(vectors))
            yield from self._compare(vectors, everyone, np.full(len(vectors), one))

    def _compare(
        self, vectors: NDArray[np.floating], rows: Int64Array, which: Int64Array
    ) -> Iterator[tuple[int, int]]:
        """Those pairs of a vector and one that is sought whose cosine is near 1."""
        near = _normalise(vectors[rows].astype(np.float32))
        same = np.einsum("ij,ij->i", near, self._unit[which]) >= SAME_COSINE
        yield from zip(rows[same].tolist(), which[same].tolist(), strict=True)


def _find_windows(data: bytes, windows: NDArray[np.uint64]) -> Iterator[int]:
    """Where 8 bytes of the data are one of the windows, which are sorted: files are many."""
    if not len(windows):
        return
    for shift in range(min(_WINDOW_BYTES, max(len(data) - _WINDOW_BYTES + 1, 0))):
        words = np.frombuffer(data, "<u8", count=(len(data) - shift) // _WINDOW_BYTES, offset=shift)
        near = np.minimum(np.searchsorted(windows, words), len(windows) - 1)
        yield from (np.flatnonzero(windows[near] == words) * _WINDOW_BYTES + shift).tolist()
