"""Where an ingest goes: the database, its pinned encoders, and what may be mixed with them."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from asif_lance.encoders import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    ImageEncoder,
    TextEncoder,
    image_encoder,
    text_encoder,
)
from asif_lance.errors import DatabaseNotFoundError, EncoderMismatchError
from asif_lance.records import BROUGHT, EncoderPin
from asif_lance.store import PairStore

Side = Literal["image", "text"]


class Destination:
    """A database that exists or will be made with the first pairs.

    Encoders load when they are first needed; a side that never needs one holds vectors that were
    brought along, pinned under the name the user gave or as `vectors`.

    Args:
        uri: the database.
        image_name: the image encoder asked for; None is the database's own, or the default.
        text_name: the text encoder, likewise.
        device: where encoders run.

    Raises:
        EncoderMismatchError: the database pins others than those asked for.
    """

    def __init__(
        self, uri: str, image_name: str | None, text_name: str | None, *, device: str = "auto"
    ) -> None:
        self._uri, self._device = uri, device
        self._asked = {"image": image_name, "text": text_name}
        try:
            self.store: PairStore | None = PairStore.open(uri)
        except DatabaseNotFoundError:
            self.store = None
        for side in ("image", "text"):
            self._check_name(side)
        self._checked = False

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """The encoder for pictures that came without a vector."""
        return image_encoder(self._name("image"), device=self._device)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder for captions that came without a vector."""
        return text_encoder(self._name("text"), device=self._device)

    def dimension(self, side: str) -> int | None:
        """The length that vectors of a side must have; None while nothing is pinned."""
        if self.store is not None:
            return (self.store.image if side == "image" else self.store.text).dimension
        loaded = self.__dict__.get(f"{side}_encoder")
        return int(loaded.pin.dimension) if loaded is not None else None

    def existing(self, pair_ids: list[str]) -> set[str]:
        """Which pairs the table has already."""
        return self.store.existing(pair_ids) if self.store is not None else set()

    def store_for(self, image_dimension: int, text_dimension: int) -> PairStore:
        """The database, made when missing, after checking that the vectors belong there.

        Raises:
            EncoderMismatchError, DimensionError: they do not.
        """
        image = self._pin("image", image_dimension)
        text = self._pin("text", text_dimension)
        if self.store is None:
            self.store = PairStore.create(self._uri, image=image, text=text)
        self.store.check_encoders(image, text)
        return self.store

    def _pin(self, side: str, dimension: int) -> EncoderPin:
        loaded = self.__dict__.get(f"{side}_encoder")
        if loaded is not None:
            pin: EncoderPin = loaded.pin
            return pin
        return EncoderPin(self._asked[side] or BROUGHT, "", dimension)

    def _name(self, side: str) -> str:
        pinned = self._pinned(side)
        default = DEFAULT_IMAGE if side == "image" else DEFAULT_TEXT
        name = self._asked[side] or (pinned.name if pinned else default)
        if name == BROUGHT:
            raise EncoderMismatchError(side, "vectors that were brought along", default)
        return name

    def _pinned(self, side: str) -> EncoderPin | None:
        if self.store is None:
            return None
        return self.store.image if side == "image" else self.store.text

    def _check_name(self, side: str) -> None:
        """Before anything is encoded: another encoder by name is never right."""
        pinned, asked = self._pinned(side), self._asked[side]
        if pinned is not None and asked is not None and asked != pinned.name:
            raise EncoderMismatchError(side, pinned.name, asked)
