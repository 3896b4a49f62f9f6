"""Loads a frozen encoder by its name, or takes one that a program has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from asif_lance.encoders.downloads import only_allowed_requests
from asif_lance.encoders.own_encoders import adopt_encoder, load_registered
from asif_lance.encoders.protocols import ImageEncoder, TextEncoder
from asif_lance.encoders.spelling import spell_encoder
from asif_lance.encoders.weights import OPEN_CLIP_PREFIX, TRANSFORMERS_PREFIX

if TYPE_CHECKING:
    import torch

DEFAULT_IMAGE = "timm/tf_efficientnet_lite0"
DEFAULT_TEXT = "sentence-transformers/all-MiniLM-L6-v2"


def image_encoder(name: str | ImageEncoder | None = None, *, device: str = "auto") -> ImageEncoder:
    """Load an image encoder: of timm, transformers or open_clip, or one of your own.

    Args:
        name: as `spell_encoder` takes it, with `+bfloat16` for half precision; or the encoder.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        EncoderUnavailableError: unknown name, or weights that are not here and may not be fetched
            (`allow_downloads` lets them be).
    """
    if name is not None and not isinstance(name, str):
        return cast(ImageEncoder, adopt_encoder("image", name))
    spelled, where, own = _find("image", name or DEFAULT_IMAGE, device)
    if own is not None:
        return cast(ImageEncoder, own)
    with only_allowed_requests():
        return _load_images(spelled, where)


def text_encoder(name: str | TextEncoder | None = None, *, device: str = "auto") -> TextEncoder:
    """Load a text encoder: of sentence-transformers or open_clip, or one of your own.

    Args and errors are those of `image_encoder`.
    """
    if name is not None and not isinstance(name, str):
        return cast(TextEncoder, adopt_encoder("text", name))
    spelled, where, own = _find("text", name or DEFAULT_TEXT, device)
    if own is not None:
        return cast(TextEncoder, own)
    with only_allowed_requests():
        return _load_texts(spelled, where)


def _load_images(spelled: str, where: torch.device) -> ImageEncoder:
    if spelled.startswith(TRANSFORMERS_PREFIX):
        from asif_lance.encoders.transformers_encoder import TransformersEncoder

        return TransformersEncoder(spelled, where)
    if spelled.startswith(OPEN_CLIP_PREFIX):
        from asif_lance.encoders.open_clip_encoders import OpenClipImages

        return OpenClipImages(spelled, where)
    from asif_lance.encoders.timm_import import import_timm

    import_timm()
    from asif_lance.encoders.timm_encoder import TimmEncoder

    return TimmEncoder(spelled, where)


def _load_texts(spelled: str, where: torch.device) -> TextEncoder:
    if spelled.startswith(OPEN_CLIP_PREFIX):
        from asif_lance.encoders.open_clip_encoders import OpenClipTexts

        return OpenClipTexts(spelled, where)
    from asif_lance.encoders.sentence_encoder import SentenceEncoder

    return SentenceEncoder(spelled, where)


def _find(side: str, name: str, device: str) -> tuple[str, torch.device, Any]:
    """A name's spelling, the device, and the encoder registered under it, or None."""
    # Not at the top: torch, timm and sentence-transformers take seconds to import, and many need
    # none of them, or one.
    from asif_lance.devices import pick_device

    spelled, where = spell_encoder(side, name), pick_device(device)
    return spelled, where, load_registered(side, spelled, str(where))


def encoder_name(side: str, encoder: str | ImageEncoder | TextEncoder | None) -> str | None:
    """What a database calls an encoder that somebody asks for; None if nobody does."""
    if encoder is None:
        return None
    if isinstance(encoder, str):
        return spell_encoder(side, encoder)
    return str(adopt_encoder(side, encoder).pin.name)
