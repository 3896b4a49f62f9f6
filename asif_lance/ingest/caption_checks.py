"""Captions that say little: file names, the same text again and again, another language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from asif_lance.database import hash_ids
from asif_lance.errors import InputError

_WORD = re.compile(r"[^\W\d_]{3,}")
_FILE = re.compile(r"\.(jpe?g|png|gif|webp|tiff?|bmp|heic|raw|cr2|nef)$", re.IGNORECASE)
# What cameras and programs call pictures, and how they describe lenses and exposures.
_CAMERA = re.compile(
    r"\b(img|dscn?|dscf|pict?|scan|screenshot|untitled|f/?\d[\d.]*|iso ?\d+|[\d.-]+ ?mm)\b",
    re.IGNORECASE,
)

#: Items with one caption from which on it counts as repeated.
REPEATED = 20

# The usual language is that of most of the first captions. Another one's probability has to leave
# almost none to it: of 5,000 English captions of Flickr8k none falls below, of short German,
# French, Spanish, Dutch, Chinese and Russian ones all do.
_LANGUAGE_SAMPLE, _LEAST_PROBABILITY = 2000, 0.005


def is_uninformative(caption: str) -> bool:
    """Whether a caption is a file name, a camera setting, or holds no word of three letters."""
    rest = _CAMERA.sub(" ", _FILE.sub("", caption.strip()).replace("_", " "))
    return not _WORD.search(rest)


def find_uninformative(captions: pl.Series) -> pl.Series:
    """The reason against each of n captions that says nothing, null against the others."""
    found = [c if c is not None and is_uninformative(c) else None for c in captions]
    return pl.Series(["says nothing" if c is not None else None for c in found], dtype=pl.String)


class RepeatedCaptions:
    """Knows which captions many items have, whatever their case and blanks."""

    def __init__(self, captions: Iterable[pl.Series]) -> None:
        """Count the captions of all items: 8 bytes each while it is done."""
        hashes = [np.empty(0, np.uint64), *map(_hash, captions)]
        distinct, counts = np.unique(np.concatenate(hashes), return_counts=True)
        self._many, self._counts = distinct[counts >= REPEATED], counts[counts >= REPEATED]

    def find(self, captions: pl.Series) -> pl.Series:
        """The reason against each of n captions that many items have."""
        places = np.searchsorted(self._many, hashes := _hash(captions))
        places = np.minimum(places, max(len(self._many) - 1, 0))
        found = self._many[places] == hashes if len(self._many) else np.zeros(len(hashes), bool)
        told = [
            f"caption of {self._counts[place]:,} items" if repeated else None
            for place, repeated in zip(places, found, strict=True)
        ]
        return pl.Series(told, dtype=pl.String)


def _hash(captions: pl.Series) -> Any:
    plain = captions.fill_null("").str.to_lowercase().str.replace_all(r"\s+", " ")
    return hash_ids(plain.str.strip_chars())


class OtherLanguages:
    """Knows which language most captions are in, and which ones are surely in another."""

    def __init__(self, captions: Iterable[pl.Series]) -> None:
        """Look at the first captions.

        Raises:
            InputError: what tells languages is not installed.
        """
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise InputError(
                "telling languages takes py3langid: pip install 'asif-lance[hygiene]'"
            ) from error
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        sample = list(islice(_informative(captions), _LANGUAGE_SAMPLE))
        first = pl.Series(
            [self._identifier.classify(caption)[0] for caption in sample], dtype=pl.String
        )
        self.usual: str | None = first.mode().sort()[0] if len(first) else None

    def find(self, captions: pl.Series) -> pl.Series:
        """The reason against each of n captions that is in another language than most."""
        return pl.Series([self._judge(caption or "") for caption in captions], dtype=pl.String)

    def _judge(self, caption: str) -> str | None:
        if self.usual is None or is_uninformative(caption):
            return None
        ranked = self._identifier.rank(caption)
        if dict(ranked)[self.usual] >= _LEAST_PROBABILITY:
            return None
        return f"language {ranked[0][0]}, most are {self.usual}"


def _informative(captions: Iterable[pl.Series]) -> Iterator[str]:
    return (c for part in captions for c in part.drop_nulls() if not is_uninformative(c))
