"""The two towers of open_clip's models, CLIP and SigLIP among them, each an encoder of its side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from asif_lance.devices import send_beside, take_turns
from asif_lance.encoders.precision import multiply_in, split_precision
from asif_lance.encoders.weights import (
    OPEN_CLIP_PREFIX,
    hub_folder,
    local_folder,
    weights_digest,
)
from asif_lance.errors import EncoderUnavailableError
from asif_lance.records import EncoderPin, Float32Array

_TEXTS_AT_ONCE = 64


class _Tower:
    """What both sides have in common."""

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the model's weights, once for both towers, and move them to `device`.

        Raises:
            EncoderUnavailableError: unknown model, or weights that are missing or damaged.
        """
        name, self._precision = split_precision(name.removeprefix(OPEN_CLIP_PREFIX))
        path = local_folder(name)
        self._folder = path or hub_folder(name)
        self._revision = weights_digest(self._folder)
        self._pinned = OPEN_CLIP_PREFIX + str(path or name) + self._precision
        self._model = _load(self._folder, device)
        self._device, self._turn = device, take_turns(device)

    def _embed(self, tower: Any, batch: Tensor) -> Float32Array:
        there = send_beside(batch, self._device)
        with self._turn, torch.inference_mode():
            with multiply_in(self._precision, self._device):
                features = tower(there)
            unit = nn.functional.normalize(features.float(), dim=1)
            return np.asarray(unit.cpu().numpy(), dtype=np.float32)


class OpenClipImages(_Tower):
    """The image tower under the model's own transform.

    Attributes:
        pin: name, weights and dimension.
        min_side: pixels of the short side that the transform resizes to.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        super().__init__(name, device)
        import open_clip

        config = open_clip.transform.PreprocessCfg(**self._model.visual.preprocess_cfg)
        self._transform = open_clip.transform.image_transform_v2(config, is_train=False)
        blank = self.prepare(Image.new("RGB", (8, 8)))
        self.min_side = max(blank.shape[1:])
        self.pin = EncoderPin(self._pinned, self._revision, self.encode(blank[None]).shape[1])

    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB image as the tower takes it: (3, height, width)."""
        pixels: Tensor = self._transform(image)
        return pixels

    def encode(self, batch: Tensor) -> Float32Array:
        """L2-normalised float32 vectors (b, d) of prepared images."""
        return self._embed(self._model.encode_image, batch)


class OpenClipTexts(_Tower):
    """The text tower under the model's own tokenizer, which cuts long texts.

    Attributes:
        pin: name, weights and dimension.
        max_tokens: what the tower reads of a text, its marks included.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        super().__init__(name, device)
        import open_clip

        self._tokenize = open_clip.get_tokenizer(f"local-dir:{self._folder}")
        self.max_tokens: int | None = int(self._model.context_length)
        self.pin = EncoderPin(self._pinned, self._revision, self.encode(["a"]).shape[1])

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """L2-normalised float32 vectors (m, d) of m texts; lone surrogates read as `?`."""
        if not texts:
            return np.empty((0, self.pin.dimension), np.float32)
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        parts = [clean[i : i + _TEXTS_AT_ONCE] for i in range(0, len(clean), _TEXTS_AT_ONCE)]
        tower = self._model.encode_text
        return np.concatenate([self._embed(tower, self._tokenize(part)) for part in parts])

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of the texts have more than `max_tokens` tokens; the rest is not read."""
        encode = getattr(self._tokenize, "encode", None)
        if encode is None or self.max_tokens is None:
            return 0
        return sum(len(encode(text)) + 2 > self.max_tokens for text in texts)


@lru_cache(maxsize=1)
def _load(folder: Path, device: torch.device) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise EncoderUnavailableError(
            "open_clip is not installed: pip install 'asif-lance[clip]'"
        ) from error
    try:
        return open_clip.create_model(f"local-dir:{folder}", device=device).eval()
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EncoderUnavailableError(f"{folder} is not a model of open_clip: {reason}") from error
