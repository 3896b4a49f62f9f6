"""Several captions of one picture become one pair: neighbouring items of a source are joined.

Only neighbours are, so that memory does not grow with the source, and batches may end anywhere:
the last picture of a batch waits for the next one. A picture that comes again later, apart from its
other captions, is a pair of its own, as without joining.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from asif_lance.ingest.flags import join_flags
from asif_lance.ingest.naming import SeenIds
from asif_lance.ingest.vector_columns import given_vectors
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array

#: Captions of one picture that are joined; further ones are refused.
MAX_CAPTIONS = 1000

#: What items have as `captions` that are not joined.
NO_CAPTIONS = pl.lit(None, pl.List(pl.String)).alias("captions")

_ROW_NUMBER = r"#row \d+$"
# What items of one pair agree in, besides the vector of their picture.
_SAME = ("image_sha256", "image_path", "row_id", "license", "source", "\0uri")


class CaptionGroups:
    """Joins the items of a source that are captions of one picture, batch by batch.

    Attributes:
        refused: the items of the last batch that are too many captions of one picture.
        apart: pictures so far that came again, apart from captions that they could have joined.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.apart = 0
        self._pictures = SeenIds()
        self._waiting: pl.DataFrame | None = None

    def join(self, batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """The items of a source, those of one picture as one.

        It has the first one's id (`row_id` if it has one), address, attributes and item, all
        `captions` in order, and the mean of their unit vectors if vectors were given. What is
        flagged in one of them is flagged in the pair. Where a picture has one caption, `captions`
        is null.

        Args:
            batches: identified items, with or without vectors.
        """
        for frame in batches:
            yield self._count_apart(self._take(frame))
        self.refused = []
        if self._waiting is not None:
            yield self._count_apart(_merge(self._waiting, np.zeros(len(self._waiting), np.int64)))
            self._waiting = None

    def _count_apart(self, joined: pl.DataFrame) -> pl.DataFrame:
        picture = pl.coalesce("image_sha256", "image_uri")
        unnamed = joined.filter(pl.col("row_id").is_null() & picture.is_not_null())
        # Those of another license or source are never joined.
        whole = pl.concat_str(picture, "license", "source", separator="\0", ignore_nulls=True)
        pictures = unnamed.select(whole).to_series()
        self.apart += int((~self._pictures.take_new(pictures)).sum())
        return joined

    def _take(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The pictures that are complete; the last one waits for its next captions."""
        self.refused = []
        if not len(frame):
            return _merge(frame, np.zeros(0, np.int64))
        if self._waiting is not None:
            frame = pl.concat([self._waiting, frame])
        groups = np.cumsum(_begins(frame)) - 1
        places = np.arange(len(frame)) - np.flatnonzero(_begins_of(groups))[groups]
        many = pl.Series(places >= MAX_CAPTIONS)
        self.refused = frame["item"].filter(many).to_list()
        # A picture's bytes are needed once, and waiting should not hold many copies of them.
        content = pl.when(pl.Series(places == 0)).then(pl.col("image_bytes"))
        frame = frame.with_columns(image_bytes=content)
        last = pl.Series(groups == groups[-1])
        self._waiting = frame.filter(last & ~many)
        done = ~(last | many)
        return _merge(frame.filter(done), groups[done.to_numpy()])


def unit_mean(vectors: Float32Array, sizes: Int64Array) -> Float64Array:
    """Means of neighbouring vectors, each as long as every other.

    Args:
        vectors: (sum of sizes, d), none of length zero.
        sizes: (g,) how many belong together, at least one each.

    Returns:
        (g, d), of any length; a single vector is left as it is.
    """
    means = np.add.reduceat(_unit(vectors), np.cumsum(sizes) - sizes) / sizes[:, None]
    single = sizes == 1
    means[single] = vectors[(np.cumsum(sizes) - 1)[single]]
    return means


def _unit(vectors: Float32Array) -> Float64Array:
    exact = vectors.astype(np.float64)
    unit: Float64Array = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    return unit


def name_pictures(frame: pl.DataFrame) -> pl.Series:
    """(n,) what items are joined by: those that differ in it are never captions of one picture."""
    uri = pl.col("image_uri").str.replace(_ROW_NUMBER, "")
    named = frame.with_columns(uri.alias("\0uri")).select(pl.struct(_SAME).struct.json_encode())
    return named.to_series()


def _begins(frame: pl.DataFrame) -> BoolArray:
    """(n,) which items show another picture than the item before, or are another pair."""
    # An address that was made of the row's number says nothing of the picture.
    uri = pl.col("image_uri").str.replace(_ROW_NUMBER, "")
    compared = frame.with_columns(uri.alias("\0uri")).select(_SAME)
    differ = compared.select(pl.any_horizontal(pl.all().ne_missing(pl.all().shift())))
    begins: BoolArray = differ.to_series().to_numpy().copy()
    images = given_vectors(frame, "image_vector")
    if images is not None:
        begins[1:] |= np.any(images[1:] != images[:-1], axis=1)
    begins[0] = True
    return begins


def _begins_of(groups: Int64Array) -> BoolArray:
    return np.diff(groups, prepend=-1) > 0


def _merge(frame: pl.DataFrame, groups: Int64Array) -> pl.DataFrame:
    """One row for each group of neighbours."""
    first = _begins_of(groups)
    starts = np.flatnonzero(first)
    sizes = np.diff(starts, append=len(groups))
    rows = frame.filter(pl.Series(first, dtype=pl.Boolean))
    several = pl.Series(sizes > 1, dtype=pl.Boolean)
    if not several.any():
        return rows.with_columns(NO_CAPTIONS)
    captions = pl.Series("g", groups).to_frame().with_columns(frame["caption"].fill_null(""))
    lists = captions.group_by("g", maintain_order=True).agg("caption")["caption"]
    rows = rows.with_columns(
        captions=pl.when(several).then(lists),
        pair_id=pl.when(several).then(pl.coalesce("row_id", "pair_id")).otherwise("pair_id"),
        attributes=join_flags(frame["attributes"], sizes),
    )
    texts = given_vectors(frame, "text_vector")
    if texts is None:
        return rows
    means = pl.Series(unit_mean(texts, sizes).astype(np.float32))
    return rows.with_columns(text_vector=means.cast(frame.schema["text_vector"]))
