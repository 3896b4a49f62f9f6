"""Encoders' names as people write them, and the one spelling that databases keep.

That is `LIBRARY/NAME`. A model's name alone, that of a hub's repository or a folder is enough where
it tells the library: by timm's own list, by the files of the folder, or by what the hub says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from asif_lance.encoders.downloads import HOW, downloads_allowed
from asif_lance.encoders.own_encoders import registered_names
from asif_lance.encoders.precision import split_precision
from asif_lance.encoders.timm_import import import_timm
from asif_lance.encoders.weights import (
    IMAGE_PREFIX,
    OPEN_CLIP_PREFIX,
    TEXT_PREFIX,
    TRANSFORMERS_PREFIX,
    hub_library,
    kept_folder,
    local_folder,
)
from asif_lance.errors import EncoderUnavailableError, suggest

#: The libraries of each side, by what names begin with.
LIBRARIES = {
    "image": (IMAGE_PREFIX, TRANSFORMERS_PREFIX, OPEN_CLIP_PREFIX),
    "text": (TEXT_PREFIX, OPEN_CLIP_PREFIX),
}

_HUB = ("hf-hub:", "hf_hub:")


def spell_encoder(side: str, name: str) -> str:
    """The spelling of an encoder's name that databases keep.

    Args:
        side: `image` or `text`.
        name: as somebody wrote it, maybe with `+bfloat16`.

    Raises:
        EncoderUnavailableError: nothing on this side is called so.
    """
    plain, precision = split_precision(name)
    if plain in registered_names(side) or _has_library(side, plain):
        return name
    return _find_library(side, plain) + precision


def _has_library(side: str, name: str) -> bool:
    return any(name.startswith(p) and name != p for p in LIBRARIES[side])


def _find_library(side: str, name: str) -> str:
    folder = local_folder(name) or (Path(name).resolve() if name and Path(name).is_dir() else None)
    if folder is not None:
        return f"{_library_of_folder(side, folder)}{folder}"
    repository = name
    for prefix in _HUB:
        repository = repository.removeprefix(prefix)
    owner, slash, model = repository.partition("/")
    of_another_side = any(repository.startswith(p) for own in LIBRARIES.values() for p in own)
    if slash and owner and model and not (of_another_side and name == repository):
        return _find_repository(side, name, repository)
    if not slash and name and side == "text":
        return TEXT_PREFIX + name
    if not slash and name and name == repository:
        return _find_timm(name)
    raise _unknown(side, name)


def _library_of_folder(side: str, folder: Path) -> str:
    """The library that made a folder, by its files.

    Raises:
        EncoderUnavailableError: none of this side's did.
    """
    library = _recognise(side, folder)
    if library is None:
        names = " or ".join(prefix.rstrip("/") for prefix in LIBRARIES[side])
        raise EncoderUnavailableError(f"{folder} holds no {side} encoder of {names}")
    return library


def _recognise(side: str, folder: Path) -> str | None:
    if (folder / "open_clip_config.json").is_file():
        return OPEN_CLIP_PREFIX
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    if side == "text":
        known = (folder / "modules.json").is_file() or "model_type" in config
        return TEXT_PREFIX if known else None
    if "architecture" in config:
        return IMAGE_PREFIX
    return TRANSFORMERS_PREFIX if "model_type" in config else None


def _find_repository(side: str, name: str, repository: str) -> str:
    kept = kept_folder(repository)
    library = (_recognise(side, kept) if kept else None) or hub_library(repository)
    if library is None and side == "text":
        library = TEXT_PREFIX
    if library == TRANSFORMERS_PREFIX and side == "text":
        library = TEXT_PREFIX  # which makes sentences of its words
    if library is None and not downloads_allowed():
        raise _unknown(side, name, hint=f"; with {HOW} the hub is asked whose it is")
    if library not in LIBRARIES[side]:
        raise _unknown(side, name)
    return repository if repository.startswith(library) else library + repository


def _find_timm(name: str) -> str:
    import_timm()
    import timm

    if timm.is_model(name):
        return IMAGE_PREFIX + name
    raise _unknown("image", name, (IMAGE_PREFIX + known for known in timm.list_models()))


def _unknown(
    side: str, name: str, known: Iterable[str] = (), *, hint: str = ""
) -> EncoderUnavailableError:
    spellings = [f"{prefix}NAME" for prefix in LIBRARIES[side]]
    like = suggest(IMAGE_PREFIX + name, [*known, *registered_names(side)])
    return EncoderUnavailableError(
        f"unknown {side} encoder {name!r}: name it {' or '.join(spellings)}, or a model's folder"
        + (like or hint)
    )
