"""Named sets of prompt templates (`template_sets.toml`), and files of class names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from asif_lance.errors import InputError

#: Name -> templates, each with `{}` where the class name goes.
TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = {
    name: tuple(templates)
    for name, templates in tomllib.loads(
        files(__package__).joinpath("template_sets.toml").read_text(encoding="utf-8")
    ).items()
}

#: One template: what is used when nothing else is asked for.
SINGLE = TEMPLATE_SETS["single"]


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
