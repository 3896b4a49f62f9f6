"""Keeps prompts' vectors on disk: whoever asks the same again needs no text encoder.

They are kept under a digest of the encoder's pin and of all texts in order, as a vector depends on
its batch mates by float noise. The texts themselves are not written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from asif_lance.database import PROMPT_VECTORS, load_cache, read_epoch, save_cache
from asif_lance.encoders import TextEncoder, check_vectors
from asif_lance.progress import track_batches
from asif_lance.records import EncoderPin, Float32Array
from asif_lance.search import unit_queries

_TEXTS_AT_ONCE = 8192  # encoded, and normalised in float64
_COLUMNS = ("vectors", "cut", "max_tokens")


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Texts as an encoder sees them.

    Attributes:
        vectors: (t, d) float32, unit length.
        cut: how many of the texts are longer than the encoder reads.
        max_tokens: what it reads of a text; 0 for all of it.
    """

    vectors: Float32Array
    cut: int
    max_tokens: int


def encode_prompts(
    database: str, pin: EncoderPin, load: Callable[[], TextEncoder], texts: Sequence[str]
) -> EncodedTexts:
    """Embed t texts, or take what is kept of them.

    Args:
        database: its address.
        pin: the encoder that made the database's caption vectors.
        load: gives an encoder, if one is needed.
        texts: what to embed.

    Raises:
        EncoderUnavailableError: as `load`.
    """
    asked = json.dumps([*astuple(pin), *texts]).encode()
    name = hashlib.sha256(asked).hexdigest()[:32]
    kept = load_cache(database, PROMPT_VECTORS, name, _COLUMNS)
    if kept is not None and kept["vectors"].shape == (len(texts), pin.dimension):
        return EncodedTexts(kept["vectors"], int(kept["cut"]), int(kept["max_tokens"]))
    epoch, encoder = read_epoch(database), load()
    vectors, cut = np.empty((len(texts), encoder.pin.dimension), np.float32), 0
    for at in track_batches("encode prompts", len(texts), _TEXTS_AT_ONCE):
        made = check_vectors(encoder.pin, encoder.encode(texts[at]), len(texts[at]))
        vectors[at] = unit_queries(made)
        cut += encoder.count_cut(texts[at])
    found = EncodedTexts(vectors, cut, encoder.max_tokens or 0)
    if encoder.pin == pin and pin.revision:  # without a revision the weights are not known
        arrays = {column: np.asarray(getattr(found, column)) for column in _COLUMNS}
        save_cache(database, PROMPT_VECTORS, name, arrays, files=(), since=epoch)
    return found
