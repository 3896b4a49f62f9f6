"""What checks flag in items: attributes that name what was found, or the check that found it."""

from __future__ import annotations

import json

import numpy as np
import polars as pl

from asif_lance.records import Int64Array

#: The attribute that names the marks by which rights are reserved.
RESERVED = "rights_reserved"

#: The attribute that names the checks that found the item doubtful.
DOUBTS = "doubts"

_FLAGS = (RESERVED, DOUBTS)


def add_flags(attributes: pl.Series, flag: str, found: pl.Series) -> pl.Series:
    """The n JSON objects, where something was found with its names, `a, b`, under the flag."""
    flagged = [
        _add(text, flag, names) if names else text
        for text, names in zip(attributes, found, strict=True)
    ]
    return pl.Series("attributes", flagged, pl.String)


def join_flags(attributes: pl.Series, sizes: Int64Array) -> pl.Series:
    """The first of each group of neighbours, with what is flagged in any of them.

    Args:
        attributes: n JSON objects or nulls.
        sizes: (g,) how many belong together, at least one each.
    """
    starts = np.cumsum(sizes) - sizes
    joined = attributes.gather(starts).to_list()
    flagged = attributes.str.contains("|".join(_FLAGS)).fill_null(value=False)
    for place in flagged.arg_true():
        group = int(np.searchsorted(starts, place, side="right")) - 1
        stated = json.loads(attributes[place])
        for flag in _FLAGS:
            if isinstance(names := stated.get(flag), str) and place != starts[group]:
                joined[group] = _add(joined[group], flag, names)
    return pl.Series("attributes", joined, pl.String)


def _add(text: str | None, flag: str, names: str) -> str:
    """A JSON object with more names under a flag, each once; as it is if it has them all."""
    stated = json.loads(text or "{}")
    before = stated.get(flag)
    known = before.split(", ") if isinstance(before, str) and before else []
    both = ", ".join(dict.fromkeys([*known, *names.split(", ")]))
    if text and both == before:
        return text
    return json.dumps({**stated, flag: both}, ensure_ascii=False)
