"""Loads a frozen encoder by its name."""

from __future__ import annotations

from asif_lance.encoders.protocols import ImageEncoder, TextEncoder
from asif_lance.encoders.weights import IMAGE_PREFIX, TEXT_PREFIX
from asif_lance.errors import EncoderUnavailableError

DEFAULT_IMAGE = "timm/tf_efficientnet_lite0"
DEFAULT_TEXT = "sentence-transformers/all-MiniLM-L6-v2"


def image_encoder(name: str | None = None, *, device: str = "auto") -> ImageEncoder:
    """Load an image encoder: `timm/NAME`, or `timm/` and the path of a model folder.

    With `+bfloat16` after either it multiplies in half precision.

    Raises:
        EncoderUnavailableError: unknown name, or weights that are not to be had here.
    """
    # Not at the top: torch, timm and sentence-transformers take seconds to import, and many need
    # none of them, or one.
    from asif_lance.devices import pick_device
    from asif_lance.encoders.timm_import import import_timm

    import_timm()
    from asif_lance.encoders.timm_encoder import TimmEncoder

    name = name or DEFAULT_IMAGE
    _check_prefix("image", name, IMAGE_PREFIX)
    return TimmEncoder(name, pick_device(device))


def text_encoder(name: str | None = None, *, device: str = "auto") -> TextEncoder:
    """Load a text encoder: `sentence-transformers/NAME`, or that prefix and a folder's path.

    With `+bfloat16` after either it multiplies in half precision.

    Raises:
        EncoderUnavailableError: unknown name, or weights that are not to be had here.
    """
    from asif_lance.devices import pick_device  # see image_encoder
    from asif_lance.encoders.sentence_encoder import SentenceEncoder

    name = name or DEFAULT_TEXT
    _check_prefix("text", name, TEXT_PREFIX)
    return SentenceEncoder(name, pick_device(device))


def _check_prefix(side: str, name: str, prefix: str) -> None:
    if not name.removeprefix(prefix) or not name.startswith(prefix):
        raise EncoderUnavailableError(f"unknown {side} encoder {name!r}: name it {prefix}NAME")
