"""Image encoders of the timm library, under their own evaluation transform."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors import SafetensorError
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from asif_lance.devices import send_beside, take_turns
from asif_lance.encoders.precision import multiply_in, split_precision
from asif_lance.encoders.weights import (
    IMAGE_PREFIX,
    PACKAGED_IMAGE,
    file_digest,
    hub_folder,
    local_folder,
    packaged_file,
    weights_digest,
)
from asif_lance.errors import EncoderUnavailableError
from asif_lance.records import EncoderPin, Float32Array


class TimmEncoder:
    """A frozen timm network without its classifier: pooled features, L2-normalised.

    A row depends on its own image only, up to float noise: convolution kernels are chosen by
    batch shape, so cosines may differ by about 1e-6 between batches of different sizes, in half
    precision by more.

    Attributes:
        pin: name, weights and dimension.
        min_side: pixels of the short side that the transform resizes to.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Load the weights and move them to `device`.

        Raises:
            EncoderUnavailableError: unknown model, or weights that are missing or damaged.
        """
        name, self._precision = split_precision(name.removeprefix(IMAGE_PREFIX))
        model, name, revision = _load(name)
        config = resolve_data_config({}, model=model)
        self._device, self._turn = device, take_turns(device)
        self._model = model.eval().to(device).to(memory_format=torch.channels_last)
        # Normalising belongs to `encode`: pixels travel as bytes, a quarter of the size.
        self._transform = create_transform(**config, normalize=False)
        self._mean, self._std = (
            torch.tensor(config[key], device=device).view(1, -1, 1, 1) for key in ("mean", "std")
        )
        self.min_side = math.ceil(max(config["input_size"][1:]) / config["crop_pct"])
        blank = torch.zeros((1, *config["input_size"]), dtype=torch.uint8)
        pinned = IMAGE_PREFIX + name + self._precision
        self.pin = EncoderPin(pinned, revision, self.encode(blank).shape[1])

    def prepare(self, image: Image.Image) -> Tensor:
        """Resize and crop an RGB image as in timm's evaluation: (3, height, width) uint8."""
        prepared: Tensor = self._transform(image)
        return prepared

    def encode(self, batch: Tensor) -> Float32Array:
        """L2-normalised float32 vectors (b, d) of prepared images (b, 3, height, width) uint8."""
        there = send_beside(batch, self._device)
        with self._turn, torch.inference_mode():
            pixels = there.to(memory_format=torch.channels_last)
            scaled = pixels.float().div_(255).sub_(self._mean).div_(self._std)
            with multiply_in(self._precision, self._device):
                features = self._model(scaled)
            unit = nn.functional.normalize(features.float(), dim=1)
            vectors: Float32Array = unit.cpu().numpy()
        return vectors


def _load(name: str) -> tuple[nn.Module, str, str]:
    """The network without classifier, a name that lasts, and the revision of its weights."""
    if name in PACKAGED_IMAGE:
        return _load_packaged(name)
    path = local_folder(name)
    folder = path or hub_folder(_hub_name(name))
    revision = weights_digest(folder)
    return _load_folder(folder), str(path or name), revision


def _load_packaged(name: str) -> tuple[nn.Module, str, str]:
    module, distribution = PACKAGED_IMAGE[name]
    file = packaged_file(module, distribution)
    digest = file_digest(file)
    if not digest.startswith(file.stem.rsplit("-", 1)[-1]):
        raise EncoderUnavailableError(f"{file.name} is damaged: reinstall {distribution}")
    model = timm.create_model(name, pretrained=False)
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(by_position(model.state_dict(), tensors), assign=True)
    model.reset_classifier(0)
    return model, name, digest[:12]


def by_position(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`given` under the key names of `wanted`, for weights that only differ in their key names.

    Raises:
        EncoderUnavailableError: number, kind (`weight`, `bias`, …) or shape of the tensors differ.
    """
    if len(wanted) != len(given):
        raise EncoderUnavailableError(
            f"these weights have {len(given)} tensors, the model has {len(wanted)}"
        )
    renamed = {}
    for (key, tensor), (old_key, value) in zip(wanted.items(), given.items(), strict=True):
        same_kind = key.rsplit(".", 1)[-1] == old_key.rsplit(".", 1)[-1]
        if not same_kind or tensor.shape != value.shape:
            raise EncoderUnavailableError(f"tensor {old_key} does not fit the model's {key}")
        renamed[key] = value
    return renamed


def _load_folder(folder: Path) -> nn.Module:
    """A network out of a folder with `config.json` and safetensors, as timm saves it."""
    try:
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError, LookupError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise EncoderUnavailableError(f"{folder} is not a timm model: {reason}") from error
    return model


def _hub_name(name: str) -> str:
    """The hub repository: `owner/name` as given, else where timm keeps the model's weights."""
    if "/" in name:
        return name
    if not timm.is_model(name):
        raise EncoderUnavailableError(f"timm has no model {name!r}")
    known = timm.models.get_pretrained_cfg(name)
    if known is None or not known.hf_hub_id:
        raise EncoderUnavailableError(f"timm has no weights for {name!r}")
    return str(known.hf_hub_id)
