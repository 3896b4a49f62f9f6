"""Sources × encoders → pairs that only wait to be stored.

Batches go through three steps, each of which may refuse items: read, identify (hash the picture,
name the pair), encode what has no vector yet. Nothing is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from asif_lance.encoders import PictureSource, encode_images, sha256_of
from asif_lance.errors import ImageError, SourceError, printable
from asif_lance.ingest.columns import SourceBatch
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.sources import Source, read_source, source_name
from asif_lance.ingest.vector_columns import given_vectors, unit_float16, valid_vectors
from asif_lance.records import Float16Array, Float32Array, Reject

#: Threads that hash pictures: reading dominates, and it releases the interpreter lock.
HASHING_THREADS = 4

#: What is kept of an item besides its caption and vectors.
STORED = ("pair_id", "image_uri", "image_sha256", "source", "license", "attributes")

Progress = Callable[[int], None]


class Preparation:
    """Makes pairs of the items of sources, and gathers why others are none.

    Attributes:
        rejects: the items refused so far.
        already_there: items so far whose pair is known.
    """

    def __init__(
        self,
        destination: Destination,
        options: IngestOptions,
        *,
        known: Callable[[list[str]], set[str]] = lambda pair_ids: set(),
        progress: Progress | None = None,
    ) -> None:
        """Prepare pairs for a database.

        Args:
            destination: has the encoders, and says which dimensions fit.
            options: how.
            known: which pairs of some ids are to be passed over.
            progress: called with the number of items done since the last call.
        """
        self.rejects: list[Reject] = []
        self.already_there = 0
        self._destination, self._options = destination, options
        self._known, self._progress = known, progress or (lambda count: None)
        self._location = ""
        self._pair_ids: set[str] = set()

    def tables(self, sources: Sequence[Source]) -> Iterator[pa.Table]:
        """New pairs, at most a source's batch at a time, as `PairStore.add` takes them.

        Raises:
            SourceError: a source is not there, or the only one cannot be read. Where there are
                others, such a source is refused as one item.
            EncoderMismatchError, EncoderUnavailableError: an encoder cannot be had.
        """
        opened = [(source, read_source(source, format=self._options.format)) for source in sources]
        for source, batches in opened:
            self._location = printable(str(source))
            try:
                yield from self._tables_of(batches)
            except SourceError as error:
                if len(opened) == 1:
                    raise
                self._refuse([Reject(self._location, self._location, str(error))])

    def _tables_of(self, batches: Iterator[SourceBatch]) -> Iterator[pa.Table]:
        for batch in batches:
            self._refuse(batch.rejects)
            frame = self._new(self._identified(self._checked(batch.frame)))
            if len(frame):
                frame, images = self._image_vectors(frame)
                if len(frame):
                    yield _pairs_table(frame, images, self._text_vectors(frame))

    def count_known(self, count: int) -> None:
        """Count further items whose pair is known."""
        self.already_there += count
        self._progress(count)

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose given vectors, if any, can be used."""
        for side in ("image", "text"):
            column = frame[f"{side}_vector"]
            if column.null_count() < len(column):
                dimension = self._destination.dimension(side) or len(column.drop_nulls()[0])
                _, faults = valid_vectors(column, dimension)
                frame = self._keep(frame, faults.to_list())
        return frame

    def _identified(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Hash the pictures that will be encoded, and name every pair that has no name."""
        hashes = _hashes(_pictures(frame))
        faults = [h.reason if isinstance(h, ImageError) else None for h in hashes]
        digests = [None if isinstance(h, ImageError) else h for h in hashes]
        frame = frame.with_columns(image_sha256=pl.Series(digests, dtype=pl.String))
        frame = self._keep(frame, faults)
        source = self._options.source or source_name(self._location)
        return frame.with_columns(
            pair_id=pl.Series(_pair_ids(frame), dtype=pl.String),
            license=pl.coalesce("license", pl.lit(self._options.license, pl.String)),
            source=pl.coalesce("source", pl.lit(source)),
        )

    def _new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose pair is neither an earlier item's nor a known one."""
        repeats: list[str | None] = []
        for pair_id in frame["pair_id"]:
            repeats.append("duplicate of an earlier item" if pair_id in self._pair_ids else None)
            self._pair_ids.add(pair_id)
        frame = self._keep(frame, repeats)
        known = self._known(frame["pair_id"].to_list())
        new = frame.filter(~pl.col("pair_id").is_in(list(known)))
        self.count_known(len(frame) - len(new))
        return new

    def _image_vectors(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, Float32Array]:
        """Usable rows and their (n, d) vectors; pictures that cannot be decoded are refused."""
        vectors, missing = given_vectors(frame, "image_vector")
        if not len(missing):
            return frame, vectors
        encoder = self._destination.image_encoder
        vectors = _sized(vectors, len(frame), encoder.pin.dimension)
        faults: list[str | None] = [None] * len(frame)
        pictures = [p for p in _pictures(frame) if p is not None]
        at = iter(missing)
        for batch in encode_images(encoder, pictures, batch_size=self._options.batch_size):
            for row, i in zip(batch.rows, at, strict=False):
                if isinstance(row, ImageError):
                    faults[i] = row.reason
                else:
                    vectors[i] = batch.vectors[row]
            self._progress(len(batch.vectors))
        usable = np.array([fault is None for fault in faults])
        return self._keep(frame, faults), vectors[usable]

    def _text_vectors(self, frame: pl.DataFrame) -> Float32Array:
        vectors, missing = given_vectors(frame, "text_vector")
        if len(missing):
            encoder = self._destination.text_encoder
            vectors = _sized(vectors, len(frame), encoder.pin.dimension)
            captions = frame["caption"].gather(missing).to_list()
            vectors[missing] = encoder.encode(captions)
        return vectors

    def _keep(self, frame: pl.DataFrame, faults: Sequence[str | None]) -> pl.DataFrame:
        """The rows without a fault; the others become rejects."""
        refused = zip(frame["item"], faults, strict=True)
        self._refuse([Reject(self._location, item, why) for item, why in refused if why])
        return frame.filter(pl.Series([why is None for why in faults], dtype=pl.Boolean))

    def _refuse(self, rejects: Sequence[Reject]) -> None:
        self.rejects += rejects
        self._progress(len(rejects))


def _pictures(frame: pl.DataFrame) -> list[PictureSource | None]:
    """The picture of every row that has to be encoded: its bytes or its path."""
    needed = frame["image_vector"].is_null()
    return [
        (data if data is not None else Path(path)) if need else None
        for need, data, path in zip(needed, frame["image_bytes"], frame["image_path"], strict=True)
    ]


def _hashes(pictures: Sequence[PictureSource | None]) -> list[str | ImageError | None]:
    """Each picture's sha256, or what is wrong with its file; None where there is no picture."""
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = pool.map(_hash_or_fault, (p for p in pictures if p is not None))
        return [None if p is None else next(found) for p in pictures]


def _hash_or_fault(picture: PictureSource) -> str | ImageError:
    try:
        return sha256_of(picture)
    except ImageError as error:
        missing = error.reason == "missing file"
        return ImageError(f"missing file ({printable(str(picture))})") if missing else error


def _pair_ids(frame: pl.DataFrame) -> list[str]:
    """The user's own id, or a hash of the picture (or its vectors) and the caption."""
    ids: list[str | None] = frame["pair_id"].to_list()
    unnamed = [i for i, own in enumerate(ids) if own is None]
    columns = frame.select("image_sha256", "caption", "image_vector", "text_vector")[unnamed]
    for i, row in zip(unnamed, columns.iter_rows(), strict=True):
        ids[i] = _hashed_id(*row)
    return [i for i in ids if i is not None]


def _hashed_id(image: str | None, caption: str | None, *vectors: list[float] | None) -> str:
    digest = hashlib.sha256((image or "").encode())
    for vector in vectors:
        digest.update(np.array(vector or [], dtype=np.float32).tobytes())
    digest.update(b"\0" + (caption or "").encode())
    return digest.hexdigest()[:32]


def _sized(vectors: Float32Array, rows: int, dimension: int) -> Float32Array:
    """Room for an encoder's vectors; given ones were checked to have the same dimension."""
    return vectors if vectors.shape[1] else np.zeros((rows, dimension), np.float32)


def _pairs_table(frame: pl.DataFrame, image: Float32Array, text: Float32Array) -> pa.Table:
    """Rows as the store takes them; it fills in what it knows better (types, time)."""
    rows = frame.select(pl.col("caption").fill_null(""), *STORED).to_arrow()
    rows = rows.append_column("image_vector", _vectors_column(unit_float16(image)))
    return rows.append_column("text_vector", _vectors_column(unit_float16(text)))


def _vectors_column(matrix: Float16Array) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
