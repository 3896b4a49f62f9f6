"""Pairs of a model version as a source: what they keep stays, what is to be encoded is read again.

Readers of files give what people wrote; this one gives what a database has, so pairs come out with
the ids, captions, attributes and times that they went in with.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath

import lance
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.encoders import PIECE_BYTES, PictureSource, read_picture
from asif_lance.errors import ImageError, InputError, printable
from asif_lance.ingest.columns import REMOTE, SCHEMA, SourceBatch
from asif_lance.records import Reject

_ROWS = 1024
_MISSING = "missing file"


class StoredPictures:
    """Finds the pictures of stored pairs: kept in the database, or where they were read."""

    def __init__(self, image_root: Path | None) -> None:
        """Look in a folder first, if there is one: for the longest end of a recorded path.

        Raises:
            InputError: it is no folder.
        """
        if image_root is not None and not image_root.is_dir():
            raise InputError(f"the image root {printable(str(image_root))} is no folder")
        self._root = image_root

    def find(self, uri: str | None, digest: str | None, kept: bytes | None) -> PictureSource:
        """The picture's file, or its bytes.

        Args:
            uri: where it was: a file, or `ARCHIVE#MEMBER`.
            digest: hex SHA-256 of its bytes, if they were seen.
            kept: what the database has as its thumbnail; used only if it is the picture itself.

        Raises:
            ImageError: it cannot be had.
        """
        if kept is not None and digest == hashlib.sha256(kept).hexdigest():
            return kept
        if not uri:
            raise ImageError("its picture was never seen")
        if re.match(REMOTE, uri):
            raise ImageError("its picture is at an address, and nothing is fetched")
        if (file := self._find_file(uri)) is not None:
            return file
        archive, mark, inside = uri.rpartition("#")
        file = self._find_file(archive) if mark else None
        if file is None:
            raise ImageError(_MISSING)
        return read_picture(f"{file}#{inside}")

    def _find_file(self, name: str) -> Path | None:
        return next((place for place in self._places(name) if os.path.isfile(place)), None)  # noqa: PTH113

    def _places(self, name: str) -> Iterator[Path]:
        if self._root is not None:
            parts = PurePath(name).parts[1:]
            yield from (self._root.joinpath(*parts[i:]) for i in range(len(parts)))
        yield Path(name)


class StoredPairs:
    """Some pairs of one state of the pairs table, for `Preparation`; `keep` completes what it made.

    For one reading. Memory: a thousand pairs, and those that `Preparation` is busy with.

    Attributes:
        name: stands for a file's name.
        count: how many pairs.
        rejects: pairs whose file is another picture by now.
    """

    def __init__(
        self,
        name: str,
        state: lance.LanceDataset,
        ids: pa.Array,
        sides: Collection[str],
        pictures: StoredPictures,
    ) -> None:
        """Read pairs.

        Args:
            name: what they are called as a source.
            state: where they are.
            ids: which.
            sides: those to be encoded, `image` or `text`; the others' vectors stay.
            pictures: finds them.
        """
        self.name, self.count = name, len(ids)
        self.rejects: list[Reject] = []
        self._state, self._ids, self._pictures = state, ids, pictures
        self._encoded = tuple(f"{side}_vector" for side in sides)
        self._held: deque[pa.Table] = deque()

    def __str__(self) -> str:
        return self.name

    def batches(self) -> Iterator[SourceBatch]:
        """The pairs as items."""
        for rows in self._read():
            self._held.append(rows)
            frame = self._as_items(pl.DataFrame(pl.from_arrow(rows)))
            for batch in self._with_pictures(frame):
                whole = self._each_caption(batch) if "text_vector" in self._encoded else batch
                yield SourceBatch(whole.frame.select(SCHEMA.keys()), whole.rejects)

    def keep(self, made: pa.Table) -> pa.Table:
        """Encoded pairs with everything else as it is stored, in the order they were read.

        Those whose picture is known not to be the stored one become `rejects`.
        """
        held = pa.concat_tables(self._held)
        places = pc.index_in(made["pair_id"].combine_chunks(), held["pair_id"].combine_chunks())
        stored = held.take(places)
        while self._held and len(places) and len(self._held[0]) <= pc.min(places).as_py():
            places = pc.subtract(places, len(self._held.popleft()))
        digests = pc.coalesce(stored["image_sha256"], made["image_sha256"])
        for name, column in [("image_sha256", digests), *((n, made[n]) for n in self._encoded)]:
            stored = stored.set_column(stored.schema.get_field_index(name), name, column)
        differ = pc.fill_null(pc.not_equal(made["image_sha256"], digests), False)
        why = "its file is another picture by now"
        gone = stored["pair_id"].filter(differ).to_pylist()
        self.rejects += [Reject(self.name, pair_id, why) for pair_id in gone]
        return stored.filter(pc.invert(differ))

    def _read(self) -> Iterator[pa.Table]:
        scanner = self._state.scanner(columns=["pair_id"], with_row_address=True)
        found = [
            batch.filter(pc.is_in(batch["pair_id"], self._ids)) for batch in scanner.to_batches()
        ]
        addresses = pa.chunked_array([b["_rowaddr"] for b in found], pa.uint64()).combine_chunks()
        for start in range(0, len(addresses), _ROWS):
            names = self._state.schema.names
            rows = self._state._take_rows(addresses.slice(start, _ROWS), columns=names)
            if "captions" not in names:  # a state of before there were several
                rows = rows.append_column("captions", pa.nulls(len(rows), pa.list_(pa.string())))
            yield rows

    def _as_items(self, rows: pl.DataFrame) -> pl.DataFrame:
        vectors = [
            pl.lit(None, SCHEMA[name]).alias(name)
            if name in self._encoded
            else pl.col(name).cast(SCHEMA[name])
            for name in ("image_vector", "text_vector")
        ]
        nothing = [pl.lit(None, SCHEMA[name]).alias(name) for name in ("image_path", "image_bytes")]
        own = [pl.col("pair_id").alias(name) for name in ("item", "row_id")]
        return rows.with_columns(*own, *nothing, *vectors)

    def _with_pictures(self, frame: pl.DataFrame) -> Iterator[SourceBatch]:
        """The items with what has to be encoded, in parts that are not too large for memory."""
        if "image_vector" not in self._encoded:
            yield SourceBatch(frame, [])
            return
        asked = frame.select("image_uri", "image_sha256", "thumbnail").iter_rows()
        found: list[PictureSource | ImageError] = []
        start = size = 0
        for end, (uri, digest, kept) in enumerate(asked, 1):
            found.append(self._find(uri, digest, kept))
            size += len(found[-1]) if isinstance(found[-1], bytes) else 0
            if size > PIECE_BYTES or end == len(frame):
                yield self._attach(frame[start:end], found)
                found, start, size = [], end, 0

    def _find(
        self, uri: str | None, digest: str | None, kept: bytes | None
    ) -> PictureSource | ImageError:
        try:
            return self._pictures.find(uri, digest, kept)
        except ImageError as error:
            where = f" ({uri})" if error.reason == _MISSING else ""
            return ImageError(error.reason + where)

    def _attach(self, frame: pl.DataFrame, found: list[PictureSource | ImageError]) -> SourceBatch:
        paths = [str(one) if isinstance(one, Path) else None for one in found]
        contents = [one if isinstance(one, bytes) else None for one in found]
        faults = [one.reason if isinstance(one, ImageError) else None for one in found]
        frame = frame.with_columns(
            image_path=pl.Series(paths, dtype=pl.String),
            image_bytes=pl.Series(contents, dtype=pl.Binary),
        )
        return self._split(frame, pl.Series(faults, dtype=pl.String), [])

    def _split(self, frame: pl.DataFrame, faults: pl.Series, rejects: list[Reject]) -> SourceBatch:
        refused = zip(frame["item"], faults, strict=True)
        rejects = rejects + [Reject(self.name, item, why) for item, why in refused if why]
        return SourceBatch(frame.filter(faults.is_null()), rejects)

    def _each_caption(self, batch: SourceBatch) -> SourceBatch:
        """A row for each caption of a pair, to be joined again as `caption_groups` does."""
        empty = pl.when(pl.col("caption") == "").then(pl.lit("its caption is empty"))
        batch = self._split(batch.frame, batch.frame.select(empty).to_series(), batch.rejects)
        lists = pl.coalesce("captions", pl.concat_list("caption"))
        rows = batch.frame.with_columns(lists.alias("caption")).explode("caption")
        number = pl.int_range(pl.len()).over("row_id")
        # No other pair is called so: ids have no such character.
        further = pl.format("{}\0{}", "row_id", number)
        ids = pl.when(number > 0).then(further).otherwise("row_id")
        return SourceBatch(rows.with_columns(pair_id=ids), batch.rejects)
