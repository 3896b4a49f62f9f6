"""Text encoders of the sentence-transformers library."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers.utils import logging as transformers_logging

from asif_lance.devices import take_turns
from asif_lance.encoders.precision import multiply_in, split_precision
from asif_lance.encoders.weights import (
    PACKAGED_TEXT,
    TEXT_PREFIX,
    hub_folder,
    local_folder,
    package_folder,
    weights_digest,
)
from asif_lance.errors import EncoderUnavailableError
from asif_lance.records import EncoderPin, Float32Array


class SentenceEncoder:
    """A frozen sentence-transformers model; long texts are cut at its own token limit.

    A row depends on its own text only, up to float noise (about 1e-6, in half precision more):
    shorter batch mates are padded and masked.

    Attributes:
        pin: name, weights and dimension.
        max_tokens: its token limit; None where it has none.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the weights and move them to `device`.

        Raises:
            EncoderUnavailableError: unknown model, or weights that are missing or damaged.
        """
        name, self._precision = split_precision(name.removeprefix(TEXT_PREFIX))
        folder, name = _find(name)
        revision = weights_digest(folder)
        self._model = _load(folder, device)
        self._device, self._turn = device, take_turns(device)
        self._counting = threading.Lock()
        # Tokenizers cannot change how they cut texts while another thread uses them: counting has
        # one of its own, and the other has no more to change after its first text.
        self._counter = copy.deepcopy(self._model.tokenizer)
        self._dimension = self._model.get_embedding_dimension()
        self._model.encode(["a"], show_progress_bar=False)
        self.pin = EncoderPin(TEXT_PREFIX + name + self._precision, revision, self._dimension)
        self.max_tokens: int | None = self._model.max_seq_length

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """L2-normalised float32 vectors (m, d) of m texts; lone surrogates read as `?`."""
        if not texts:
            return np.empty((0, self._dimension), np.float32)
        with self._turn, multiply_in(self._precision, self._device):
            vectors = self._model.encode(
                [text.encode("utf-8", "replace").decode() for text in texts],
                show_progress_bar=False,
            )
        return _to_unit(vectors)

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts have more than `max_tokens` tokens; the rest is not read."""
        limit = self.max_tokens
        # No token is shorter than a byte, two mark the ends: most texts need not be looked at.
        long = [t for t in texts if limit and len(t.encode("utf-8", "replace")) > limit - 2]
        if not limit or not long:
            return 0
        clean = [text.encode("utf-8", "replace").decode() for text in long]
        with self._counting:
            tokens = self._counter(clean, truncation=False, verbose=False)["input_ids"]
        return sum(len(own) > limit for own in tokens)

    @property
    def embeds_pictures(self) -> bool:
        """Whether the model has an image side too, in the same space: a CLIP."""
        return bool(self._model.supports("image"))

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Float32Array:
        """L2-normalised float32 vectors (m, d) of m RGB pictures, if it `embeds_pictures`."""
        with self._turn, multiply_in(self._precision, self._device):
            vectors = self._model.encode(list(pictures), show_progress_bar=False)
        return _to_unit(vectors)


def _to_unit(vectors: object) -> Float32Array:
    """The same in float32, where their length can be made 1."""
    matrix = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
    unit: Float32Array = nn.functional.normalize(matrix, dim=1).numpy()
    return unit


def _find(name: str) -> tuple[Path, str]:
    """The model's folder, and a name that lasts."""
    if name in PACKAGED_TEXT:
        return package_folder(*PACKAGED_TEXT[name]) / "model", name
    path = local_folder(name)
    if path is not None:
        return path, str(path)
    return hub_folder(name if "/" in name else TEXT_PREFIX + name), name


def _load(folder: Path, device: torch.device) -> SentenceTransformer:
    try:
        with _no_progress_bars():
            return SentenceTransformer(
                str(folder),
                device=str(device),
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderUnavailableError(
            f"{folder} is not a sentence-transformers model: {reason}"
        ) from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
