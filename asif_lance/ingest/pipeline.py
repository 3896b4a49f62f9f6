"""Sources × encoders → store: every item becomes a pair or a rejection with its reason.

Batches flow through four steps, each of which may refuse items: read, identify (hash the picture,
name the pair), encode what has no vector yet, store in chunks. The model version appears when all
of it is done; an ingest that was killed is resumed by running it again, since pairs that are in
the table already are passed over.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from asif_lance.encoders import encode_images, sha256_of
from asif_lance.errors import ImageError
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.sources import read_source
from asif_lance.ingest.vector_columns import as_matrix, unit_float16, valid_vectors
from asif_lance.records import Float16Array, Float32Array, Int64Array, ModelVersion, Reject

#: Rows per commit, and so per fragment: forgetting one pair rewrites one fragment.
CHUNK_ROWS = 10_000

#: Threads that hash pictures: reading dominates, and it releases the interpreter lock.
HASHERS = 4

#: What is kept of an item besides its caption and vectors.
STORED = ("pair_id", "image_uri", "image_sha256", "source", "license", "attributes")

Picture = Path | bytes
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to ingest.

    Attributes:
        format: `folder`, `csv`, `tsv`, `jsonl` or `parquet`; told from the names when None.
        image_encoder: `timm/NAME`; None is the database's own, or the packaged default.
        text_encoder: `sentence-transformers/NAME`; None likewise.
        license: for pairs that name none of their own.
        source: likewise; by default the name of the file or folder they come from.
        message: kept with the model version.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: pictures encoded at once.
    """

    format: str | None = None
    image_encoder: str | None = None
    text_encoder: str | None = None
    license: str | None = None
    source: str | None = None
    message: str = ""
    device: str = "auto"
    batch_size: int = 32


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of the items of one ingest.

    Attributes:
        added: pairs that are new in the table.
        already_there: items whose pair the table had before.
        rejects: refused items with their reasons.
        version: the model version that was made; None when nothing was added.
    """

    added: int
    already_there: int
    rejects: tuple[Reject, ...]
    version: ModelVersion | None

    def write_rejects(self, path: Path) -> None:
        """Write the refused items as CSV: source, item, reason."""
        columns = ("source", "item", "reason")
        rows = {c: [getattr(r, c) for r in self.rejects] for c in columns}
        pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String)).write_csv(path)


def ingest_sources(
    uri: str | Path,
    sources: Sequence[str | Path],
    options: IngestOptions | None = None,
    *,
    progress: Progress | None = None,
) -> IngestReport:
    """Add every usable item of some sources to a database, which is made when missing.

    Args:
        uri: the database.
        sources: folders or files, see `asif_lance.sources`.
        options: how.
        progress: called with the number of items done since the last call.

    Raises:
        SourceError: a source cannot be read at all.
        EncoderMismatchError: the database was filled by other encoders.
        EncoderUnavailableError: an encoder cannot be had.
        StorageError: the disk refused; what was committed stays, running again resumes.
    """
    return _Ingest(str(uri), options or IngestOptions(), progress or (lambda _: None)).run(sources)


@dataclass(frozen=True, slots=True)
class _Ready:
    """Pairs that only wait to be stored: metadata rows and both (n, d) float16 matrices."""

    frame: pl.DataFrame
    image: Float16Array
    text: Float16Array


class _Ingest:
    """One run: the database with its encoders, and the counts."""

    def __init__(self, uri: str, options: IngestOptions, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.target = Destination(
            uri, options.image_encoder, options.text_encoder, device=options.device
        )
        self.location = ""
        self.rejects: list[Reject] = []
        self.seen: set[str] = set()
        self.added = self.already_there = 0

    def run(self, sources: Sequence[str | Path]) -> IngestReport:
        waiting: list[_Ready] = []
        for ready in self._ready(sources):
            waiting.append(ready)
            if sum(len(r.frame) for r in waiting) >= CHUNK_ROWS:
                self._commit(waiting)
                waiting = []
        self._commit(waiting)
        return self._finish(sources)

    def _ready(self, sources: Sequence[str | Path]) -> Iterator[_Ready]:
        for source in sources:
            self.location = str(source)
            for batch in read_source(source, format=self.options.format):
                self._refuse(batch.rejects)
                frame = self._fresh(self._identified(self._checked(batch.frame)))
                if len(frame):
                    yield self._encoded(frame)

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose brought vectors, if any, can be used."""
        for side in ("image", "text"):
            column = frame[f"{side}_vector"]
            if column.null_count() < len(column):
                dimension = self.target.dimension(side) or len(column.drop_nulls()[0])
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
        return frame.with_columns(
            pair_id=pl.Series(_pair_ids(frame), dtype=pl.String),
            license=pl.coalesce("license", pl.lit(self.options.license, pl.String)),
            source=pl.coalesce("source", pl.lit(self.options.source or _name(self.location))),
        )

    def _fresh(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose pair is new to this run and to the table."""
        repeats: list[str | None] = []
        for pair_id in frame["pair_id"]:
            repeats.append("duplicate of an earlier item" if pair_id in self.seen else None)
            self.seen.add(pair_id)
        frame = self._keep(frame, repeats)
        known = self.target.existing(frame["pair_id"].to_list())
        fresh = frame.filter(~pl.col("pair_id").is_in(list(known)))
        self._count_known(len(frame) - len(fresh))
        return fresh

    def _encoded(self, frame: pl.DataFrame) -> _Ready:
        """Encode what came without a vector; pictures that cannot be decoded are refused."""
        images, faults = self._image_vectors(frame)
        usable = np.array([fault is None for fault in faults], dtype=bool)
        frame = self._keep(frame, faults)
        return _Ready(frame, unit_float16(images[usable]), unit_float16(self._text_vectors(frame)))

    def _image_vectors(self, frame: pl.DataFrame) -> tuple[Float32Array, list[str | None]]:
        vectors, missing = _brought(frame, "image_vector")
        faults: list[str | None] = [None] * len(frame)
        if not len(missing):
            return vectors, faults
        encoder = self.target.image_encoder
        vectors = _sized(vectors, len(frame), encoder.pin.dimension)
        pictures = [p for p in _pictures(frame) if p is not None]
        at = iter(missing)
        for batch in encode_images(encoder, pictures, batch_size=self.options.batch_size):
            for row, i in zip(batch.rows, at, strict=False):
                if isinstance(row, ImageError):
                    faults[i] = row.reason
                else:
                    vectors[i] = batch.vectors[row]
            self.progress(len(batch.vectors))
        return vectors, faults

    def _text_vectors(self, frame: pl.DataFrame) -> Float32Array:
        vectors, missing = _brought(frame, "text_vector")
        if len(missing):
            encoder = self.target.text_encoder
            vectors = _sized(vectors, len(frame), encoder.pin.dimension)
            captions = frame["caption"].gather(missing).to_list()
            vectors[missing] = encoder.encode(captions)
        return vectors

    def _commit(self, waiting: Sequence[_Ready]) -> None:
        frames = [r.frame for r in waiting if len(r.frame)]
        if not frames:
            return
        image = np.concatenate([r.image for r in waiting])
        text = np.concatenate([r.text for r in waiting])
        store = self.target.store_for(image.shape[1], text.shape[1])
        rows = _pairs_table(pl.concat(frames, how="diagonal"), image, text)
        added = store.add(rows)
        self.added += added
        self._count_known(len(rows) - added)  # another writer was faster

    def _finish(self, sources: Sequence[str | Path]) -> IngestReport:
        store, version = self.target.store, None
        if store is not None:
            message = self.options.message or ", ".join(_name(s) for s in sources)
            version = store.publish(command="ingest", message=message)
            if self.rejects:
                store.add_rejects(uuid.uuid4().hex[:12], self.rejects)
        return IngestReport(self.added, self.already_there, tuple(self.rejects), version)

    def _keep(self, frame: pl.DataFrame, faults: Sequence[str | None]) -> pl.DataFrame:
        """The rows without a fault; the others become rejects."""
        refused = zip(frame["item"], faults, strict=True)
        self._refuse([Reject(self.location, item, why) for item, why in refused if why])
        return frame.filter(pl.Series([why is None for why in faults], dtype=pl.Boolean))

    def _refuse(self, rejects: Sequence[Reject]) -> None:
        self.rejects += rejects
        self.progress(len(rejects))

    def _count_known(self, count: int) -> None:
        self.already_there += count
        self.progress(count)


def _name(source: str | Path) -> str:
    """What a source is called where nobody gave it a name: its own, in characters that print."""
    return Path(source).absolute().name.encode("utf-8", "backslashreplace").decode()


def _pictures(frame: pl.DataFrame) -> list[Picture | None]:
    """The picture of every row that has to be encoded: its bytes or its path."""
    needed = frame["image_vector"].is_null()
    return [
        (data if data is not None else Path(path)) if need else None
        for need, data, path in zip(needed, frame["image_bytes"], frame["image_path"], strict=True)
    ]


def _hashes(pictures: Sequence[Picture | None]) -> list[str | ImageError | None]:
    """Each picture's sha256, or what is wrong with its file; None where there is no picture."""
    with ThreadPoolExecutor(HASHERS) as pool:
        found = pool.map(_hash_or_fault, (p for p in pictures if p is not None))
        return [None if p is None else next(found) for p in pictures]


def _hash_or_fault(picture: Picture) -> str | ImageError:
    try:
        return sha256_of(picture)
    except ImageError as error:
        return error


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


def _brought(frame: pl.DataFrame, name: str) -> tuple[Float32Array, Int64Array]:
    """The (n, d) vectors that came along, and the rows that have none (zeros there)."""
    missing = np.flatnonzero(frame[name].is_null().to_numpy())
    present = frame[name].drop_nulls()
    if not len(present):
        return np.zeros((len(frame), 0), np.float32), missing
    vectors = np.zeros((len(frame), len(present[0])), np.float32)
    vectors[frame[name].is_not_null().to_numpy()] = as_matrix(present, vectors.shape[1])
    return vectors, missing


def _sized(vectors: Float32Array, rows: int, dimension: int) -> Float32Array:
    """Room for an encoder's vectors; brought ones were checked to have the same dimension."""
    return vectors if vectors.shape[1] else np.zeros((rows, dimension), np.float32)


def _pairs_table(frame: pl.DataFrame, image: Float16Array, text: Float16Array) -> pa.Table:
    """Rows as the store takes them; it fills in what it knows better (types, time)."""
    rows = frame.select(pl.col("caption").fill_null(""), *STORED).to_arrow()
    rows = rows.append_column("image_vector", _vectors_column(image))
    return rows.append_column("text_vector", _vectors_column(text))


def _vectors_column(matrix: Float16Array) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
