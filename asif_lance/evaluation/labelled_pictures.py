"""Pictures whose true classes are known: folders, manifests, or vectors with labels.

`FOLDER/CLASS/picture.jpg`; a CSV, TSV, JSON or Parquet file with an image and a `label` column, as
`ingest` reads them (images as paths, or as bytes in Parquet); or Parquet with `label` and `vector`,
which needs no encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from asif_lance.encoders import (
    ImageEncoder,
    LeftOut,
    PictureSource,
    encode_each,
    picture_name,
    read_bytes,
    sha256_of,
    tell_left_out,
    walk_pictures,
)
from asif_lance.errors import (
    DimensionError,
    ImageError,
    InputError,
    SourceError,
    format_count,
    printable,
)
from asif_lance.ingest import (
    LABELLED_COLUMNS,
    as_matrix,
    read_column_classes,
    read_source,
    sniff_format,
    valid_vectors,
)
from asif_lance.progress import track
from asif_lance.records import BoolArray, Float32Array, Int64Array, Reject

# Where there is a folder per class, what metadata say of captions does not matter.
#: Fewer labelled pictures than this calibrate nothing, as fewer pairs make no self-test.
LEAST_PICTURES = 20

_FOLDERS = ("folder", "imagefolder")


@dataclass(frozen=True, slots=True)
class Labelled:
    """m pictures and their true classes.

    Attributes:
        names: what results call each picture.
        truths: the class of each.
        images: the pictures; empty where there are only vectors.
        vectors: (m, d) float32 embeddings as the encoder or the user gave them; None before
            `encode_labelled`.
        digests: the sha256 of each picture, where they were read.
        classes_by_number: the names of all classes in the order of their numbers, where the file
            has numbers and names for them; otherwise empty.
    """

    names: tuple[str, ...]
    truths: tuple[str, ...]
    images: tuple[PictureSource, ...] = ()
    vectors: Float32Array | None = None
    digests: tuple[str, ...] = ()
    classes_by_number: tuple[str, ...] = ()

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
        from asif_lance.search import unit_queries  # imports torch

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

    @property
    def are_numbered(self) -> bool:
        """Whether the classes are bare numbers, so that prompts cannot say what they are."""
        return bool(self.truths) and all(truth.isdecimal() for truth in self.truths)

    def by_labels(self, labels: Collection[str]) -> Labelled:
        """The same with classes by their numbers, if these are what the labels are."""
        numbers = {name: str(i) for i, name in enumerate(self.classes_by_number)}
        found = [numbers.get(truth, truth) for truth in self.truths]
        numbered = not set(self.truths) <= set(labels) and set(found) <= set(labels)
        return replace(self, truths=tuple(found)) if numbered else self

    def take(self, chosen: Int64Array | BoolArray) -> Labelled:
        """Some of them, by position or mask."""
        at = np.arange(len(self.names))[chosen].tolist()
        return replace(
            self,
            names=tuple(self.names[i] for i in at),
            truths=tuple(self.truths[i] for i in at),
            images=tuple(self.images[i] for i in at) if self.images else (),
            vectors=None if self.vectors is None else self.vectors[at],
            digests=tuple(self.digests[i] for i in at) if self.digests else (),
        )


def read_labelled(location: str | Path, rejects: list[Reject] | None = None) -> Labelled:
    """Labelled pictures of a folder or file, not yet opened.

    Args:
        location: the folder or file.
        rejects: gathers rows and files that cannot be used; without it the first one raises.

    Raises:
        SourceError: nothing there, a format that is not read, no usable columns or rows; or one row
            that cannot be used and `rejects` was not given.
    """
    path, refused = Path(location), list[Reject]()
    format = sniff_format(path)
    if format is None:
        known = ".csv, .tsv, .json, .jsonl, .ndjson, .parquet, .pq"
        expected = f"expected a folder of CLASS/picture.jpg, or one of {known}"
        raise SourceError(f"{printable(str(path))}: {expected}")
    found = _folder(path, refused) if format in _FOLDERS else _file(path, format, refused)
    if refused and (rejects is None or not found.names):
        first = f"{refused[0].item}: {refused[0].reason}"
        raise SourceError(f"{printable(str(path))} has rows that cannot be used: {first}")
    if rejects is not None:
        rejects += refused
    return replace(found, truths=tuple(truth.strip() for truth in found.truths))


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
    files = [_PictureFile(image) for image in labelled.images]
    encoded = encode_each(load_encoder(), files)
    both = zip(labelled.names, encoded, strict=True)
    for name, vector in track("encode pictures", both, len(labelled.names)):
        usable.append(not isinstance(vector, ImageError))
        if not isinstance(vector, ImageError):
            vectors.append(vector)
        elif rejects is None:
            raise ImageError(f"{name}: {vector.reason}")
        else:
            rejects.append(Reject("evaluate", name, vector.reason))
    matrix = np.array(vectors, dtype=np.float32).reshape(-1, dimension)
    read = replace(labelled, digests=tuple(file.digest for file in files))
    return replace(read.take(np.array(usable, dtype=bool)), vectors=matrix)


class _PictureFile:
    """A picture that is read once, when an encoder comes to it.

    Attributes:
        digest: its sha256; empty before.
    """

    def __init__(self, image: PictureSource) -> None:
        self._image, self.digest = image, ""

    def __call__(self) -> bytes:
        content = read_bytes(self._image)
        self.digest = sha256_of(content)
        return content


def check_enough_pictures(count: int) -> None:
    """Pass a number of labelled pictures that can calibrate.

    Raises:
        InputError: fewer than 20.
    """
    if count < LEAST_PICTURES:
        raise InputError(
            f"{format_count(count, 'labelled picture is', 'labelled pictures are')} too few to "
            f"calibrate on: at least {LEAST_PICTURES}"
        )


def check_classes(truths: Collection[str], labels: Collection[str]) -> None:
    """Pass true classes that are all among the labels.

    Raises:
        InputError: one is not.
    """
    unknown = sorted(set(truths) - set(labels))
    if unknown:
        raise InputError(
            f"the class {unknown[0]!r} is not among the {format_count(len(labels), 'label')}"
        )


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
        raise InputError(
            f"{format_count(len(truths), 'picture is', 'pictures are')} too few to hold out "
            f"{share:.1%} of them"
        )
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


def _folder(folder: Path, refused: list[Reject]) -> Labelled:
    def refuse(path: Path, reason: str) -> None:
        refused.append(Reject("evaluate", picture_name(path), reason))

    found, left_out = [], LeftOut()
    paths = sorted(walk_pictures(folder, refuse, left_out))
    tell_left_out(folder, left_out)
    for path in paths:
        *classes, _ = path.relative_to(folder).parts
        if classes:
            found.append((path, printable(classes[0])))
        else:
            refuse(path, "not in a folder of its class")
    if not found:
        raise SourceError(f"no pictures in {printable(str(folder))}: expected CLASS/picture.jpg")
    used, truths = zip(*found, strict=True)
    return Labelled(tuple(map(picture_name, used)), truths, used)


def _file(path: Path, format: str, refused: list[Reject]) -> Labelled:
    frames = []
    for batch in read_source(path, known=LABELLED_COLUMNS):
        refused += (replace(reject, source="evaluate") for reject in batch.rejects)
        frames.append(batch.frame)
    frame = pl.concat(frames)
    classes = read_column_classes(path, LABELLED_COLUMNS) if format == "parquet" else ()
    if frame["image_vector"].count():
        return replace(_with_vectors(frame, refused), classes_by_number=classes)
    images = tuple(
        Path(given) if data is None else data
        for given, data in frame.select("image_path", "image_bytes").iter_rows()
    )
    names = [
        item if isinstance(image, bytes) else picture_name(image)
        for image, item in zip(images, frame["item"], strict=True)
    ]
    return Labelled(tuple(names), tuple(frame["caption"]), images, classes_by_number=classes)


def _with_vectors(frame: pl.DataFrame, refused: list[Reject]) -> Labelled:
    dimension = len(frame["image_vector"][0])
    valid, faults = valid_vectors(frame["image_vector"].alias("vector"), dimension)
    wrong = zip(frame["item"], faults, strict=True)
    refused += [Reject("evaluate", item, fault) for item, fault in wrong if fault]
    usable = frame.filter(valid)
    names = usable.select(pl.coalesce("pair_id", "item")).to_series()
    matrix = as_matrix(usable["image_vector"], dimension)
    return Labelled(tuple(names), tuple(usable["caption"]), vectors=matrix)
