"""What is said of an encoder by those who made it: its model card, package or timm's own table.

Read from the files that are here; no network is asked and no weights are loaded. A statement
counts only if it is about the very weights that made a database's vectors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from yaml import YAMLError  # type: ignore[import-untyped]  # comes with huggingface-hub

from asif_lance.encoders.precision import split_precision
from asif_lance.encoders.timm_import import import_timm
from asif_lance.encoders.weights import (
    IMAGE_PREFIX,
    OPEN_CLIP_PREFIX,
    PACKAGED_IMAGE,
    PACKAGED_TEXT,
    TEXT_PREFIX,
    TRANSFORMERS_PREFIX,
    file_digest,
    kept_folder,
    local_folder,
    package_folder,
    packaged_file,
    weights_digest,
)
from asif_lance.errors import EncoderUnavailableError
from asif_lance.records import BROUGHT, EncoderPin

_REVISION_DIGITS = 12


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """What is known of an encoder.

    Attributes:
        name: as pinned.
        revision: likewise; empty when unknown.
        dimension: length of its vectors.
        license: as its makers write it; empty if they do not state it.
        trained_on: data sets that they name; empty likewise.
        stated_by: where they say so; empty if nothing was found.
        remark: why nothing was found, or what is not about these weights.
    """

    name: str
    revision: str
    dimension: int
    license: str = ""
    trained_on: tuple[str, ...] = ()
    stated_by: str = ""
    remark: str = ""


def read_card(pin: EncoderPin) -> EncoderCard:
    """What the files on this machine say of an encoder; nothing if they are of other weights."""
    return EncoderCard(pin.name, pin.revision, pin.dimension, **_find_statements(pin))


def _find_statements(pin: EncoderPin) -> dict[str, Any]:
    """The last fields of a card."""
    name, _ = split_precision(pin.name)
    image, text = name.removeprefix(IMAGE_PREFIX), name.removeprefix(TEXT_PREFIX)
    try:
        if image in PACKAGED_IMAGE and image != name:
            return _of_packaged_image(pin, image)
        if text in PACKAGED_TEXT and text != name:
            module, package = PACKAGED_TEXT[text]
            folder = package_folder(module, package) / "model"
            return _of_folder(pin, folder, f"its model card, in the package {package}")
        if image != name:
            return _of_folder(pin, local_folder(image) or kept_folder(_timm_repository(image)))
        if text != name:
            repository = text if "/" in text else TEXT_PREFIX + text
            return _of_folder(pin, local_folder(text) or kept_folder(repository))
    except EncoderUnavailableError as error:
        return {"remark": str(error)}
    for prefix in (TRANSFORMERS_PREFIX, OPEN_CLIP_PREFIX):
        if name.startswith(prefix):
            own = name.removeprefix(prefix)
            return _of_folder(pin, local_folder(own) or kept_folder(own))
    if name == BROUGHT:
        return {"remark": "the vectors were brought: what made them is not known"}
    return {"remark": "an encoder of one's own, which has no model card"}


def _of_packaged_image(pin: EncoderPin, name: str) -> dict[str, Any]:
    module, package = PACKAGED_IMAGE[name]
    file = packaged_file(module, package)
    if pin.revision and file_digest(file)[:_REVISION_DIGITS] != pin.revision:
        return {"remark": f"the package {package} has other weights than this database used"}
    license = _package_license(package)
    known = _timm_config(name)
    timm_says = ", ".join(filter(None, [known.get("license"), known.get("tag")])) or "nothing"
    return {
        "license": license,
        "stated_by": f"the package {package}" if license else "",
        "remark": "the package does not say what the weights were trained on; of its own weights "
        f"for this network, which are another file, timm says: {timm_says}",
    }


def _of_folder(
    pin: EncoderPin, folder: Path | None, place: str = "its model card"
) -> dict[str, Any]:
    """What a model folder says, if it has the pinned weights."""
    if folder is None or not folder.is_dir():
        return {"remark": "its files are not on this machine"}
    if pin.revision and weights_digest(folder) != pin.revision:
        return {"remark": "its files on this machine have other weights than this database used"}
    remark = "" if pin.revision else "the database does not know which weights of this name it has"
    card, config = _read_readme(folder), _read_pretrained_config(folder)
    licenses = tuple(_texts(card.get("license_name") or card.get("license")))
    trained_on = tuple(_texts(card.get("datasets")))
    if licenses or trained_on:
        return _stated(licenses, trained_on, place, remark)
    licenses, trained_on = tuple(_texts(config.get("license"))), tuple(_texts(config.get("tag")))
    if licenses or trained_on:
        place = "its config.json, where timm's tag says what it was trained on"
        return _stated(licenses, trained_on, place, remark)
    return {"remark": "its files state neither"}


def _stated(
    licenses: tuple[str, ...], trained_on: tuple[str, ...], place: str, remark: str
) -> dict[str, Any]:
    license = ", ".join(licenses)
    return {"license": license, "trained_on": trained_on, "stated_by": place, "remark": remark}


def _package_license(name: str) -> str:
    """What a package states as its licence, in its metadata or at the head of its LICENSE file."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return ""
    keys = [key for key in ("License-Expression", "License") if key in found.metadata]
    stated = [found.metadata[key] for key in keys]
    return next((s for s in stated if s and s != "UNKNOWN"), _license_title(found))


def _license_title(found: Distribution) -> str:
    lines = (found.read_text("LICENSE") or "").splitlines()
    return next((line.strip() for line in lines if line.strip()), "")


def _timm_config(name: str) -> dict[str, Any]:
    """What timm's table says of its own weights for a network; empty if it has none."""
    import_timm()
    import timm

    known = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    return vars(known) if known else {}


def _timm_repository(name: str) -> str:
    return name if "/" in name else str(_timm_config(name).get("hf_hub_id") or name)


def _read_readme(folder: Path) -> dict[str, Any]:
    """The metadata of a model card; empty if there is none that can be read."""
    try:
        return metadata_load(folder / "README.md") or {}
    except (OSError, ValueError, YAMLError):
        return {}


def _read_pretrained_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    found = config.get("pretrained_cfg") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    """The texts of a card's field, which may be one, a list, or anything else."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one.strip():
            yield one.strip()
