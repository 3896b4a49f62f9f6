"""Which encoders made vectors that were brought along: named by the user, checked on a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from asif_lance.encoders import (
    ImageEncoder,
    PictureSource,
    TextEncoder,
    check_vectors,
    encode_each,
    encoder_name,
    image_encoder,
    text_encoder,
)
from asif_lance.errors import ImageError, InputError
from asif_lance.ingest.caption_groups import unit_mean
from asif_lance.ingest.stored_pairs import StoredPictures
from asif_lance.records import EncoderPin, Float32Array
from asif_lance.store import PairStore
from asif_lance.store.naming import check_nameable, name_encoders

#: Pairs that are encoded for the comparison, and pairs that are looked at to find them.
SAMPLE, LOOKED_AT = 32, 320

#: The least median cosine. The packaged image encoder's vectors of 24 photos reach 0.99 with those
#: of copies scaled in another way or compressed anew, 0.90 with those of the photos stretched to a
#: square, and 0.32 with those of other photos.
SIMILARITY = 0.95


@dataclass(frozen=True, slots=True)
class NamedEncoder:
    """An encoder that was named.

    Attributes:
        side: `image` or `text`.
        pin: what the database knows of it from now on.
        compared: stored vectors that were compared with new ones.
        median, lowest: their cosines; None where none could be compared.
    """

    side: str
    pin: EncoderPin
    compared: int
    median: float | None
    lowest: float | None


def name_and_check_encoders(
    uri: str | Path,
    *,
    image: str | None = None,
    text: str | None = None,
    image_root: Path | None = None,
    unchecked: bool = False,
    device: str = "auto",
) -> tuple[NamedEncoder, ...]:
    """Name the encoders that made a database's vectors, so that pictures and texts can be asked.

    Some pictures and captions of the newest version are encoded and compared with what is stored.

    Args:
        uri: the database.
        image: `timm/NAME`, for image vectors without a name; None leaves the side as it is.
        text: `sentence-transformers/NAME` likewise.
        image_root: pictures are sought in this folder first.
        unchecked: name an encoder also where nothing can be compared.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        EncoderMismatchError: the side has another name already.
        EncoderUnavailableError: it cannot be had.
        InputError: it did not make the vectors, or nothing could be compared.
    """
    store = PairStore.open(str(uri))
    image, text = encoder_name("image", image), encoder_name("text", text)
    asked = {side: name for side, name in (("image", image), ("text", text)) if name is not None}
    if not asked:
        raise InputError("name an image encoder, a text encoder, or both")
    for side, name in asked.items():
        check_nameable(store, side, name)
    rows = _draw(store)
    named = []
    if image is not None:
        seer = image_encoder(image, device=device)
        made, stored = _encode_pictures(seer, rows, StoredPictures(image_root))
        named.append(_compare("image", store.image, seer.pin, made, stored, unchecked=unchecked))
    if text is not None:
        reader = text_encoder(text, device=device)
        made, stored = _encode_captions(reader, rows)
        named.append(_compare("text", store.text, reader.pin, made, stored, unchecked=unchecked))
    name_encoders(store, {one.side: one.pin for one in named})
    return tuple(named)


def _draw(store: PairStore) -> pa.Table:
    """Some pairs of the newest version, from all over it."""
    state = store.dataset()
    count = state.count_rows()
    places = np.unique(np.linspace(0, max(count - 1, 0), min(count, LOOKED_AT)).astype(int))
    rows: pa.Table = state.take(np.random.default_rng(0).permutation(places).tolist())
    return rows


def _encode_pictures(
    encoder: ImageEncoder, rows: pa.Table, pictures: StoredPictures
) -> tuple[Float32Array, Float32Array]:
    """The vectors of pictures that can be had, and those that are stored for them."""
    found: list[tuple[int, PictureSource]] = []
    for place, row in enumerate(_texts(rows, "image_uri", "image_sha256", "thumbnail")):
        try:
            found.append((place, pictures.find(*row)))
        except ImageError:
            continue
        if len(found) == SAMPLE:
            break
    made = list(encode_each(encoder, [picture for _, picture in found]))
    both = [(p, v) for (p, _), v in zip(found, made, strict=True) if not isinstance(v, ImageError)]
    return _stack([v for _, v in both]), _stored(rows, "image_vector", [p for p, _ in both])


def _encode_captions(encoder: TextEncoder, rows: pa.Table) -> tuple[Float32Array, Float32Array]:
    """The vectors of captions, means where there are several, and those that are stored."""
    texts = [captions or [caption] for caption, captions in _texts(rows, "caption", "captions")]
    places = [place for place, each in enumerate(texts) if all(each)][:SAMPLE]
    lists = [texts[place] for place in places]
    if not lists:
        return _stack([]), _stack([])
    captions = [caption for each in lists for caption in each]
    vectors = check_vectors(encoder.pin, encoder.encode(captions), len(captions))
    means = unit_mean(vectors, np.array([len(each) for each in lists]))
    return means.astype(np.float32), _stored(rows, "text_vector", places)


def _compare(
    side: str,
    pinned: EncoderPin,
    pin: EncoderPin,
    made: Float32Array,
    stored: Float32Array,
    *,
    unchecked: bool,
) -> NamedEncoder:
    if pin.dimension != pinned.dimension:
        raise InputError(
            f"{pin.name} did not make the {side} vectors: its own have {pin.dimension} dimensions "
            f"instead of {pinned.dimension}"
        )
    if not len(made):
        if unchecked:
            return NamedEncoder(side, pin, 0, None, None)
        what = "picture can be read" if side == "image" else "caption is there"
        raise InputError(
            f"no {what}, so nothing shows that {pin.name} made the {side} vectors: "
            "--unchecked takes your word for it"
        )
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(stored, axis=1)
    cosines = np.sum(made * stored, axis=1) / lengths
    median, lowest = float(np.median(cosines)), float(cosines.min())
    if not median >= SIMILARITY:
        raise InputError(
            f"{pin.name} did not make the {side} vectors: of {len(made)} stored ones half have a "
            f"cosine below {median:.3f} with its own, the lowest {lowest:.3f}"
        )
    return NamedEncoder(side, pin, len(made), median, lowest)


def _texts(rows: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    columns = [
        rows[name].to_pylist() if name in rows.column_names else [None] * len(rows)
        for name in names
    ]
    return zip(*columns, strict=True)


def _stored(rows: pa.Table, name: str, places: Sequence[int]) -> Float32Array:
    column = rows[name].take(pa.array(places, pa.int64())).combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(places), column.type.list_size)


def _stack(vectors: Sequence[Float32Array]) -> Float32Array:
    return np.stack(vectors) if len(vectors) else np.empty((0, 0), np.float32)
