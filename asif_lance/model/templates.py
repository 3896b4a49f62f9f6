"""Named sets of prompt templates (`template_sets.toml`), and files of class names."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from asif_lance.errors import InputError, printable

# Between a label and its names; `\\:` belongs to the label.
_COLON = re.compile(r"(?<!\\): ")

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
