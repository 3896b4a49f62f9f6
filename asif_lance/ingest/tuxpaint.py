"""Demo data: Debian's Tux Paint stamps, about 540 pictures with one-line descriptions (GPL-2).

They are fetched with apt, without root rights, and never shipped. A folder of one's own does as
well: a sub-folder per class, captions in `.txt` files beside the pictures.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asif_lance.errors import SourceError

PACKAGE = "tuxpaint-stamps-default"
LICENSE = "GPL-2"

#: Folder -> class, for the folders whose pictures one word describes.
CLASSES = {
    "animals/mammals": "mammal",
    "animals/marsupials": "mammal",
    "animals/birds": "bird",
    "animals/insects": "insect",
    "animals/fish": "fish",
    "food/fruit": "fruit",
    "food/vegetables": "vegetable",
    "plants/flowers": "flower",
    "plants/trees": "tree",
    "clothes/hats": "hat",
    "household/dishes": "dish",
    "household/tools": "tool",
    "hobbies/music": "musical instrument",
    "town/houses": "house",
    "vehicles": "vehicle",
    "military/vehicles": "vehicle",
    "space/planets": "planet",
    "people/body_parts": "body part",
    "household/electronics": "electronic device",
}

HELD_OUT = 100

#: The class that the demo withdraws: a large one that no other folder knows something of
#: (mammals also live among the Easter and Halloween stamps).
WITHDRAWN = "bird"


@dataclass(frozen=True, slots=True)
class StampPicture:
    """One captioned picture; `label` is its class, or empty when its folder is no class."""

    path: Path
    caption: str
    folder: str
    label: str


@dataclass(frozen=True, slots=True)
class Split:
    """Pictures for the model and labelled ones held out to test it; `labels` are all classes."""

    anchors: tuple[StampPicture, ...]
    held_out: tuple[StampPicture, ...]
    labels: tuple[str, ...]


def fetch(target: Path) -> Path:
    """The folder of the stamps below `target`, downloaded there once.

    Raises:
        SourceError: apt cannot bring the package here.
    """
    target = target.absolute()  # the programs below run in it
    stamps = target / "usr/share/tuxpaint/stamps"
    if stamps.is_dir():
        return stamps
    target.mkdir(parents=True, exist_ok=True)
    archive = _download(target)
    fresh = target / "unpacking"
    shutil.rmtree(fresh, ignore_errors=True)
    _run(["dpkg-deb", "-x", str(archive), str(fresh)], target)
    archive.unlink()
    (fresh / "usr").rename(target / "usr")  # complete or absent, whatever interrupts
    shutil.rmtree(fresh)
    return stamps


def find_stamp_pictures(stamps: Path) -> list[StampPicture]:
    """All captioned pictures, without mirrored copies and the drawings of letters and coins."""
    found = []
    for path in sorted(stamps.rglob("*.png")):
        folder = path.parent.relative_to(stamps).as_posix()
        copied = path.stem.endswith(("_mirror", "_flip", "_mirror_flip"))
        if copied or folder.startswith("symbols") or not _caption(path):
            continue
        label = next((c for f, c in CLASSES.items() if f"{folder}/".startswith(f"{f}/")), "")
        found.append(StampPicture(path, _caption(path), folder, label))
    return found


def find_folder_pictures(root: Path) -> list[StampPicture]:
    """All captioned pictures of a folder whose first sub-folder is the class.

    Raises:
        SourceError: none there.
    """
    found = []
    for path in sorted(root.rglob("*")):
        folder = path.parent.relative_to(root)
        picture = path.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"} and folder.parts
        if picture and (caption := _caption(path)):
            found.append(StampPicture(path, caption, folder.as_posix(), folder.parts[0]))
    if not found:
        raise SourceError(
            f"no captioned pictures in {root}: expected CLASS/picture.jpg with CLASS/picture.txt"
        )
    return found


def split(pictures: Sequence[StampPicture], root: Path, *, salt: str = "") -> Split:
    """Hold out labelled pictures by a hash of their names: nobody chooses them.

    At most 100, and at most a third of the labelled ones. Another salt is another split.
    """

    def rank(picture: StampPicture) -> str:
        name = picture.path.relative_to(root).as_posix()
        return hashlib.sha256(f"{salt}{name}".encode()).hexdigest()

    labelled = sorted((p for p in pictures if p.label), key=rank)
    held_out = labelled[: min(HELD_OUT, len(labelled) // 3)]
    kept = [p for p in pictures if p not in set(held_out)]
    return Split(tuple(kept), tuple(held_out), _labels(pictures))


def write_manifest(pictures: Sequence[StampPicture], path: Path, license: str) -> None:
    """A CSV that `asif-lance ingest` reads: image, caption, source (the folder), license."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", "source", "license"])
        rows.writerows([str(p.path.resolve()), p.caption, p.folder, license] for p in pictures)


def copy_held_out(pictures: Sequence[StampPicture], folder: Path) -> None:
    """The held-out pictures as `folder/CLASS/NAME`, to classify and evaluate by hand."""
    shutil.rmtree(folder, ignore_errors=True)
    for picture in pictures:
        target = folder / picture.label
        target.mkdir(parents=True, exist_ok=True)
        copy = target / picture.path.name
        if copy.exists():  # folders of one class may each have a picture of this name
            copy = target / f"{picture.folder.replace('/', '-')}-{copy.name}"
        shutil.copy(picture.path, copy)


def _labels(pictures: Sequence[StampPicture]) -> tuple[str, ...]:
    """All classes; those of the stamps that have no picture are answers that can be wrong."""
    present = {p.label for p in pictures if p.label}
    known = tuple(dict.fromkeys(CLASSES.values()))
    return known if present <= set(known) else tuple(sorted(present))


def _caption(picture: Path) -> str:
    """The first line; further ones are translations."""
    text = picture.with_suffix(".txt")
    if not text.is_file():
        return ""
    lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[0].strip() if lines else ""


def _download(target: Path) -> Path:
    """Apt's own download, with a package list of our own where the machine has none yet."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SourceError(
            f"the demo's pictures are Debian's {PACKAGE}, and there is no apt here: "
            "use `asif-lance demo --pictures FOLDER` with CLASS/picture.jpg and CLASS/picture.txt"
        )
    if not _try(["apt-get", "download", PACKAGE], target):
        state = target / "apt"
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        own = ["-o", f"Dir::State::lists={state}/lists"]
        own += ["-o", f"Dir::Cache={state}/cache"]
        _run(["apt-get", *own, "update"], target)
        _run(["apt-get", *own, "download", PACKAGE], target)
        shutil.rmtree(state)
    return next(iter(target.glob(f"{PACKAGE}_*.deb")))


def _try(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0  # noqa: S603 - fixed programs, no shell


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - fixed programs, no shell
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SourceError(
            f"`{command[0]}` could not fetch {PACKAGE}: {why}; "
            "use `asif-lance demo --pictures FOLDER` with CLASS/picture.jpg and CLASS/picture.txt"
        )
