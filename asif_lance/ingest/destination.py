"""Where an ingest goes: the database, its pinned encoders, and what may be mixed with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa

from asif_lance.database import FoundPairs, KnownPairs
from asif_lance.encoders import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    ImageEncoder,
    TextEncoder,
    check_pinned,
    encoder_name,
    image_encoder,
    text_encoder,
)
from asif_lance.errors import (
    DatabaseExistsError,
    DatabaseNotFoundError,
    EncoderMismatchError,
)
from asif_lance.forgetting import ForgottenPairs
from asif_lance.ingest.options import IngestOptions
from asif_lance.records import BROUGHT, EncoderPin, Float16Array
from asif_lance.store import PairStore


class Destination:
    """A database that exists or will be made with the first pairs.

    Encoders load when they are first needed; a side that never needs one holds vectors that the
    user gave, pinned under the name the user gave with them or as `vectors`.

    Attributes:
        store: the database; None before it is made.
        epoch: that of before anything was read, for what may quote pairs: a message, rejects.
        forgotten: what was forgotten there; None before it is made, or while nobody looked.
    """

    def __init__(self, uri: str, options: IngestOptions, *, pinned: Collection[str] = ()) -> None:
        """Open the database if there is one.

        Args:
            uri: its address.
            options: how to ingest.
            pinned: names of encoders that other databases pin, which need not be loaded.

        Raises:
            EncoderMismatchError: the database pins other encoders than those asked for.
        """
        self._uri, self._device, self._options = uri, options.device, options
        self._image: ImageEncoder | None = None
        self._text: TextEncoder | None = None
        self._known = KnownPairs()
        self._pictures = KnownPairs("image_sha256")
        self._first: dict[str, EncoderPin] = {}
        self.forgotten: ForgottenPairs | None = None
        try:
            self.store: PairStore | None = PairStore.open(uri)
        except DatabaseNotFoundError:
            self.store = None
        if self.store is not None:
            self.store.check_addable("ingest")
        self.epoch = 0 if self.store is None else self.store.epoch()
        self._given = {"image": options.image_encoder, "text": options.text_encoder}
        spelt = {BROUGHT, *pinned}
        if self.store is not None:
            spelt |= {self.store.image.name, self.store.text.name}
        self._asked = {side: _spell(side, one, spelt) for side, one in self._given.items()}
        for side in ("image", "text"):
            self._check_name(side)

    @property
    def image_encoder(self) -> ImageEncoder:
        """The encoder for pictures that came without a vector."""
        if self._image is None:
            self._image = image_encoder(self._choose("image"), device=self._device)
        return self._image

    @property
    def text_encoder(self) -> TextEncoder:
        """The encoder for captions that came without a vector."""
        if self._text is None:
            self._text = text_encoder(self._choose("text"), device=self._device)
        return self._text

    def load(self, *sides: str) -> None:
        """Load the encoders of some sides before they are needed.

        Raises:
            EncoderMismatchError, EncoderUnavailableError: there is none.
        """
        for side in sides:
            _ = self.image_encoder if side == "image" else self.text_encoder

    def dimension(self, side: str) -> int | None:
        """The length that vectors of a side must have; None while nothing is pinned."""
        pin = self._pinned(side) or self._loaded(side)
        return pin.dimension if pin else None

    @property
    def max_tokens(self) -> int | None:
        """How much of a caption the encoder reads, if one was needed and has a limit."""
        return self._text.max_tokens if self._text is not None else None

    @property
    def encodes(self) -> bool:
        """Whether an encoder was needed so far."""
        return self._image is not None or self._text is not None

    def find_known(self, pair_ids: pa.Array, columns: Sequence[str]) -> FoundPairs:
        """Those of n distinct ids that the table has, with columns of their rows."""
        if self.store is None:
            return self._known.find(pair_ids)
        return self.store.find_known(self._known, pair_ids, columns)

    def look_anew(self, known: KnownPairs) -> None:
        """Go on with what is known of an earlier state, and learn what the table has by now."""
        self._known = known
        if self.store is not None:
            nothing = pa.array([], pa.string())
            self.store.find_known(self._known, nothing, (), anew=True)

    def find_pictures(
        self, digests: Sequence[str], *, anew: bool = False
    ) -> dict[str, Float16Array]:
        """The vectors of those pictures that the table has, by their hashes.

        Args:
            digests: distinct.
            anew: whether those that this ingest has added count, too; otherwise they may.
        """
        if self.store is None or not digests:
            return {}
        found = self.store.find_known(
            self._pictures, pa.array(digests, pa.string()), ("image_vector",), anew=anew
        )
        if not len(found.places):
            return {}
        vectors = found.rows["image_vector"].combine_chunks()
        matrix = vectors.flatten().to_numpy().reshape(len(found.rows), -1)
        return dict(zip(found.rows["image_sha256"].to_pylist(), matrix, strict=True))

    def look_up_forgotten(self) -> None:
        """Be ready to tell which pairs were forgotten.

        Raises:
            KeysError: the key is missing with which it could be told.
        """
        if self.store is not None:
            how = self._options
            self.forgotten = ForgottenPairs(self.store.uri, how.keys_folder, how.waiver)

    def add(self, pairs: pa.Table, *, replace: bool = False) -> int:
        """Add pairs that are not there yet to the database, which is made when missing.

        Args:
            pairs: see `PairStore.add`.
            replace: pairs that are there get their new rows.

        Returns:
            How many were not there before.

        Raises:
            EncoderMismatchError, DimensionError: their vectors do not belong there.
            StaleModelError: pairs were forgotten since the ingest began.
        """
        store = self.open_for(pairs)
        return store.add(pairs, known=self._known, replace=replace, looked_up=self.forgotten)

    def open_for(self, pairs: pa.Table) -> PairStore:
        """The database, made when missing, if these pairs' vectors belong there.

        Raises:
            EncoderMismatchError, DimensionError: they do not.
        """
        pins = self._pins_of(pairs)
        if self.store is None:
            self.store = _create_or_open(self._uri, pins)
            self.look_up_forgotten()  # it knows from now on which rows came from here
        self.store.check_encoders(**pins)
        return self.store

    def expect(self, pairs: pa.Table) -> None:
        """Take the first pairs' encoders for those of a database that is not made yet."""
        if self.store is None and not self._first:
            self._first = self._pins_of(pairs)

    def _pins_of(self, pairs: pa.Table) -> dict[str, EncoderPin]:
        return {
            side: self._loaded(side)
            or EncoderPin(self._asked[side] or BROUGHT, "", _width(pairs, side))
            for side in ("image", "text")
        }

    def _loaded(self, side: str) -> EncoderPin | None:
        encoder = self._image if side == "image" else self._text
        return encoder.pin if encoder is not None else None

    def _pinned(self, side: str) -> EncoderPin | None:
        if self.store is None:
            return self._first.get(side)
        return self.store.image if side == "image" else self.store.text

    def _name(self, side: str) -> str:
        pinned = self._pinned(side)
        default = DEFAULT_IMAGE if side == "image" else DEFAULT_TEXT
        name = self._asked[side] or (pinned.name if pinned else default)
        if name == BROUGHT:
            raise EncoderMismatchError(side, "vectors that were brought along", default)
        return check_pinned(side, name)

    def _choose(self, side: str) -> Any:
        """The encoder itself where a program gave it, else a name."""
        given = self._given[side]
        return self._name(side) if given is None or isinstance(given, str) else given

    def _check_name(self, side: str) -> None:
        """Before anything is encoded: another encoder by name is never right."""
        pinned, asked = self._pinned(side), self._asked[side]
        if pinned is not None and asked is not None and asked != pinned.name:
            raise EncoderMismatchError(side, pinned.name, asked)
        given = self._given[side]
        if self.store is not None and not isinstance(given, str | None):
            pins = {"image": self.store.image, "text": self.store.text} | {side: given.pin}
            self.store.check_encoders(**pins)


def _spell(
    side: str, given: str | ImageEncoder | TextEncoder | None, spelt: set[str]
) -> str | None:
    """What the database calls an encoder; names that are `spelt` as they are kept stay."""
    if isinstance(given, str) and given in spelt:
        return given
    return encoder_name(side, given)


def _width(pairs: pa.Table, side: str) -> int:
    return int(pairs.schema.field(f"{side}_vector").type.list_size)


def _create_or_open(uri: str, pins: dict[str, EncoderPin]) -> PairStore:
    """A new database, or the one that somebody else made since this ingest began."""
    try:
        return PairStore.create(uri, **pins)
    except DatabaseExistsError as error:
        try:
            return PairStore.open(uri)
        except DatabaseNotFoundError:
            raise error from None
