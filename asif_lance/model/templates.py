"""Named sets of prompt templates, and files of class names.

The sets named after data sets are those of CLIP (Radford et al. 2021: `data/prompts.md` and the
ImageNet notebook in its repository, MIT license); `imagenet-7` is the notebook's short selection,
and `lit` that selection with the bare name added, as in LiT's code (Zhai et al. 2022, Table 11).
`general` is our own, for pictures of which nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from asif_lance.errors import InputError

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
    """Labels and the names that stand for them: a line is `label`, or `label: name, name`.

    Raises:
        InputError: not UTF-8 text, a label given twice, or a colon without names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    names: dict[str, tuple[str, ...]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        label, colon, rest = line.partition(": ")
        if label in names:
            raise InputError(f"{path}: label {label!r} is given twice")
        names[label] = tuple(name.strip() for name in rest.split(",")) if colon else (label,)
        if not all(names[label]):
            raise InputError(f"{path}: label {label!r} has an empty name after the colon")
    return names
