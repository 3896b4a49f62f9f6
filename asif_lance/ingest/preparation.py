"""Sources × encoders → pairs that only wait to be stored.

Batches go through three steps, each of which may refuse items: read, identify (hash the picture,
name the pair), encode what has no vector yet. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa

from asif_lance.encoders import EncoderThreads, TextEncoder, check_vectors, map_ahead
from asif_lance.errors import EmptySourceError, ImageError, SourceError, printable
from asif_lance.ingest.caption_groups import (
    MAX_CAPTIONS,
    NO_CAPTIONS,
    CaptionGroups,
    unit_mean,
)
from asif_lance.ingest.columns import PAIR_COLUMNS, SourceBatch
from asif_lance.ingest.conflicts import columns_to_compare, find_changed
from asif_lance.ingest.destination import Destination
from asif_lance.ingest.hygiene import Finding, Hygiene
from asif_lance.ingest.naming import (
    PictureReader,
    SeenIds,
    pair_ids,
    pictures_to_encode,
    slices_in_memory,
)
from asif_lance.ingest.options import IngestOptions
from asif_lance.ingest.picture_pieces import PictureEncoder, Piece
from asif_lance.ingest.sources import Source, read_source, source_name
from asif_lance.ingest.vector_columns import given_vectors, unit_float16, wrong_sizes
from asif_lance.progress import Advance, listen
from asif_lance.records import Float16Array, Float32Array, Reject

#: What is kept of an item besides its caption and vectors.
STORED = ("pair_id", "image_uri", "image_sha256", "source", "license", "attributes", "role")

_TOO_MANY = f"more than {MAX_CAPTIONS:,} captions of one picture"
_CANCELLED = "the captions' vectors cancel each other out"

_SHOWN_IDS = 3
_PIECES_AHEAD = 2  # whose captions are encoded while others wait to be stored

# Rows, both sides' vectors, and how many captions are longer than the encoder reads.
_BothSides: TypeAlias = tuple[pl.DataFrame, Float16Array, Float32Array, int]


class Preparation:
    """Makes pairs of the items of sources, and gathers why others are none.

    Attributes:
        rejects: the items refused so far.
        already_there: items so far whose pair is known.
        changed: items so far whose pair is known with other content.
        changed_ids: the first few of their ids.
        cut_captions: captions so far that are longer than the encoder reads.
        apart: pictures so far that came again, apart from their other captions.
    """

    def __init__(
        self,
        destination: Destination,
        options: IngestOptions,
        *,
        skip_known: bool = False,
        progress: Advance | None = None,
        alone: bool = True,
    ) -> None:
        """Prepare pairs for a database.

        Args:
            destination: has the encoders, knows its pairs, and says which dimensions fit.
            options: how.
            skip_known: pass over what is in the database; with `on_conflict="update"` only where
                it has the same content.
            progress: called with the number of items done since the last call.
            alone: whether a single source is all there is; otherwise it is refused as one item
                where it cannot be read.
        """
        self.rejects: list[Reject] = []
        self.already_there = 0
        self.changed = 0
        self.changed_ids: list[str] = []
        self.cut_captions = 0
        self.apart = 0
        self._destination, self._options = destination, options
        self._skip_known, self._progress = skip_known, progress or (lambda count: None)
        self._location, self._alone = "", alone
        self._hygiene = Hygiene(options)
        self._seen = SeenIds()
        self._reader = PictureReader()
        self._given_sizes: dict[str, int] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the checks that are asked for have found so far."""
        return self._hygiene.findings

    def pass_over(self, ids: pl.Series) -> None:
        """Take items with these ids for duplicates of earlier ones that are read elsewhere."""
        self._seen.take_new(ids)

    @property
    def max_tokens(self) -> int | None:
        """How much of a caption the encoder reads, if one was needed and has a limit."""
        return self._destination.max_tokens

    def tables(self, sources: Sequence[Source]) -> Generator[pa.Table, None, None]:
        """New pairs as `PairStore.add` takes them: a source's batch, or a few that took encoding.

        Raises:
            SourceError: a source is not there, or the only one cannot be read. Where there are
                others, such a source is refused as one item.
            EncoderMismatchError, EncoderUnavailableError: an encoder cannot be had.
        """
        for pairs in self.encode(self.new_items(sources)):
            self._progress(len(pairs))
            yield pairs

    def encode(self, frames: Iterator[pl.DataFrame]) -> Iterator[pa.Table]:
        """What becomes of new items, a few at a time where they have to be encoded.

        Reading, and what the caller does with pairs, happens here; threads decode and encode
        meanwhile what comes next.
        """
        with EncoderThreads() as threads:
            pictures = PictureEncoder(self._destination, threads, self._options.batch_size)
            pieces = self._usable(pictures.pieces(frames))
            for rows, images, texts, cut in map_ahead(
                lambda piece: self._begin_texts(threads, *piece), pieces, _PIECES_AHEAD
            ):
                self.cut_captions += cut
                there = texts.any(axis=1)
                faults = pl.select(pl.when(~pl.Series(there)).then(pl.lit(_CANCELLED)))
                left = self._keep(rows, faults.to_series())
                pairs = _pairs_table(left, images[there], texts[there])
                yield self._not_forgotten(left, pairs)

    def _usable(self, pieces: Iterator[Piece]) -> Iterator[tuple[pl.DataFrame, Float16Array]]:
        for piece in pieces:
            rows = self._keep(piece.frame, pl.Series(piece.faults, dtype=pl.String))
            if len(rows):
                yield rows, piece.images

    def _begin_texts(
        self, threads: EncoderThreads, rows: pl.DataFrame, images: Float16Array
    ) -> Future[_BothSides]:
        texts = given_vectors(rows, "text_vector")
        if texts is None:
            encoder = self._destination.text_encoder
            return threads.compute(_encode_texts, encoder, rows, images)
        given: Future[_BothSides] = Future()
        given.set_result((rows, images, texts, 0))
        return given

    def new_items(self, sources: Sequence[Source]) -> Iterator[pl.DataFrame]:
        """Items that are to become pairs, at most a source's batch at a time; nothing is encoded.

        Raises:
            SourceError: as for `tables`.
        """
        return self._read(sources, self._new_items_of)

    def named_items(self, sources: Sequence[Source]) -> Iterator[pl.DataFrame]:
        """Items as they are before captions are joined, named, without duplicates or forgotten.

        Raises:
            SourceError: as for `tables`.
        """
        return map(self._remembered, self._read(sources, self._items_of))

    def _read(
        self,
        sources: Sequence[Source],
        read: Callable[[Iterator[SourceBatch]], Iterator[pl.DataFrame]],
    ) -> Iterator[pl.DataFrame]:
        options = self._options
        known = PAIR_COLUMNS.choose(options.columns)
        how = {"format": options.format, "known": known, "image_root": options.image_root}
        if self._hygiene.needs_survey():
            with listen(lambda what, done, total: None):  # notes come again
                self._hygiene.survey(lambda: _captions(sources, how))
        alone = len(sources) == 1 and self._alone
        opened = [(s, self._open(s, how, alone=alone)) for s in sources]
        for source, batches in opened:
            self._location = printable(str(source))
            try:
                yield from read(batches)
            except SourceError as error:
                if alone:
                    raise
                self._refuse([Reject(self._location, self._location, str(error))])

    def _open(self, source: Source, how: Any, *, alone: bool) -> Iterator[SourceBatch]:
        try:
            return read_source(source, **how)
        except EmptySourceError as error:
            if alone:
                raise
            name = printable(str(source))
            self._refuse([Reject(name, name, str(error))])
            return iter(())

    def _new_items_of(self, batches: Iterator[SourceBatch]) -> Iterator[pl.DataFrame]:
        for joined in self._joined(self._items_of(batches)):
            frame = self._keep(*self._hygiene.judge_pictures(joined))
            if self._skip_known and len(frame):
                frame = self._remembered(self._new(frame))
            if len(frame):
                yield frame

    def _items_of(self, batches: Iterator[SourceBatch]) -> Iterator[pl.DataFrame]:
        """Usable items, each named as a pair of its own."""
        for batch in batches:
            self._refuse(batch.rejects)
            located = batch.frame.with_columns(location=pl.lit(self._location))
            for frame in self._slices(self._checked(located)):
                yield self._distinct(self._admitted(self._identified(frame)))

    def _joined(self, frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The same with `captions`; those of one picture as one item, if that is asked for."""
        if self._options.captions == "each":
            yield from (frame.with_columns(NO_CAPTIONS) for frame in frames)
            return
        groups, apart = CaptionGroups(), self.apart
        for frame in groups.join(frames):
            self._refuse([Reject(self._location, item, _TOO_MANY) for item in groups.refused])
            self._progress(int((frame["captions"].list.len() - 1).sum() or 0))
            self.apart = apart + groups.apart
            yield frame

    def _checked(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose given vectors, if any, have the right length."""
        for side in ("image", "text"):
            column = frame[f"{side}_vector"]
            if column.count():
                first = self._given_sizes.setdefault(side, len(column[0]))
                dimension = self._destination.dimension(side) or first
                frame = self._keep(frame, wrong_sizes(column, dimension))
        return frame

    def _slices(self, frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """As many rows at once as their pictures leave room for, since these are read now."""
        pictures = pictures_to_encode(frame)
        if not pictures:
            yield frame
        for part in slices_in_memory(pictures):
            yield frame[part]

    def _identified(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Read the pictures that will be encoded, and name every pair that has no name."""
        frame = frame.with_columns(image_sha256=pl.lit(None, pl.String))
        if read := self._reader.read(pictures_to_encode(frame)):
            hashes = [digest for digest, _ in read]
            faults = [h.reason if isinstance(h, ImageError) else None for h in hashes]
            digests = [None if isinstance(h, ImageError) else h for h in hashes]
            frame = frame.with_columns(
                image_sha256=pl.Series(digests, dtype=pl.String),
                image_bytes=pl.Series([content for _, content in read], dtype=pl.Binary),
            )
            frame = self._keep(frame, pl.Series(faults, dtype=pl.String))
        source = self._options.source or source_name(self._location)
        stated = self._options.source is not None
        # What a table leaves empty says nothing.
        stated_texts = (pl.col(name).replace("", None) for name in ("license", "source"))
        return frame.with_columns(*stated_texts).with_columns(
            own_id=pl.col("pair_id").is_not_null(),
            own_source=pl.lit(stated) | pl.col("source").is_not_null(),
            pair_id=pair_ids(frame),
            license=pl.coalesce("license", pl.lit(self._options.license, pl.String)),
            source=pl.coalesce("source", pl.lit(source)),
            role=pl.lit(self._options.role, pl.String),
        )

    def _admitted(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows that no check refuses."""
        return self._keep(*self._hygiene.judge_items(frame))

    def _distinct(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose pair is no earlier item's."""
        new = pl.Series("new", self._seen.take_new(frame["pair_id"]))
        again = pl.when(~new).then(pl.lit("duplicate of an earlier item"))
        return self._keep(frame, pl.select(again).to_series())

    def _new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose pair is not known, and those whose pair is to be replaced."""
        ids = frame["pair_id"].to_arrow().cast(pa.string())
        found = self._destination.find_known(ids, columns_to_compare(frame))
        if not len(found.places):
            return frame
        known = frame[found.places]
        changed = find_changed(known, found.rows)
        self.changed += int(changed.sum())
        self.already_there += int((~changed).sum())
        differing = known["pair_id"].filter(pl.Series(changed))
        self.changed_ids += differing.head(_SHOWN_IDS - len(self.changed_ids)).to_list()
        update = self._options.on_conflict == "update"
        passed = found.places[~changed] if update else found.places
        self._progress(len(passed))
        left = np.ones(len(frame), bool)
        left[passed] = False
        return frame.filter(pl.Series(left))

    def _remembered(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows whose pair was not forgotten, as far as its id and its picture's hash tell."""
        forgotten = self._destination.forgotten
        if forgotten is None or not forgotten.knows_any():
            return frame
        # Besides names a waiver's reason needs the rest, which must not be quoted in it.
        columns = ("caption", *STORED) if self._options.waiver else ("pair_id", "image_sha256")
        found = forgotten.find_names(frame.select(columns).to_arrow())
        return frame.filter(self._refuse_forgotten(frame, found)) if found else frame

    def _not_forgotten(self, frame: pl.DataFrame, pairs: pa.Table) -> pa.Table:
        """The same of pairs with their vectors."""
        forgotten = self._destination.forgotten
        if forgotten is None or not forgotten.knows_any():
            return pairs
        found = forgotten.find_vectors(pairs)
        return pairs.filter(self._refuse_forgotten(frame, found).to_arrow()) if found else pairs

    def _refuse_forgotten(self, frame: pl.DataFrame, found: dict[int, str]) -> pl.Series:
        """(n,) which of n rows are not among those found."""
        where, items = frame["location"], frame["item"]
        self._refuse(
            [Reject(where[row], items[row], why, forgotten=True) for row, why in found.items()]
        )
        left = np.ones(len(frame), bool)
        left[list(found)] = False
        return pl.Series(left)

    def _keep(self, frame: pl.DataFrame, faults: pl.Series) -> pl.DataFrame:
        """The rows without a fault; the others become rejects."""
        if not faults.count():
            return frame
        refused = zip(frame["location"], frame["item"], faults, strict=True)
        self._refuse([Reject(where, item, why) for where, item, why in refused if why])
        return frame.filter(faults.is_null())

    def _refuse(self, rejects: Sequence[Reject]) -> None:
        self.rejects += rejects
        self._progress(len(rejects))


def _captions(sources: Sequence[Source], how: Any) -> Iterator[pl.Series]:
    """All captions; what is wrong with a source is told when its pairs are read."""
    for source in sources:
        with suppress(SourceError):
            for batch in read_source(source, **how):
                yield batch.frame["caption"]


def write_rejects(rejects: Sequence[Reject], path: Path) -> None:
    """Write refused items as CSV: source, item, reason."""
    columns = ("source", "item", "reason")
    rows = {c: [getattr(r, c) for r in rejects] for c in columns}
    pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String)).write_csv(path)


def _encode_texts(encoder: TextEncoder, rows: pl.DataFrame, images: Float16Array) -> _BothSides:
    lists = rows.select(pl.coalesce("captions", pl.concat_list("caption"))).to_series()
    captions = lists.explode().to_list()
    made = check_vectors(encoder.pin, encoder.encode(captions), len(captions))
    means = unit_mean(made, lists.list.len().cast(pl.Int64).to_numpy())
    return rows, images, means.astype(np.float32), encoder.count_cut(captions)


def _pairs_table(frame: pl.DataFrame, image: Float16Array, text: Float32Array) -> pa.Table:
    """Rows as the store takes them; it fills in what it knows better (types, time)."""
    rows = frame.select(pl.col("caption").fill_null(""), "captions", *STORED).to_arrow()
    rows = rows.append_column("image_vector", _vectors_column(image))
    return rows.append_column("text_vector", _vectors_column(unit_float16(text)))


def _vectors_column(matrix: Float16Array) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
