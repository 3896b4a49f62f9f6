"""Named sets of prompt templates (`template_sets.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files

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
