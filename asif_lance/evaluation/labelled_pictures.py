"""Pictures whose true classes are known: folders, manifests, or vectors with labels.

`FOLDER/CLASS/picture.jpg`; a CSV, TSV, JSONL or Parquet file with an image and a `label` column
(images as paths, or as bytes in Parquet); or Parquet with `label` and `vector`, which needs no
encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from asif_lance.encoders import SUFFIXES, ImageEncoder, PictureSource, encode_each, read_vectors
from asif_lance.errors import DimensionError, ImageError, InputError, SourceError
from asif_lance.records import BoolArray, Float32Array, Int64Array, Reject
from asif_lance.search import unit_queries

_IMAGES = ("image", "image_path", "file_name", "filename", "file", "path", "image_bytes")


@dataclass(frozen=True, slots=True)
class Labelled:
    """m pictures and their true classes.

    Attributes:
        names: what results call each picture.
        truths: the class of each.
        images: the pictures; empty where there are only vectors.
        vectors: (m, d) float32 embeddings as the encoder or the user gave them; None before
            `encode_labelled`.
    """

    names: tuple[str, ...]
    truths: tuple[str, ...]
    images: tuple[PictureSource, ...] = ()
    vectors: Float32Array | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct true classes, sorted."""
        return tuple(sorted(set(self.truths)))

    @property
    def queries(self) -> Float32Array:
        """The embeddings as they are searched, (m, d) float32 of unit length.

        Raises:
            InputError: the pictures are not encoded yet.
            InvalidVectorError: an embedding that cannot be compared.
        """
        return unit_queries(self.embeddings)

    @property
    def embeddings(self) -> Float32Array:
        """The embeddings as they came.

        Raises:
            InputError: the pictures are not encoded yet.
        """
        if self.vectors is None:
            raise InputError("the labelled pictures are not encoded yet")
        return self.vectors

    def take(self, chosen: Int64Array | BoolArray) -> Labelled:
        """Some of them, by position or mask."""
        at = np.arange(len(self.names))[chosen].tolist()
        return replace(
            self,
            names=tuple(self.names[i] for i in at),
            truths=tuple(self.truths[i] for i in at),
            images=tuple(self.images[i] for i in at) if self.images else (),
            vectors=None if self.vectors is None else self.vectors[at],
        )


def read_labelled(location: str | Path) -> Labelled:
    """Labelled pictures of a folder or file, not yet opened.

    Raises:
        SourceError: nothing there, a format that is not read, or no usable columns.
        InputError: vectors of different lengths.
    """
    path = Path(location)
    if path.is_dir():
        return _read_folder(path)
    frame = _read_table(path)
    by_lower = {name.strip().lower(): name for name in frame.columns}
    if "label" not in by_lower:
        raise SourceError(f"{path} has no column 'label'; its columns: {', '.join(frame.columns)}")
    if "vector" in by_lower:
        return _read_vectors(path, frame, by_lower["label"])
    image = next((by_lower[name] for name in _IMAGES if name in by_lower), None)
    if image is None:
        raise SourceError(
            f"{path} has no column 'image' or 'vector'; its columns: {', '.join(frame.columns)}"
        )
    return _read_manifest(path, frame.drop_nulls(by_lower["label"]), image, by_lower["label"])


def encode_labelled(
    labelled: Labelled,
    load_encoder: Callable[[], ImageEncoder],
    dimension: int,
    rejects: list[Reject] | None = None,
) -> Labelled:
    """The same with embeddings by an image encoder, less the pictures that are unusable.

    Args:
        labelled: from `read_labelled`.
        load_encoder: gives the encoder; not called where there are vectors already.
        dimension: of its vectors.
        rejects: gathers unusable pictures; without it the first one raises.

    Raises:
        ImageError: a picture cannot be used and `rejects` was not given.
        DimensionError: there are vectors, of another size.
    """
    if labelled.vectors is not None:
        if labelled.vectors.shape[1] != dimension:
            raise DimensionError("image vectors", dimension, labelled.vectors.shape[1])
        return labelled
    vectors: list[Float32Array] = []
    usable = []
    found = encode_each(load_encoder(), labelled.images)
    for name, vector in zip(labelled.names, found, strict=True):
        usable.append(not isinstance(vector, ImageError))
        if not isinstance(vector, ImageError):
            vectors.append(vector)
        elif rejects is None:
            raise ImageError(f"{name}: {vector.reason}")
        else:
            rejects.append(Reject("evaluate", name, vector.reason))
    matrix = np.array(vectors, dtype=np.float32).reshape(-1, dimension)
    return replace(labelled.take(np.array(usable, dtype=bool)), vectors=matrix)


def hold_out(labelled: Labelled, share: float, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Two parts at random, class by class; the second has about `share` of each class.

    Raises:
        InputError: `share` is not between 0 and 1, or one part would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"the held-out share must be between 0 and 1, got {share:g}")
    rng, truths = np.random.default_rng(seed), np.array(labelled.truths, dtype=object)
    held_out = np.zeros(len(truths), dtype=bool)
    for name in labelled.classes:
        members = rng.permutation(np.flatnonzero(truths == name))
        held_out[members[: round(share * len(members))]] = True
    if not held_out.any() or held_out.all():
        raise InputError(f"{len(truths)} pictures are too few to hold out {share:.0%} of them")
    return labelled.take(~held_out), labelled.take(held_out)


def draw_per_class(labelled: Labelled, count: int, rng: np.random.Generator) -> BoolArray:
    """(m,) mask of `count` pictures of each class at random, but of each all save one at most.

    Raises:
        InputError: no class has two pictures.
    """
    truths = np.array(labelled.truths, dtype=object)
    chosen = np.zeros(len(truths), dtype=bool)
    for name in labelled.classes:
        members = np.flatnonzero(truths == name)
        chosen[rng.permutation(members)[: min(count, len(members) - 1)]] = True
    if not chosen.any():
        raise InputError("no class has two pictures: one to add and one to test")
    return chosen


def _read_folder(folder: Path) -> Labelled:
    found = [
        (path, path.relative_to(folder).parts[0])
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and len(path.relative_to(folder).parts) > 1
    ]
    if not found:
        raise SourceError(f"no pictures in {folder}: expected CLASS/picture.jpg")
    paths, truths = zip(*found, strict=True)
    return Labelled(tuple(map(str, paths)), truths, paths)


_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".tsv": lambda path: pl.read_csv(path, infer_schema=False, separator="\t"),
    ".jsonl": pl.read_ndjson,
    ".ndjson": pl.read_ndjson,
    ".parquet": pl.read_parquet,
    ".pq": pl.read_parquet,
}


def _read_table(path: Path) -> pl.DataFrame:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise SourceError(f"{path}: expected a folder of CLASS/picture.jpg, or one of {known}")
    try:
        frame = reader(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    if not len(frame):
        raise SourceError(f"{path} has no rows")
    return frame


def _read_vectors(path: Path, frame: pl.DataFrame, label: str) -> Labelled:
    truths, vectors = read_vectors(path, key=label)
    has_id = "id" in frame.columns
    names = frame["id"].cast(pl.String).to_list() if has_id else _row_names(len(truths))
    return Labelled(tuple(names), tuple(truths), vectors=vectors)


def _read_manifest(path: Path, frame: pl.DataFrame, image: str, label: str) -> Labelled:
    images = [_picture_of(path, value) for value in frame[image].to_list()]
    rows = zip(images, _row_names(len(images)), strict=True)
    names = tuple(row if isinstance(item, bytes) else str(item) for item, row in rows)
    return Labelled(names, tuple(frame[label].cast(pl.String).to_list()), tuple(images))


def _picture_of(manifest: Path, value: Any) -> PictureSource:
    """A path, from the manifest's folder or the folder beside it of its name; or the bytes."""
    if isinstance(value, dict):  # `struct<bytes, path>`, as the datasets library writes it
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    beside = manifest.with_suffix("") / str(value or "")
    path = manifest.parent / str(value or "")
    return beside if beside.is_file() and not path.is_file() else path


def _row_names(count: int) -> Sequence[str]:
    return [f"row {i}" for i in range(1, count + 1)]
