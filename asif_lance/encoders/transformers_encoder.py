"""Image encoders of the transformers library, such as DINOv2, under their own image processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel

from asif_lance.devices import send_beside, take_turns
from asif_lance.encoders.precision import multiply_in, split_precision
from asif_lance.encoders.weights import (
    TRANSFORMERS_PREFIX,
    hub_folder,
    local_folder,
    weights_digest,
)
from asif_lance.errors import EncoderUnavailableError
from asif_lance.records import EncoderPin, Float32Array


class TransformersEncoder:
    """A frozen vision model: its pooled output, or its first token where it pools nothing.

    A row depends on its own image only, up to float noise (about 1e-6, in half precision more).

    Attributes:
        pin: name, weights and dimension.
        min_side: pixels of the short side that its processor resizes to.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the weights and move them to `device`.

        Raises:
            EncoderUnavailableError: unknown model, or weights that are missing or damaged.
        """
        name, self._precision = split_precision(name.removeprefix(TRANSFORMERS_PREFIX))
        path = local_folder(name)
        folder = path or hub_folder(name)
        revision = weights_digest(folder)
        model, self._process = _load(folder)
        self._model = model.eval().to(device)
        self._device, self._turn = device, take_turns(device)
        blank = self.prepare(Image.new("RGB", (8, 8)))
        self.min_side = max(blank.shape[1:]) * 2  # it may crop what it has resized
        pinned = TRANSFORMERS_PREFIX + str(path or name) + self._precision
        self.pin = EncoderPin(pinned, revision, self.encode(blank[None]).shape[1])

    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB image as the processor hands it to the network: (3, height, width)."""
        pixels: Tensor = self._process(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def encode(self, batch: Tensor) -> Float32Array:
        """L2-normalised float32 vectors (b, d) of prepared images."""
        there = send_beside(batch, self._device)
        with self._turn, torch.inference_mode():
            with multiply_in(self._precision, self._device):
                found = self._model(pixel_values=there)
            pooled = getattr(found, "pooler_output", None)
            features = found.last_hidden_state[:, 0] if pooled is None else pooled
            unit = nn.functional.normalize(features.float().flatten(1), dim=1)
            return np.asarray(unit.cpu().numpy(), dtype=np.float32)


def _load(folder: Path) -> tuple[nn.Module, Any]:
    """The vision side of a model, and its processor."""
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = AutoModel.from_pretrained(folder, use_safetensors=True, **here)
        process = AutoImageProcessor.from_pretrained(folder, **here)  # type: ignore[no-untyped-call]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise EncoderUnavailableError(
            f"{folder} is not an image model of transformers: {reason}"
        ) from error
    return getattr(model, "vision_model", model), process  # of a CLIP, the vision side alone
