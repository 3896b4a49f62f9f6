"""Encoders of one's own by name: registered by a program, or installed as an entry point.

A package that brings one names it in the group `asif_lance.encoders` of its entry points, as
`image.tones` or `text.words`; what that leads to is a function of a device's name that loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from asif_lance.encoders.protocols import ImageEncoder, TextEncoder
from asif_lance.errors import EncoderError, EncoderUnavailableError, InputError
from asif_lance.records import BROUGHT, EncoderPin, Float32Array

GROUP = "asif_lance.encoders"

_loaders: dict[tuple[str, str], Callable[[str], Any]] = {}


def register_encoder(
    side: str, name: str, load: Callable[[str], ImageEncoder] | Callable[[str], TextEncoder]
) -> None:
    """Have `name` mean an encoder of one's own, wherever an encoder is named in this process.

    Args:
        side: `image` or `text`.
        name: that of its pin; the names of libraries, such as `timm/…`, are taken.
        load: loads it for a device: `cpu`, `cuda:1`, ….

    Raises:
        InputError: the name cannot be used.
    """
    unusable = not name or name == BROUGHT or "+" in name or name.strip() != name
    if side not in ("image", "text") or unusable:
        raise InputError(f"an encoder of the side {side!r} cannot be called {name!r}")
    if _is_library(name):
        raise InputError(f"{name!r} belongs to a library: call the encoder otherwise")
    _loaders[side, name] = load


def _is_library(name: str) -> bool:
    return name.startswith(("timm/", "transformers/", "open_clip/", "sentence-transformers/"))


def check_pinned(side: str, name: str) -> str:
    """The name of an encoder that made a database's vectors, if it can be loaded by it.

    Raises:
        EncoderUnavailableError: it is one of somebody's own that nobody has given or registered.
    """
    if not _is_library(name) and name not in registered_names(side):
        raise EncoderUnavailableError(
            f"the {side} vectors were made by {name!r}, an encoder of somebody's own: give it to "
            f"asif_lance.open({side}_encoder=…), or register its name "
            "(asif_lance.encoders.register_encoder)"
        )
    return name


def is_loaded_anywhere(side: str, name: str) -> bool:
    """Whether any process makes the same encoder of a name: a library's or an installed package's.

    One that a program has given or registered is only in its own process.
    """
    return _is_library(name) or ((side, name) not in _loaders and (side, name) in _installed())


def registered_names(side: str) -> set[str]:
    """What `load_registered` knows."""
    own = {name for known, name in _loaders if known == side}
    return own | {name for known, name in _installed() if known == side}


def load_registered(side: str, name: str, device: str) -> Any:
    """The encoder of a name that is registered, or None."""
    load = _loaders.get((side, name))
    if load is None and (side, name) in _installed():
        load = _installed()[side, name].load()
    return None if load is None else check_own_encoder(side, load(device))


def adopt_encoder(side: str, encoder: Any) -> Any:
    """Pass an encoder that a program hands over; its pin's name means it from now on.

    Raises:
        InputError: it is none.
    """
    checked = check_own_encoder(side, encoder)
    if not type(checked).__module__.startswith("asif_lance."):
        register_encoder(side, checked.pin.name, lambda device: checked)
    return checked


def check_own_encoder(side: str, encoder: Any) -> Any:
    """Pass an object that has what `protocols` say.

    Raises:
        InputError: something is missing.
    """
    needed = ("pin", "encode", "prepare") if side == "image" else ("pin", "encode", "max_tokens")
    missing = [name for name in needed if not hasattr(encoder, name)]
    if missing:
        raise InputError(
            f"{type(encoder).__name__} is no {side} encoder: it has no {', '.join(missing)} "
            "(asif_lance.encoders.ImageEncoder and TextEncoder say what is needed)"
        )
    if not isinstance(encoder.pin, EncoderPin):
        raise InputError(f"the pin of {type(encoder).__name__} is no asif_lance.records.EncoderPin")
    return encoder


def check_vectors(pin: EncoderPin, made: Any, count: int) -> Float32Array:
    """What an encoder made of `count` items, as (count, d) float32.

    Raises:
        EncoderError: it has another shape.
    """
    try:
        vectors: Float32Array = np.asarray(made, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"{pin.name} made {type(made).__name__}, not vectors") from error
    if vectors.shape != (count, pin.dimension):
        wanted = (count, pin.dimension)
        raise EncoderError(f"{pin.name} made vectors of shape {vectors.shape}, not {wanted}")
    return vectors


@cache
def _installed() -> dict[tuple[str, str], Any]:
    found = ((*entry.name.partition("."), entry) for entry in entry_points(group=GROUP))
    return {(side, name): entry for side, _, name, entry in found if name}
