"""What the pairs tell LanceDB of their encoders, so that it embeds texts and pictures by itself.

LanceDB reads it from the table's metadata and finds the functions once `asif_lance.encoders` is
imported. Nothing here does.
"""

from __future__ import annotations

import json

import lance

from asif_lance.database.commits import committing
from asif_lance.database.encoder_pins import read_pins

_KEY = "embedding_functions"
#: Per side: the function's name, the prefixes of encoders that it loads, and the column it embeds.
_FUNCTIONS = {
    "image": ("asif-timm", ("timm/", "transformers/", "open_clip/"), "image_uri"),
    "text": ("asif-sentence-transformers", ("sentence-transformers/", "open_clip/"), "caption"),
}


def write_functions(pairs: lance.LanceDataset) -> bool:
    """Have the metadata of the pairs' head name functions for sides that have none; says if it did.

    Functions of somebody else's stay, and vectors of encoders without a name get none.
    """
    told = (pairs.schema.metadata or {}).get(_KEY.encode())
    known = _parse(told)
    if known is None:
        return False
    served = {one.get("vector_column") for one in known}
    new = [
        {
            "name": name,
            "model": {"name": pin.name},
            "source_column": source,
            "vector_column": f"{side}_vector",
        }
        for side, pin in read_pins(pairs).items()
        for name, prefixes, source in [_FUNCTIONS[side]]
        if pin.name.startswith(prefixes) and f"{side}_vector" not in served
    ]
    if new:
        with committing(pairs.uri):
            pairs.update_schema_metadata({_KEY: json.dumps([*known, *new])})
    return bool(new)


def _parse(told: bytes | None) -> list[dict[str, object]] | None:
    """The functions that are named; None for what is not understood, which stays."""
    if told is None:
        return []
    try:
        found = json.loads(told)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(f, dict) for f in found) else None
