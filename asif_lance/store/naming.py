"""Names for encoders of vectors that came without any, or without a revision."""

from __future__ import annotations

from dataclasses import replace

from asif_lance.database import Ledger, open_own_pairs, open_table, write_functions, write_pins
from asif_lance.errors import EncoderMismatchError
from asif_lance.records import BROUGHT, EncoderPin
from asif_lance.store.pair_store import PairStore


def check_nameable(store: PairStore, side: str, name: str) -> None:
    """Passes where a side has no encoder's name yet, or this one.

    Raises:
        EncoderMismatchError: it has another one's.
    """
    pinned = store.image if side == "image" else store.text
    if pinned.name not in (BROUGHT, name):
        raise EncoderMismatchError(side, pinned.name, name)


def name_encoders(store: PairStore, pins: dict[str, EncoderPin]) -> PairStore:
    """Keep from now on that these encoders made the vectors of some sides; no row changes.

    Raises:
        EncoderMismatchError: a side has another name already.
    """
    with store.writing("encoders", beside=True):
        for side, pin in pins.items():
            check_nameable(PairStore.open(store.uri), side, pin.name)
        write_pins(open_own_pairs(store.uri), pins)
        write_functions(open_own_pairs(store.uri))
        Ledger(store.uri).adopt(open_table(store.uri, "pairs"))
    image, text = pins.get("image", store.image), pins.get("text", store.text)
    return replace(store, image=image, text=text)
