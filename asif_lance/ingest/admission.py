"""What a pair must have to come in, and marks by which its rights are reserved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from asif_lance.ingest.columns import spelling

#: What `require` may name.
REQUIRABLE = ("license", "source")

# What servers and pages say in X-Robots-Tag and <meta name="robots">, as img2dataset heeds it, and
# the flag of the TDM Reservation Protocol. Columns may be called so, or hold such directives.
_DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
_FLAGS = _DIRECTIVES | {"tdm_reservation"}
_HEADERS = frozenset({"x_robots_tag", "robots", "meta_robots"})
_ERRORS = frozenset({"error_message"})  # of img2dataset, which keeps no picture then
_NOT_SET = frozenset({"", "0", "0.0", "false", "f", "no", "n", "none", "null", "nan"})
_MAY_HAVE = "(?i)no(image)?(ai|index)|tdm|robots"


def missing_values(rows: pl.DataFrame, required: Sequence[str]) -> pl.Series:
    """The reason against each of n rows that lacks a value of its own, null against the others.

    A source counts if the item or the user named it: that of its file or folder does not.
    """
    faults = pl.lit(None, pl.String)
    for name in required:
        stated = pl.col(name).str.strip_chars().fill_null("") != ""
        if name == "source":
            stated &= pl.col("own_source")
        faults = pl.coalesce(faults, pl.when(~stated).then(pl.lit(f"no {name}")))
    return rows.select(pl.repeat(None, pl.len(), dtype=pl.String).alias("_"), why=faults)["why"]


def find_reserved(attributes: pl.Series) -> pl.Series:
    """The marks in each of n JSON objects, such as `noai, tdm_reservation`; null where none is."""
    suspected = attributes.str.contains(_MAY_HAVE).fill_null(value=False)
    marks = [
        ", ".join(sorted(set(_marks(text)))) or None if may else None
        for text, may in zip(attributes, suspected, strict=True)
    ]
    return pl.Series("marks", marks, pl.String)


def _marks(text: str) -> Iterator[str]:
    for name, value in json.loads(text).items():
        key = spelling(name)
        if key in _FLAGS and _is_set(value):
            yield key
        if key in _HEADERS and isinstance(value, str | list):
            yield from _DIRECTIVES & set(re.findall(r"\w+", str(value).lower()))
        if key in _ERRORS and "x-robots-tag" in str(value).lower():
            yield "x_robots_tag"


def _is_set(value: Any) -> bool:
    return value is not None and str(value).strip().lower() not in _NOT_SET
