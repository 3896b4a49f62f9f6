"""A cache on disk of the sums and distances that take a pass over all vectors to compute.

Fragments never change, so it serves every version that has them. One file holds those of all
fragments of one side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asif_lance.anchors.fragments import Fragment
from asif_lance.database import DISTANCES, files_exist, load_cache, save_cache
from asif_lance.relative import BlockDistances, BlockSummary, BlockSums

#: Rows from which on it is used; computing fewer anew takes about as long as reading the file.
WORTH_KEEPING = 2**16

_NEW_SHARE = 1 / 16  # of a version's rows; the file is written anew for more than these

_COLUMNS = ("files", "rows", "totals", "squares", "points", "inverses")


def load_distances(dataset_uri: str, column: str, fragments: Sequence[Fragment]) -> None:
    """Give a version's fragments what earlier processes computed."""
    new = [fragment for fragment in fragments if column not in fragment.summaries]
    unknown = {fragment.files: fragment for fragment in new}
    if sum(fragment.rows for fragment in new) >= WORTH_KEEPING:
        for files, summary in _load_summaries(dataset_uri, column).items():
            if files in unknown:
                unknown[files].summaries[column] = summary


def save_distances(
    dataset_uri: str, column: str, fragments: Sequence[Fragment], epoch: int
) -> None:
    """Keep what is known of a version's fragments, if enough of it is new.

    Nothing is kept if something was forgotten since the epoch.
    """
    new = [fragment for fragment in fragments if not fragment.summaries[column].kept]
    least = max(WORTH_KEEPING, _NEW_SHARE * sum(fragment.rows for fragment in fragments))
    if sum(fragment.rows for fragment in new) < least:
        return
    uri = _database_of(dataset_uri)
    known = {fragment.files: fragment.summaries[column] for fragment in fragments}
    everything = _load_summaries(dataset_uri, column) | known
    there = {files: one for files, one in everything.items() if files_exist(uri, files.split("|"))}
    if not there:
        return
    names = [name for files in there for name in files.split("|")]
    save_cache(uri, DISTANCES, column, _to_arrays(there), names, since=epoch)
    for fragment in new:
        fragment.summaries[column] = replace(fragment.summaries[column], kept=True)


def _to_arrays(known: Mapping[str, BlockSummary]) -> dict[str, NDArray[Any]]:
    """Summaries that have distances, as they are written down."""
    named = [(files, one.sums, one.distances) for files, one in known.items() if one.distances]
    files, sums, distances = zip(*named, strict=True)
    arrays = (
        np.array(files),
        np.array([len(one.squares) for one in sums]),
        np.stack([one.total for one in sums]),
        np.concatenate([one.squares for one in sums]),
        np.stack([one.point for one in distances]),
        np.concatenate([one.inverses for one in distances]),
    )
    return dict(zip(_COLUMNS, arrays, strict=True))


def _load_summaries(dataset_uri: str, column: str) -> dict[str, BlockSummary]:
    """What is on disk, by the names of fragments' files."""
    found = load_cache(_database_of(dataset_uri), DISTANCES, column, _COLUMNS)
    if found is None:
        return {}
    files, rows, totals, squares, points, inverses = (found[name] for name in _COLUMNS)
    ends = np.cumsum(rows)[:-1]
    each = zip(totals, np.split(squares, ends), points, np.split(inverses, ends), strict=True)
    summaries = (
        BlockSummary(BlockSums(total, square), BlockDistances(point, inverse), kept=True)
        for total, square, point, inverse in each
    )
    return dict(zip(files.tolist(), summaries, strict=True))


def _database_of(dataset_uri: str) -> str:
    return dataset_uri.rpartition("/")[0]
