"""Which column of a source means what, and the columns that batches of every source have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from asif_lance.errors import SourceError
from asif_lance.records import Reject

# item: where in the source the pair is; image_path: an absolute path, or null; image_bytes: the
# encoded picture, if the source has it inside; image_uri: what a database remembers of the image;
# attributes: a JSON object of all columns that have no meaning here.
SCHEMA: dict[str, DataType | DataTypeClass] = {
    "item": pl.String,
    "pair_id": pl.String,
    "caption": pl.String,
    "image_path": pl.String,
    "image_bytes": pl.Binary,
    "image_uri": pl.String,
    "license": pl.String,
    "source": pl.String,
    "attributes": pl.String,
    "image_vector": pl.List(pl.Float32),
    "text_vector": pl.List(pl.Float32),
}
VECTORS = ("image_vector", "text_vector")

# Names people use, the first one present wins; compared in lower case.
_CAPTIONS = ("caption", "text", "title", "description", "sentence", "alt_text")
_IMAGES = (
    *("image", "image_path", "image_file", "file_name", "filename", "file", "filepath"),
    *("file_path", "path", "image_bytes", "image_url", "url", "image_uri", "uri"),
)


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Some consecutive items of a source.

    Attributes:
        frame: the usable ones, with the columns of `SCHEMA`.
        rejects: the others, each with its reason.
    """

    frame: pl.DataFrame
    rejects: list[Reject]


@dataclass(frozen=True, slots=True)
class Columns:
    """The manifest's own names of the columns that mean something; None where it has none."""

    caption: str | None
    image: str | None
    pair_id: str | None = None
    image_uri: str | None = None
    license: str | None = None
    source: str | None = None
    image_vector: str | None = None
    text_vector: str | None = None

    def others(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that mean nothing here."""
        known = {getattr(self, field.name) for field in fields(self)}
        return [name for name in names if name not in known]


def sniff_columns(location: str, names: Sequence[str]) -> Columns:
    """Find the meaningful columns by name.

    A caption may be missing where there are text vectors, an image where there are image vectors.

    Raises:
        SourceError: neither is there; the message lists the columns that are.
    """
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    found = {key: by_lower.get(key) for key in ("pair_id", "license", "source", *VECTORS)}
    caption, image = _first(by_lower, _CAPTIONS), _first(by_lower, _IMAGES)
    _require(location, names, "caption", _CAPTIONS, caption or found["text_vector"])
    _require(location, names, "image", _IMAGES, image or found["image_vector"])
    uri = by_lower.get("image_uri")
    found |= {"caption": caption, "image": image, "image_uri": None if uri == image else uri}
    return Columns(**found)


def _first(by_lower: dict[str, str], candidates: Sequence[str]) -> str | None:
    return next((by_lower[name] for name in candidates if name in by_lower), None)


def _require(
    location: str, names: Sequence[str], what: str, candidates: Sequence[str], found: str | None
) -> None:
    if found is None:
        here = ", ".join(names) or "none at all"
        known = ", ".join(candidates)
        raise SourceError(f"{location} has no {what} column ({known}) among: {here}")
