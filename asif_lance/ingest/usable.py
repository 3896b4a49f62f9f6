"""Which rows of a source can be used, with absolute paths, and the first reason against others.

Nothing is fetched: rows that have only an address are counted, and the way out is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import polars as pl

from asif_lance.errors import SourceError, printable
from asif_lance.ingest.batches import is_text
from asif_lance.ingest.columns import (
    PAIR_COLUMNS,
    REMOTE,
    SCHEMA,
    VECTORS,
    ColumnNames,
    SourceBatch,
)
from asif_lance.ingest.vector_columns import valid_vectors
from asif_lance.object_files import exists, is_folder, is_object, list_folder, open_place, resolve
from asif_lance.progress import note
from asif_lance.records import Reject

MAX_CAPTION = 100_000

_ADDRESS_ONLY = "remote images are not fetched"
_WAY_OUT = "a downloader such as img2dataset makes files of them that are read here"

# So many rows in a row that are only addresses are refused as one: millions would fill memory.
_STRETCH = 1000

# Where pictures are sought that lie in no usual place: names to try, and folders to try them in.
_TRIED_NAMES, _TRIED_FOLDERS = 20, 200


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read.

    Attributes:
        batch_size: most rows per batch; the reader's own choice if None.
        known: what the columns may be called.
        image_root: where relative image paths begin; found if None.
        looks_beside: whether pictures may also lie in a folder beside the manifest's own.
    """

    batch_size: int | None = None
    known: ColumnNames = PAIR_COLUMNS
    image_root: Path | None = None
    looks_beside: bool = False


def usable_batches(
    batches: Iterator[SourceBatch],
    path: Path,
    name: str,
    reading: Reading,
    lead: SourceBatch | None = None,
) -> Iterator[SourceBatch]:
    """The batches with image paths made absolute, and without the rows that cannot be used.

    Args:
        batches: of a source.
        path: of the source.
        name: of the source.
        reading: how it is read.
        lead: the source's first batch, where these are some of its later ones.

    Raises:
        SourceError: while iterating: it cannot be read, has no rows, or only rows with an address.
    """
    rows = addresses = 0
    try:
        first = next(batches, None)
        if first is None:
            raise SourceError(f"{name} has no {reading.known.rows}")
        telling = (lead or first).frame
        root = _image_root(path, telling["image_path"], reading)
        required, clean = _required_columns(telling), _clean_columns(root)
        for batch in chain([first], batches):
            frame = batch.frame.with_columns(**clean)
            usable = _split(frame, batch.rejects, required, name, reading.known.text)
            rows += len(frame) + len(batch.rejects)
            addresses += (found := _count_addresses(usable))
            yield _as_one(usable) if found == len(frame) >= _STRETCH else usable
    except OSError as error:
        raise SourceError(f"{name} cannot be read ({error.strerror})") from error
    if addresses and addresses == rows and lead is None:
        only = "its only row is an address" if rows == 1 else f"all {rows:,} rows are addresses"
        raise SourceError(f"{name}: {only}, and nothing is fetched: {_WAY_OUT}")
    if addresses:
        note(f"{name}: {addresses:,} of {rows:,} rows are addresses only: {_WAY_OUT}")


def _count_addresses(batch: SourceBatch) -> int:
    return sum(reject.reason == _ADDRESS_ONLY for reject in batch.rejects)


def _as_one(batch: SourceBatch) -> SourceBatch:
    first, last = batch.rejects[0], batch.rejects[-1]
    item = f"{first.item} to {last.item}"
    return SourceBatch(batch.frame, [Reject(first.source, item, _ADDRESS_ONLY)])


def _required_columns(first: pl.DataFrame) -> list[str]:
    """Columns that every row must have: those vectors that the first batch has, and captions.

    Only a source that brings its text vectors may have no captions at all.
    """
    vectors = [side for side in VECTORS if first[side].count()]
    bare = "text_vector" in vectors and not first["caption"].count()
    return vectors if bare else [*vectors, "caption"]


def _image_root(path: Path, paths: pl.Series, reading: Reading) -> Path:
    """The folder where relative image paths begin.

    By default the manifest's own folder or the one beside it that has its name, whichever has one
    of the pictures; else a folder inside (or beside, see `Reading`) that has most of the first.

    Raises:
        SourceError: the folder's name is not UTF-8, so paths below it cannot be stored; or the
            chosen one is no folder.
    """
    relative = paths.drop_nulls().filter(~paths.drop_nulls().str.contains(f"^/|{REMOTE}"))
    own = resolve(path) if is_folder(path) else resolve(path).parent
    if reading.image_root is not None:
        root = resolve(open_place(reading.image_root))
        if not is_folder(root):
            raise SourceError(f"the image root {printable(str(root))} is no folder")
    else:
        roots = [own, own / path.stem]
        found = (root for name in relative for root in roots if exists(root / name))
        root = next(found, None) or _find_root(own, path, relative, reading) or own
    if len(relative) and not is_text(str(root)):
        raise SourceError(f"{printable(str(root))} is no UTF-8 name: rename the folder")
    return root


def _find_root(own: Path, path: Path, relative: pl.Series, reading: Reading) -> Path | None:
    """A folder nearby that has most of the first pictures; which one it is, is told."""
    names = relative.unique(maintain_order=True).head(_TRIED_NAMES).to_list()
    places = [own, own.parent] if reading.looks_beside else [own]
    folders = chain.from_iterable(_folders_below(place) for place in places if names)
    for folder in islice(folders, _TRIED_FOLDERS):
        if 2 * sum(exists(folder / name) for name in names) > len(names):
            shown = os.path.relpath(str(folder), str(own))
            note(f"{printable(path.name)}: its pictures are in {printable(shown)}")
            return folder
    return None


def _folders_below(place: Path) -> Iterator[Path]:
    """The folders in a place, then those inside these, by name."""
    try:
        children, _ = list_folder(place)
    except OSError:
        return
    visible = [child for child in children if not child.name.startswith(".")]
    yield from visible
    for child in visible:
        try:
            yield from list_folder(child)[0]
        except OSError:
            continue


def _clean_columns(root: Path) -> dict[str, pl.Expr]:
    """Absolute image paths, bare captions; what is remote keeps its address, but has no path.

    In an object store, what lies under the root is no more remote than that.
    """
    given, below = pl.col("image_path").replace("", None), f"{str(root).rstrip('/')}/"
    inside = given.str.starts_with(below) & is_object(root)
    remote = given.str.contains(REMOTE) & ~given.str.starts_with("file://") & ~inside
    local = given.str.strip_prefix("file://")
    absolute = (
        pl.when(local.str.starts_with("/") | inside).then(local).otherwise(pl.lit(below) + local)
    )
    return {
        "image_path": pl.when(~remote).then(absolute),
        "image_uri": pl.coalesce("image_uri", pl.when(remote).then(given).otherwise(absolute)),
        "caption": pl.col("caption").str.strip_chars(),
        "pair_id": pl.col("pair_id").replace("", None),
        "row_id": pl.coalesce("row_id", "pair_id").replace("", None),
    }


def _split(
    frame: pl.DataFrame, rejects: list[Reject], required: list[str], name: str, text: str
) -> SourceBatch:
    """Usable rows, and the others with the first reason against each.

    Vectors of a side come with all usable rows or with none.
    """
    given = [side for side in VECTORS if side in required or frame[side].count()]
    faults = {f"\0{side}": valid_vectors(frame[side])[1] for side in given}
    captions = [_caption_fault(text)] if "caption" in required else []
    reason = pl.coalesce(*captions, *map(pl.col, faults), _image_fault(frame))
    checked = frame.with_columns(**faults).with_columns(reason.alias("\0reason"))
    if checked["\0reason"].count():
        bad = checked.filter(pl.col("\0reason").is_not_null()).select("item", "\0reason")
        rejects = rejects + [Reject(name, item, why) for item, why in bad.iter_rows()]
        checked = checked.filter(pl.col("\0reason").is_null())
    return SourceBatch(
        checked.select(SCHEMA.keys()).with_columns(pl.col("caption").fill_null("")), rejects
    )


def _caption_fault(text: str) -> pl.Expr:
    caption = pl.col("caption")
    return (
        pl.when(caption.is_null())
        .then(pl.lit(f"missing {text}"))
        .when(caption == "")
        .then(pl.lit(f"empty {text}"))
        .when(caption.str.contains("\0", literal=True))
        .then(pl.lit(f"{text} holds a NUL character"))
        .when(caption.str.len_chars() > MAX_CAPTION)
        .then(
            pl.format(
                f"{text} too long ({{}} characters, at most {{}})",
                caption.str.len_chars(),
                pl.lit(MAX_CAPTION),
            )
        )
    )


def _image_fault(frame: pl.DataFrame) -> pl.Expr:
    absent = pl.all_horizontal(pl.col("image_path", "image_bytes", "image_vector").is_null())
    if not frame.select(absent.any()).item():
        return pl.lit(None, pl.String)
    remote = pl.col("image_uri").str.contains(REMOTE)
    # What downloaders note of a picture that they could not have.
    status, error = (
        pl.col("attributes").str.json_path_match(f"$.{key}") for key in ("status", "error_message")
    )
    failed = status.is_not_null() & (status != "success")
    return (
        pl.when(absent & failed)
        .then(pl.format("not downloaded ({})", pl.coalesce(error, status)))
        .when(absent & remote)
        .then(pl.lit(_ADDRESS_ONLY))
        .when(absent)
        .then(pl.lit("missing image"))
    )
