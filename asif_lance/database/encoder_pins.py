"""Which encoders made the vectors of a table; kept in the metadata of `pairs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

import lance

from asif_lance.database.commits import committing
from asif_lance.errors import DimensionError, EncoderMismatchError
from asif_lance.records import EncoderPin

SIDES = ("image", "text")


def read_pins(pairs: lance.LanceDataset) -> dict[str, EncoderPin]:
    """The encoders that a pairs table's metadata names, by side; empty if it is not ours."""
    metadata = pairs.schema.metadata or {}
    keys = {side: f"asif.{side}_encoder".encode() for side in SIDES}
    return {
        side: EncoderPin(**json.loads(metadata[k])) for side, k in keys.items() if k in metadata
    }


def write_pins(pairs: lance.LanceDataset, pins: Mapping[str, EncoderPin]) -> None:
    """Have the metadata of a table's head name these encoders; the caller holds the write lock."""
    known = read_pins(pairs)
    new = {side: pin for side, pin in pins.items() if known.get(side) != pin}
    if new:
        told = {f"asif.{side}_encoder": json.dumps(asdict(pin)) for side, pin in new.items()}
        with committing(pairs.uri):
            pairs.update_schema_metadata(told)


def check_pin(side: str, pinned: EncoderPin, given: EncoderPin) -> None:
    """Passes when the given encoder made the vectors that are there.

    An empty revision, on either side, is unknown and fits any.

    Raises:
        EncoderMismatchError: another encoder or another revision of it.
        DimensionError: the same encoder with vectors of another size.
    """
    revisions = {pinned.revision, given.revision} - {""}
    if pinned.name != given.name or len(revisions) > 1:
        raise EncoderMismatchError(side, _spell(pinned), _spell(given))
    if pinned.dimension != given.dimension:
        raise DimensionError(f"{side} vectors", pinned.dimension, given.dimension)


def _spell(pin: EncoderPin) -> str:
    return f"{pin.name}@{pin.revision}" if pin.revision else pin.name
