"""Which column of a source means what, and the columns that batches of every source have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from asif_lance.errors import InputError, SourceError
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
# How an address begins, as a regular expression.
REMOTE = "^[A-Za-z][A-Za-z0-9+.-]*://"
VECTORS = ("image_vector", "text_vector")


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What columns may be called, as `spelling` has it; the first name that is present wins.

    Attributes:
        caption: the text of a row: its caption or, in labelled pictures, its label.
        image: a picture's path, address or bytes.
        pair_id: a row's own name.
        image_vector, text_vector: embeddings.
        license, source: what is recorded with a row.
        text: what the text is called in reasons.
        rows: what the rows are called in reasons.
        several: whether a list of texts makes a row of each.
        required: which of these have to be there, since the user named them.
    """

    caption: tuple[str, ...]
    image: tuple[str, ...]
    pair_id: tuple[str, ...] = ("pair_id",)
    image_vector: tuple[str, ...] = ("image_vector",)
    text_vector: tuple[str, ...] = ("text_vector",)
    license: tuple[str, ...] = ("license",)
    source: tuple[str, ...] = ("source",)
    text: str = "caption"
    rows: str = "pairs"
    several: bool = True
    required: tuple[str, ...] = ()

    def choose(self, columns: Mapping[str, str]) -> ColumnNames:
        """The same where some columns are called as the user says.

        Args:
            columns: `caption`, `image`, `id`, `license`, `source`, `image_vector` or `text_vector`
                to the column's name.

        Raises:
            InputError: none of these can be chosen so.
        """
        for role in columns:
            if role not in CHOOSABLE:
                known = ", ".join(CHOOSABLE)
                raise InputError(f"no column is called {role!r} here: choose one of {known}")
        chosen = {CHOOSABLE[role]: (spelling(name),) for role, name in columns.items()}
        return replace(self, **chosen, required=tuple(chosen))  # type: ignore[arg-type]


#: What users may name the columns of, and the attribute of `ColumnNames` that it is.
CHOOSABLE = {
    "image": "image",
    "caption": "caption",
    "id": "pair_id",
    "license": "license",
    "source": "source",
    "image_vector": "image_vector",
    "text_vector": "text_vector",
}

IMAGE_NAMES = (
    *("image", "image_path", "image_file", "file_name", "filename", "file", "filepath"),
    *("file_path", "path", "image_bytes", "img", "img_path", "image_name", "jpg", "jpeg", "png"),
    *("webp", "image_url", "url", "image_uri", "uri"),
)
PAIR_COLUMNS = ColumnNames(
    caption=(
        *("caption", "text", "title", "description", "sentence", "alt_text", "txt"),
        *("captions", "texts", "sentences", "comment"),
    ),
    image=IMAGE_NAMES,
)
LABELLED_COLUMNS = ColumnNames(
    caption=("label",),
    image=IMAGE_NAMES,
    pair_id=("id",),
    image_vector=("vector",),
    text_vector=(),
    text="label",
    rows="rows",
    several=False,
)
_ADDRESSES = ("image_uri", "image_url", "url", "uri")


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

    @property
    def names(self) -> set[str]:
        """The names of the columns that mean something."""
        found = (getattr(self, field.name) for field in fields(self))
        return {name for name in found if name is not None}

    def others(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that mean nothing here."""
        known = self.names
        return [name for name in names if name not in known]


def spelling(name: str) -> str:
    """A column's name as it is looked up: `Image Path`, `image-path` and `image_path` are one."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def sniff_columns(
    location: str, names: Sequence[str], known: ColumnNames, contents: Collection[str] = ()
) -> Columns:
    """Find the meaningful columns by name.

    A caption may be missing where there are text vectors, an image where there are image vectors.

    Args:
        location: the source, for reasons.
        names: its columns.
        known: what they may be called.
        contents: those that hold pictures themselves; one of them is preferred to a path.

    Raises:
        SourceError: neither is there, or a name is given twice; the message lists the columns.
    """
    spellings = _spellings(location, names)

    def find(*candidates: str) -> str | None:
        present = [name for name in candidates if name in spellings]
        if present and len(spellings[present[0]]) > 1:
            twice = ", ".join(spellings[present[0]])
            raise SourceError(f"{location} has the column {present[0]!r} twice: {twice}")
        return spellings[present[0]][0] if present else None

    for role in known.required:
        candidates = getattr(known, role)
        _require(location, names, role, candidates, find(*candidates))
    caption, image = find(*known.caption), find(*known.image)
    inside = [name for name in known.image if set(spellings.get(name, ())) & set(contents)]
    image = find(*inside) or image
    vectors = {side: find(*getattr(known, side)) for side in VECTORS}
    pictures = (*known.image, *known.image_vector)
    _require(location, names, known.text, known.caption, caption or vectors["text_vector"])
    _require(location, names, "image", pictures, image or vectors["image_vector"])
    uri = find(*_ADDRESSES) if image in contents else find("image_uri")
    uri = None if uri == image else uri
    found = {name: find(*getattr(known, name)) for name in ("pair_id", "license", "source")}
    return Columns(caption=caption, image=image, image_uri=uri, **found, **vectors)


def _spellings(location: str, names: Sequence[str]) -> dict[str, list[str]]:
    """The columns by their names as `spelling` has them."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(spelling(name), []).append(name)
    for name in names:
        if name.strip() and names.count(name) > 1:
            raise SourceError(f"{location} has the column {name.strip()!r} twice")
    return spellings


def _require(
    location: str, names: Sequence[str], what: str, candidates: Sequence[str], found: str | None
) -> None:
    if found is None:
        here = ", ".join(names) or "none at all"
        if len(candidates) == 1:
            raise SourceError(f"{location} has no column {candidates[0]!r}; its columns: {here}")
        known = ", ".join(candidates)
        raise SourceError(f"{location} has no {what} column ({known}) among: {here}")
