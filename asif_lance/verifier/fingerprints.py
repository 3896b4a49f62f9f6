"""Keyed fingerprints: they find what is exactly equal, and say nothing without their key.

A fingerprint is a keyed hash (blake2b) of an id, text, picture or vector. All receipts made with
one key use the same function, so a new value is hashed once and looked up in all of them. The key
never lies in the database: whoever has only that and a receipt cannot test a guess.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asif_lance.records import BoolArray

Found = Iterator[tuple[int, str]]
"""Pairs of a row and the fingerprint of what was found there."""

KEY_BYTES = 32
# What a key is told from another by is the fingerprint of this.
_KEY_MARK = b"asif-lance fingerprint key"

#: In characters. A single one is in any text; rows are known by their ids, however short.
SHORTEST_TEXT = 2
SHORTEST_IN_BINARY = 4
# What a text is made of: words, with what joins their parts (`p-1.jpg`, `ann@home.example`), and
# marks. Scripts that set no blanks between words are read by the character.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[-.@+]+[^\W{_UNSPACED}]+)*|[^\w\s]")
# A longer phrase is sought where it is all of a text, or stands between quotation marks.
_PHRASE_TOKENS, _PHRASE_LENGTH = 32, 500
# An item of a source that gives no names; its number is no id.
_ROW_NUMBER = re.compile(r"row \d+")
# Texts in binary files: runs of printable bytes, and what is quoted within them.
PRINTABLE_RUN = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]{2,}")
_QUOTED = re.compile(rb"'((?:[^']|'')*)'|\"((?:[^\"\\]|\\.)*)\"")
# Bytes of a length or a tag that may look like a part of the text beside them.
_LEADING_BYTES, _TRAILING_BYTES = 4, 3
#: How bytes that are no UTF-8 are read as a text, and written again.
LOSSLESS = ("utf-8", "surrogateescape")


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

    def find_forgotten(self, ids: pa.Array) -> BoolArray:
        """(n,) which of n texts are ids of forgotten pairs."""

    def match_values(self, values: pa.Array) -> Found:
        """Looks through strings or binaries for equal ones."""

    def match_texts(self, texts: Iterable[str]) -> Iterator[str]:
        """Looks through texts for equal ones."""

    def list_quoted(self, text: str) -> Iterator[str]:
        """What a text quotes: whole words and marks that are sought."""

    def match_vectors(self, vectors: NDArray[np.floating]) -> Found:
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

    def find_forgotten(self, ids: pa.Array) -> BoolArray:
        """See `ContentMatcher`."""
        return np.array([self.is_forgotten(i or "") for i in ids.to_pylist()], np.bool_)

    def match_values(self, values: pa.Array) -> Found:
        """See `ContentMatcher`."""
        for row, value in enumerate(as_binary(values).to_pylist()):
            digest = None if value is None else hash_value(self.key, value)
            if digest in self.values:
                yield row, digest

    def match_texts(self, texts: Iterable[str]) -> Iterator[str]:
        """See `ContentMatcher`."""
        digests = (hash_value(self.key, text.encode(*LOSSLESS)) for text in texts)
        return (digest for digest in digests if digest in self.values)

    def list_quoted(self, text: str) -> Iterator[str]:
        """See `ContentMatcher`."""
        return (quoted for quoted in list_quotable(text) if any(self.match_texts([quoted])))

    def match_vectors(self, vectors: NDArray[np.floating]) -> Found:
        """See `ContentMatcher`."""
        for row, vector in enumerate(vectors.astype(np.float16, copy=False)):
            digest = hash_value(self.key, vector.tobytes())
            if digest in self.vectors:
                yield row, digest

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """See `ContentMatcher`."""
        digests = (hash_value(self.key, text) for text in find_texts(data))
        return (digest for digest in digests if digest in self.values)


def split_words(text: str) -> list[tuple[int, int]]:
    """Where the words and marks of a text begin and end."""
    return [(match.start(), match.end()) for match in _TOKEN.finditer(text)]


def find_phrases(text: str) -> Iterator[tuple[int, int]]:
    """What a text may quote: where each sequence of its whole words and marks begins and ends.

    What is sought is found as one of these and never within a word: `1.jpg` not in `11.jpg`.
    """
    tokens = split_words(text)
    for number, (start, _) in enumerate(tokens):
        for _, end in tokens[number : number + _PHRASE_TOKENS]:
            if end - start > _PHRASE_LENGTH:
                break
            if end - start >= SHORTEST_TEXT:
                yield start, end


def list_quotable(text: str) -> Iterator[str]:
    """The text itself, and all that it may quote, see `find_phrases`."""
    yield text
    yield from (text[start:end] for start, end in find_phrases(text))


def list_path_ends(path: str) -> Iterator[str]:
    """A path, and what is left of it when folders are taken away in front: whole names of files."""
    parts = path.replace("\\", "/").split("/")
    yield path
    yield from ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
    if Path(parts[-1]).suffix:
        yield parts[-1]


def find_quotes(matcher: ContentMatcher, text: str) -> Iterator[str]:
    """Fingerprints of what a text quotes."""
    return matcher.match_texts(matcher.list_quoted(text))


def find_in_path(matcher: ContentMatcher, path: str) -> Iterator[str]:
    """Fingerprints of what a path names: all of its end, or an id that is one of its names."""
    names = path.replace("\\", "/").split("/")
    ids = (name for name in names if matcher.is_forgotten(name))
    return matcher.match_texts(dict.fromkeys((*list_path_ends(path), *ids)))


def find_in_item(matcher: ContentMatcher, item: str) -> Iterator[str]:
    """Fingerprints of what a rejected item names: a path that may quote ids, or a row's number."""
    if not _ROW_NUMBER.fullmatch(item):
        yield from find_in_path(matcher, item)
        yield from matcher.match_texts(filter(matcher.is_forgotten, matcher.list_quoted(item)))


def find_texts(data: bytes) -> Iterator[bytes]:
    """Texts that a file may hold: printable runs, their ends cut, and what they quote.

    Of a text, in UTF-8, all its phrases too. In what is none any two or three letters turn up by
    chance: there they are quoted, or none.
    """
    yield from find_quoted(data)
    if is_plain(data):
        for line in data.decode().splitlines():
            yield from (phrase.encode() for phrase in list_quotable(line))
        return
    for run in PRINTABLE_RUN.findall(data):
        yield from (text for text in cut_ends(run) if len(text) >= SHORTEST_IN_BINARY)


def cut_ends(run: bytes) -> Iterator[bytes]:
    """A printable run, and what is left of it without bytes of a length or a tag beside it."""
    return (run[a : len(run) - b] for a in range(_LEADING_BYTES) for b in range(_TRAILING_BYTES))


def find_quoted(data: bytes) -> Iterator[bytes]:
    """What stands between quotation marks, as it was before it was put there."""
    runs = (run for run in PRINTABLE_RUN.findall(data) if b"'" in run or b'"' in run)
    for single, double in (found for run in runs for found in _QUOTED.findall(run)):
        yield single.replace(b"''", b"'")
        yield double
        if b"\\" in double:
            with contextlib.suppress(ValueError):  # JSON that spells letters by their numbers
                yield json.loads(b'"%b"' % double, strict=False).encode(*LOSSLESS)


def is_plain(data: bytes) -> bool:
    """Whether a file is a text, in UTF-8."""
    with contextlib.suppress(UnicodeDecodeError):
        return b"\0" not in data and bool(data.decode())
    return False


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
