"""What takes a pass over all vectors of a fragment to know, and is kept: sums and distances.

Fragments never change, so both serve every version that has the fragment, in this process and the
next ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from asif_lance.kept_files import DISTANCES, keep, load
from asif_lance.means import Distances, Sums

#: Rows from which a file is written: measuring fewer again takes about as long as reading it.
WORTH_KEEPING = 2**16

_COLUMNS = ("total", "squares", "point", "values")


@dataclass(frozen=True, slots=True)
class Summary:
    """A fragment's vectors of one side as a whole, dead ones included.

    Attributes:
        sums: exact ones.
        distances: from a point that was once their version's mean; None if nobody asked.
    """

    sums: Sums
    distances: Distances | None = None


def find(dataset_uri: str, files: list[str], column: str) -> Summary | None:
    """The summary that an earlier process kept."""
    found = load(_database(dataset_uri), DISTANCES, _name(files, column), _COLUMNS)
    if found is None:
        return None
    total, squares, point, values = (found[column] for column in _COLUMNS)
    return Summary(Sums(total, squares), Distances(point, values))


def remember(dataset_uri: str, files: list[str], column: str, summary: Summary) -> None:
    """Keep a summary with distances for later processes, if it is worth it."""
    distances = summary.distances
    if distances is None or len(distances.values) < WORTH_KEEPING:
        return
    arrays = (summary.sums.total, summary.sums.squares, distances.point, distances.values)
    named = dict(zip(_COLUMNS, arrays, strict=True))
    keep(_database(dataset_uri), DISTANCES, _name(files, column), named, files)


def _database(dataset_uri: str) -> str:
    return dataset_uri.rpartition("/")[0]


def _name(files: list[str], column: str) -> str:
    """Begins with the name of a data file, so that one can see when it is gone."""
    return f"{files[0]}.{hashlib.sha256('|'.join(files).encode()).hexdigest()[:8]}.{column}"
