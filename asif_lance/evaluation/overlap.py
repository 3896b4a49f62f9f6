"""How many labelled pictures are pairs of the model as well: on those it is not tested."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.anchors import Anchors
from asif_lance.encoders import sha256_of
from asif_lance.evaluation.labelled_pictures import Labelled
from asif_lance.ingest import unit_float16

_ROWS = 2**16  # stored vectors compared at once


def count_overlap(anchors: Anchors, labelled: Labelled) -> int:
    """How many labelled pictures are in a version: the same file, or the same stored vector.

    Files are compared by SHA-256 with `image_sha256`, vectors as the table would store them.

    Raises:
        ImageError: a picture cannot be read any more.
        InputError: there are neither pictures nor vectors.
    """
    if labelled.images:
        stored = anchors.dataset.to_table(columns=["image_sha256"])["image_sha256"]
        digests = labelled.digests or map(sha256_of, labelled.images)
        found = pc.is_in(pa.array(digests, pa.string()), value_set=stored)
        return sum(found.to_pylist())
    rows = [row.tobytes() for row in unit_float16(labelled.embeddings)]
    found = _find_rows(anchors, set(rows))
    return sum(row in found for row in rows)


def _find_rows(anchors: Anchors, wanted: set[bytes]) -> set[bytes]:
    """Those of the wanted image vectors that a version has."""
    live, found = np.flatnonzero(anchors.live), set[bytes]()
    for start in range(0, len(live), _ROWS):
        stored = anchors.gather("image", live[start : start + _ROWS]).numpy()
        found |= wanted.intersection(row.tobytes() for row in stored)
    return found
