r"""Files of class names: text with a class per line, or JSON.

A line is one class, and its own name: `bird`. What follows a colon and a blank is a list of names
if it has a comma: `vehicle: car, ship`, or `vehicle: car,` for one. Any other colon belongs to the
label (`Star Wars: A New Hope`), unless every line begins with the number of its class: `0: bird`.
Quotes around a label or a name are taken off, and a backslash before `:`, `,`, `"`, `#`, `-` or `[`
makes it part of the text. `# …` is a comment; `- ` before every line is a list and means nothing.
"""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from asif_lance.errors import InputError, printable

# The line a class is on (0 in JSON), its label, and its names.
_Class: TypeAlias = tuple[int, str, tuple[str, ...]]

_SHOWN = 80  # characters

_QUOTED = r'"(?:[^"\\]|\\.)*"|\'[^\']*\''
_PLAIN = r"(?:\\.|[^:\\]|:(?!\s|$)|\\$)*?"
_LABEL_AND_NAMES = re.compile(rf"(?P<label>{_QUOTED}|{_PLAIN}):(?:\s(?P<names>.*))?")
_NAME = re.compile(rf"\s*+(?P<name>(?:{_QUOTED})\s*+|(?:\\.|[^,\\]|\\$)*+)(?:,|$)")
_WHOLE_QUOTED = re.compile(_QUOTED)
_ESCAPE = re.compile(r'\\([:,"#\[-])')
_LINE_END = re.compile(r"\r\n|\r|\n")
_SKIPPED = re.compile(r"#+(\s.*)?|---|")
_LIST_MARK = re.compile(r"[-*]\s+")
_NUMBERED = re.compile(r"\d+\s*:\s")


def read_class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Labels and the names that stand for them, in order.

    A JSON list of labels, or an object of labels with a name or a list of names each; or text, as
    the module says.

    Raises:
        InputError: unreadable, not UTF-8 text, a label given twice, no names, or what is not
            understood; the message names the line.
    """
    shown = printable(str(path))
    try:
        text = _decode(path.read_bytes(), shown)
    except OSError as error:
        raise InputError(f"{shown} cannot be read ({error.strerror})") from error
    if text.lstrip()[:1] in ("[", "{"):
        classes = _json_classes(text, shown)
    else:
        classes = _line_classes(text, shown)
    names: dict[str, tuple[str, ...]] = {}
    for number, label, own in classes:
        at = f"{shown}, line {number}" if number else shown
        if not label.strip():
            raise InputError(f"{at}: there is no label before the colon")
        if label in names:
            raise InputError(f"{at}: label {_quote(label)} is given twice")
        if not own or not all(name.strip() for name in own):
            raise InputError(f"{at}: label {_quote(label)} has an empty name after the colon")
        if len(set(own)) < len(own):
            raise InputError(f"{at}: label {_quote(label)} has a name twice")
        names[label] = own
    if not names:
        raise InputError(f"{shown} has no labels: give at least one")
    return names


def split_labels(text: str) -> list[str]:
    """The labels of a text: one a line, if there are several; else by commas, as a row of CSV.

    So quotes keep a comma in a label: `"oak, old",birch`. Blanks around labels are no part of them.

    Raises:
        InputError: a quote that is not closed, or that ends inside a label.
    """
    if "\n" in text:
        return [line.strip() for line in text.splitlines()]
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except csv.Error as error:
        told = "a quote is not closed, or ends within a label"
        raise InputError(f"labels {_quote(text)}: {told}") from error
    return [label.strip() for label in row]


def describe_class_names(names: Mapping[str, Sequence[str]]) -> str | None:
    """How labels that do not stand for themselves, or have a colon, were understood; else None."""
    others = [(label, own) for label, own in names.items() if tuple(own) != (label,)]
    titles = [label for label, own in names.items() if tuple(own) == (label,) and ": " in label]
    told = []
    if others:
        label, own = others[0]
        told.append(f"{len(others)} under other names: {label!r} is {', '.join(own)}")
    if titles:
        told.append(f"{len(titles)} with a colon of their own: {titles[0]!r}")
    return f"{len(names)} labels, {'; '.join(told)}" if told else None


def _decode(content: bytes, shown: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{shown} is not UTF-8 text but UTF-16: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{shown} is not UTF-8 text (line {line}): save it as UTF-8") from None


def _line_classes(text: str, shown: str) -> list[_Class]:
    numbered = ((i, line.strip()) for i, line in enumerate(_LINE_END.split(text), 1))
    lines = _without_marks([x for x in numbered if not _SKIPPED.fullmatch(x[1])], shown)
    for i, line in lines:
        if fault := _line_fault(line):
            raise InputError(f"{shown}, line {i}: {fault}")
    are_numbered = all(_NUMBERED.match(line) for _, line in lines)
    classes = [(i, *_read_line(line, are_numbered)) for i, line in lines]
    if len(lines) == 1 and "," in lines[0][1] and classes[0][1] == lines[0][1]:
        i, line = lines[0]
        wrong = f"{_quote(line)} is one label: write a label per line, or quotes around this one"
        raise InputError(f"{shown}, line {i}: {wrong}")
    return classes


def _without_marks(lines: list[tuple[int, str]], shown: str) -> list[tuple[int, str]]:
    """The lines without the dashes of a list."""
    marks = [_LIST_MARK.match(line) for _, line in lines]
    if not any(marks):
        return lines
    for (i, line), mark in zip(lines, marks, strict=True):
        if not mark:
            wrong = f"{_quote(line)} has no dash before it, as other lines have"
            raise InputError(f"{shown}, line {i}: {wrong}")
    return [(i, line[mark.end() :]) for (i, line), mark in zip(lines, marks, strict=True) if mark]


def _line_fault(line: str) -> str | None:
    """Why it is not clear what a line means; None if it is."""
    label, names, given = _parts(line)
    pieces = [label, *names]
    if any(unicodedata.category(c) == "Cc" for c in re.sub(r"(?<=[:,])\s+", " ", line)):
        return f"{_quote(line)} has a control character or a tab inside: names follow a colon"
    if line.startswith("#"):
        return f"{_quote(line)} is not clear: '# …' is a comment, '\\#…' a label"
    if any(piece.startswith('"') and piece.count('"') % 2 for piece in pieces):
        return f"{_quote(line)} has a quote that is not closed"
    if given == "" and not _is_quoted(line):
        return f"{_quote(line)} has no name after its colon: write 'vehicle: car, ship'"
    if given is not None and given.startswith("[") and given.endswith("]"):
        return f"{_quote(line)}: write names without brackets: 'vehicle: car, ship'"
    return None


def _parts(line: str) -> tuple[str, tuple[str, ...], str | None]:
    """What stands before a colon and the names after it, as written, and these as one text.

    Where there is no colon, there are no names, and None instead of their text.
    """
    found = None if _is_quoted(line) else _LABEL_AND_NAMES.fullmatch(line)
    if found is None:
        return line, (), None
    given = (found["names"] or "").strip()
    names = [match["name"].strip() for match in _NAME.finditer(given)]
    while names and not names[-1]:  # after a comma at the end
        names.pop()
    return found["label"].strip(), tuple(names), given


def _read_line(line: str, are_numbered: bool) -> tuple[str, tuple[str, ...]]:
    label, names, given = _parts(line)
    is_list = given is not None and (len(names) > 1 or given.endswith(",") or not names)
    if not is_list and not (are_numbered and names):
        return _bare(line), (_bare(line),)
    return _bare(label), tuple(map(_bare, names))


def _quote(text: str) -> str:
    """A line or a label as messages show it."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def _is_quoted(text: str) -> bool:
    return _WHOLE_QUOTED.fullmatch(text) is not None


def _bare(text: str) -> str:
    """A label or a name without quotes around it and without backslashes."""
    return _ESCAPE.sub(r"\1", text[1:-1] if _is_quoted(text) else text).strip()


def _json_classes(text: str, shown: str) -> list[_Class]:
    try:
        found = json.loads(text, object_pairs_hook=_JsonObject)
    except RecursionError:
        raise InputError(f"{shown}: its JSON is nested too deeply for labels") from None
    except ValueError as error:
        raise InputError(f"{shown} begins like JSON but is not: {error}") from None
    pairs = found if isinstance(found, _JsonObject) else [(label, label) for label in found]
    classes = []
    for label, given in pairs:
        own = (given,) if isinstance(given, str) else given
        is_list = isinstance(own, list | tuple) and not isinstance(own, _JsonObject)
        if not isinstance(label, str) or not is_list:
            raise InputError(f"{shown}: {label!r} is no label with a name or a list of names")
        if not all(isinstance(name, str) for name in own) or not label.strip():
            raise InputError(f"{shown}: label {label!r} has a name that is not text")
        classes.append((0, label.strip(), tuple(name.strip() for name in own)))
    return classes


class _JsonObject(list[tuple[str, Any]]):
    """A JSON object's keys and values in order, so that a key that comes twice shows."""
