"""Named sets of prompt templates, and files of class names.

The sets named after data sets are those of CLIP (Radford et al. 2021: `data/prompts.md` and the
ImageNet notebook in its repository, MIT license); `imagenet-7` is the notebook's short selection,
and `lit` that selection with the bare name added, as in LiT's code (Zhai et al. 2022, Table 11).
`general` is our own, for pictures of which nothing is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asif_lance.errors import InputError, printable

# Between a label and its names; `\\:` belongs to the label.
_COLON = re.compile(r"(?<!\\): ")

#: One template: what is used when nothing else is asked for.
SINGLE = ("a photo of a {}.",)

_GENERAL = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a close-up photo of a {}.",
    "a {}.",
    "{}",
)

_IMAGENET_80 = """\
a bad photo of a {}.
a photo of many {}.
a sculpture of a {}.
a photo of the hard to see {}.
a low resolution photo of the {}.
a rendering of a {}.
graffiti of a {}.
a bad photo of the {}.
a cropped photo of the {}.
a tattoo of a {}.
the embroidered {}.
a photo of a hard to see {}.
a bright photo of a {}.
a photo of a clean {}.
a photo of a dirty {}.
a dark photo of the {}.
a drawing of a {}.
a photo of my {}.
the plastic {}.
a photo of the cool {}.
a close-up photo of a {}.
a black and white photo of the {}.
a painting of the {}.
a painting of a {}.
a pixelated photo of the {}.
a sculpture of the {}.
a bright photo of the {}.
a cropped photo of a {}.
a plastic {}.
a photo of the dirty {}.
a jpeg corrupted photo of a {}.
a blurry photo of the {}.
a photo of the {}.
a good photo of the {}.
a rendering of the {}.
a {} in a video game.
a photo of one {}.
a doodle of a {}.
a close-up photo of the {}.
a photo of a {}.
the origami {}.
the {} in a video game.
a sketch of a {}.
a doodle of the {}.
a origami {}.
a low resolution photo of a {}.
the toy {}.
a rendition of the {}.
a photo of the clean {}.
a photo of a large {}.
a rendition of a {}.
a photo of a nice {}.
a photo of a weird {}.
a blurry photo of a {}.
a cartoon {}.
art of a {}.
a sketch of the {}.
a embroidered {}.
a pixelated photo of a {}.
itap of the {}.
a jpeg corrupted photo of the {}.
a good photo of a {}.
a plushie {}.
a photo of the nice {}.
a photo of the small {}.
a photo of the weird {}.
the cartoon {}.
art of the {}.
a drawing of the {}.
a photo of the large {}.
a black and white photo of a {}.
the plushie {}.
a dark photo of a {}.
itap of a {}.
graffiti of the {}.
a toy {}.
itap of my {}.
a photo of a cool {}.
a photo of a small {}.
a tattoo of the {}.
"""

_IMAGENET_7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

_CIFAR = tuple(
    template
    for article in ("a", "the")
    for template in (
        f"a photo of {article} {{}}.",
        f"a blurry photo of {article} {{}}.",
        f"a black and white photo of {article} {{}}.",
        f"a low contrast photo of {article} {{}}.",
        f"a high contrast photo of {article} {{}}.",
        f"a bad photo of {article} {{}}.",
        f"a good photo of {article} {{}}.",
        f"a photo of {article} small {{}}.",
        f"a photo of {article} big {{}}.",
    )
)

_EUROSAT = (
    "a centered satellite photo of {}.",
    "a centered satellite photo of a {}.",
    "a centered satellite photo of the {}.",
)

_RESISC45 = tuple(
    f"{view} of {article}{{}}."
    for article in ("", "a ", "the ")
    for view in (
        *("satellite imagery", "aerial imagery", "satellite photo", "aerial photo"),
        *("satellite view", "aerial view"),
    )
)

_TEXTURES = tuple(
    f"a photo of {article} {{}} {what}."
    for article in ("a", "the")
    for what in ("texture", "pattern", "thing", "object")
)

TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = {
    "single": SINGLE,
    "general": _GENERAL,
    "imagenet-80": tuple(_IMAGENET_80.splitlines()),
    "imagenet-7": _IMAGENET_7,
    "lit": (*_IMAGENET_7, "{}"),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "stl10": ("a photo of a {}.", "a photo of the {}."),
    "sun397": ("a photo of a {}.", "a photo of the {}."),
    "pets": ("a photo of a {}, a type of pet.",),
    "flowers102": ("a photo of a {}, a type of flower.",),
    "food101": ("a photo of {}, a type of food.",),
    "birdsnap": ("a photo of a {}, a type of bird.",),
    "aircraft": (
        "a photo of a {}, a type of aircraft.",
        "a photo of the {}, a type of aircraft.",
    ),
    "dtd": _TEXTURES,
    "eurosat": _EUROSAT,
    "resisc45": _RESISC45,
}


def template_set(name: str) -> tuple[str, ...]:
    """The templates of a named set.

    Raises:
        InputError: there is none of this name.
    """
    if name not in TEMPLATE_SETS:
        raise InputError(f"no template set {name!r}; there are: {', '.join(TEMPLATE_SETS)}")
    return TEMPLATE_SETS[name]


def read_class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Labels and the names that stand for them.

    A JSON list of labels, or an object of labels with a name or a list of names each; or text with
    a label per line, which stands for itself, or `label: name, name`. A colon that belongs to a
    label is written `\\:`. Where only a few lines have a colon, it is not clear what it means.

    Raises:
        InputError: not UTF-8 text, a label given twice, no names, or colons in a few lines only.
    """
    shown = printable(str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{shown} is not UTF-8 text") from None
    labels = _json_labels(text, shown) if text.lstrip()[:1] in ("[", "{") else _lines(text, shown)
    names: dict[str, tuple[str, ...]] = {}
    for label, own in labels:
        if label in names:
            raise InputError(f"{shown}: label {label!r} is given twice")
        if not own or not all(own):
            raise InputError(f"{shown}: label {label!r} has an empty name after the colon")
        names[label] = own
    return names


def describe_class_names(names: Mapping[str, Sequence[str]]) -> str | None:
    """How labels that do not stand for themselves were understood; None if all of them do."""
    others = [(label, own) for label, own in names.items() if tuple(own) != (label,)]
    if not others:
        return None
    label, own = others[0]
    return f"{len(names)} labels, {len(others)} under other names: {label!r} is {', '.join(own)}"


def _lines(text: str, shown: str) -> list[tuple[str, tuple[str, ...]]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    with_colon = [line for line in lines if _COLON.search(line)]
    if with_colon and 2 * len(with_colon) <= len(lines):
        raise InputError(
            f"{shown}: {len(with_colon)} of {len(lines)} lines have a colon, as in "
            f"{with_colon[0]!r}: write '\\:' if it belongs to the label; if names follow it, "
            "write most lines so ('bird: bird')"
        )
    return [_line(line) for line in lines]


def _line(line: str) -> tuple[str, tuple[str, ...]]:
    label, *rest = _COLON.split(line, maxsplit=1)
    own = tuple(name.strip() for name in rest[0].split(",")) if rest else (label,)
    return label.replace("\\:", ":"), tuple(name.replace("\\:", ":") for name in own)


def _json_labels(text: str, shown: str) -> list[tuple[str, tuple[str, ...]]]:
    try:
        found = json.loads(text, object_pairs_hook=_JsonObject)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown} begins like JSON but is not: {error}") from None
    pairs = found if isinstance(found, _JsonObject) else [(label, label) for label in found]
    labels = []
    for label, given in pairs:
        own = (given,) if isinstance(given, str) else given
        if not isinstance(label, str) or not isinstance(own, list | tuple):
            raise InputError(f"{shown}: {label!r} is no label with a name or a list of names")
        if not all(isinstance(name, str) for name in own) or not label.strip():
            raise InputError(f"{shown}: label {label!r} has a name that is not text")
        labels.append((label.strip(), tuple(name.strip() for name in own)))
    return labels


class _JsonObject(list[tuple[str, Any]]):
    """A JSON object's keys and values in order, so that a key that comes twice shows."""
