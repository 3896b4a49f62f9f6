"""COCO captions: one JSON object with a list of images and a list of annotations.

The file is read twice, since either list may come first: memory follows the number of images.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import Entry, batch_entries
from asif_lance.ingest.columns import ColumnNames, SourceBatch, sniff_columns
from asif_lance.ingest.json_window import Window, list_rows
from asif_lance.ingest.manifest_rows import Manifest
from asif_lance.object_files import open_file
from asif_lance.progress import note
from asif_lance.records import Reject

_BEGINNING = re.compile(r'\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
_LISTS = re.compile(r'"(images|annotations)"\s*:\s*\[\s*[{\]]')

# The list that it is in, its number there, and the object or why there is none.
_Element: TypeAlias = tuple[str, int, dict[str, Any] | str]


def looks_like_coco(head: bytes) -> bool:
    """Whether a file that begins so has lists of images and annotations."""
    text = head.decode("utf-8-sig", "replace").lstrip()
    if not (_BEGINNING.match(text) and _LISTS.search(text)):
        return False
    try:
        first = json.loads(text.split("\n", 1)[0])
    except (ValueError, RecursionError):
        return True
    # An object per line may begin so too.
    return isinstance(first, dict) and {"images", "annotations"} <= first.keys()


def read_coco(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """A pair of each annotation; pictures lie in a folder inside or beside the file's own."""
    name = printable(str(path))
    images, refused = _read_images(path, name)
    yield from batch_entries(chain(refused, _entries(path, name, images, known)), batch_size)


class _Images:
    """The images of a file: their names and licenses by id."""

    def __init__(self) -> None:
        self.names: dict[int | str, str] = {}
        self.licenses: dict[int | str, Any] = {}
        self.license_names: dict[Any, str] = {}

    def add(self, image: dict[str, Any] | str) -> str | None:
        """Take an image in, or say why not."""
        if isinstance(image, str):
            return image
        key, name = image.get("id"), image.get("file_name")
        if not isinstance(key, int | str) or not isinstance(name, str) or not name:
            return "image without id or file_name"
        if key in self.names:
            return f"image id {printable(str(key))} is given twice"
        self.names[key] = name
        if isinstance(license := image.get("license"), int | str):
            self.licenses[key] = license
        return None

    def license_of(self, key: int | str) -> str | None:
        """The name of an image's license."""
        return self.license_names.get(self.licenses.get(key))


def _read_images(path: Path, name: str) -> tuple[_Images, list[Reject]]:
    images, refused = _Images(), []
    for where, number, value in _elements(path):
        if where == "images" and (fault := images.add(value)):
            refused.append(Reject(name, f"image {number}", fault))
        elif where == "licenses" and isinstance(value, dict):
            license = value.get("name") or value.get("url")
            if isinstance(key := value.get("id"), int | str) and isinstance(license, str):
                images.license_names[key] = license
    return images, refused


def _entries(path: Path, name: str, images: _Images, known: ColumnNames) -> Iterator[Entry]:
    manifest: Manifest | None = None
    captioned: set[int | str] = set()
    for where, number, value in _elements(path):
        item = f"annotation {number}"
        if where not in ("annotations", ""):
            continue
        if isinstance(value, str):
            yield Reject(name, item if where else "the file", value)
            continue
        if manifest is None:
            columns = [*value, "file_name", "license"]
            manifest = Manifest(name, sniff_columns(name, columns, known), known)
        key = value.get("image_id")
        if not isinstance(key, int | str) or key not in images.names:
            yield Reject(name, item, f"no image has the id {printable(str(key))}")
            continue
        captioned.add(key)
        row = {**value, "file_name": images.names[key], "license": images.license_of(key)}
        yield from manifest.entries(item, row)
    if without := len(images.names) - len(captioned):
        note(f"{name}: {without:,} of {len(images.names):,} images have no annotation")


def _elements(path: Path) -> Iterator[_Element]:
    """The elements of all lists in the object; the last one says so if it cannot be read on."""
    with open_file(path, encoding="utf-8-sig", errors="surrogateescape") as stream:
        window = Window(stream)
        if window.peek() != "{":
            raise SourceError(f"{printable(str(path))} is not one JSON object")
        window.skip()
        try:
            while window.peek() == '"':
                key, _, _ = window.take_value()
                _pass(window, ":")
                if window.peek() == "[":
                    if (yield from _list_elements(str(key), window)) < 0:
                        return
                else:
                    window.take_value()
                if window.peek() == ",":
                    window.skip()
            _pass(window, "}")
        except ValueError as error:
            yield "", 0, f"{error}; what follows is not read"


def _list_elements(key: str, window: Window) -> Any:
    rows = list_rows(window)
    while True:
        try:
            number, value = next(rows)
        except StopIteration as end:
            return end.value
        yield key, number, value


def _pass(window: Window, mark: str) -> None:
    if window.peek() != mark:
        raise ValueError(window.fault(f"expected {mark!r}"))
    window.skip()
