"""A cache on disk of whitened distances, of what they were measured with, and of ids' hashes.

One file for each side holds those of the whitening that was last used; see `distance_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from asif_lance.anchors.fragments import Fragment, NamedWhitening, WhitenedRows
from asif_lance.database import DISTANCES, files_exist, load_cache, save_cache
from asif_lance.relative import SAMPLE, Whitening

#: Multiplications from which on it is used; fewer take about as long as the file.
WORTH_KEEPING = 2**32

_NEW_SHARE = 1 / 16  # of a version's rows; the file is written anew for more than these
_STEPS = 4  # so many matrix products does a fit cost

_COLUMNS = ("files", "rows", "hashes", "inverses", "fit", "mean", "metric", "least")


def load_whitened(
    dataset_uri: str, column: str, width: int, fragments: Sequence[Fragment]
) -> NamedWhitening | None:
    """Give a version's fragments what earlier processes computed, and return the whitening."""
    new = {fragment.files: fragment for fragment in fragments if column not in fragment.whitened}
    if not is_worth_keeping(sum(fragment.rows for fragment in new.values()), width):
        return None
    found = load_cache(dataset_uri.rpartition("/")[0], DISTANCES, _name(column), _COLUMNS)
    if found is None:
        return None
    metric = found["metric"].astype(np.float64)
    whitening = Whitening(found["mean"], metric, float(found["least"]))
    known = NamedWhitening(str(found["fit"]), whitening)
    ends = np.cumsum(found["rows"])[:-1]
    each = (np.split(found[name], ends) for name in ("hashes", "inverses"))
    for files, hashes, inverses in zip(found["files"].tolist(), *each, strict=True):
        if files in new:
            new[files].id_hashes = hashes
            new[files].whitened[column] = WhitenedRows(known, inverses, inverses, kept=True)
    return known


def save_whitened(
    dataset_uri: str,
    column: str,
    used: NamedWhitening,
    fragments: Sequence[Fragment],
    epoch: int,
) -> None:
    """Keep what is known of a version's fragments, if enough of it is new and of one whitening.

    Nothing is kept if something was forgotten since the epoch.
    """
    if any(fragment.whitened[column].used.fit != used.fit for fragment in fragments):
        return
    rows = sum(fragment.rows for fragment in fragments)
    new = [fragment for fragment in fragments if not fragment.whitened[column].kept]
    added = sum(fragment.rows for fragment in new)
    uri, names = dataset_uri.rpartition("/")[0], [one.files for one in fragments]
    files = [name for several in names for name in several.split("|")]
    if added < _NEW_SHARE * rows or not is_worth_keeping(added, len(used.whitening.mean)):
        return
    if not files_exist(uri, files):
        return
    arrays = {
        "files": np.array(names),
        "rows": np.array([fragment.rows for fragment in fragments]),
        "hashes": np.concatenate([f.id_hashes for f in fragments if f.id_hashes is not None]),
        "inverses": np.concatenate([f.whitened[column].inverses for f in fragments]),
        "fit": np.array(used.fit),
        "mean": used.whitening.mean,
        "metric": used.whitening.metric.astype(np.float32),  # 19 bits: nothing is lost
        "least": np.array(used.whitening.least),
    }
    save_cache(uri, DISTANCES, _name(column), arrays, files, since=epoch)
    for fragment in new:
        fragment.whitened[column] = replace(fragment.whitened[column], kept=True)


def _name(column: str) -> str:
    return f"{column}_white"


def is_worth_keeping(rows: int, width: int) -> bool:
    """Whether measuring so many rows of this width, and a fit on them, takes long."""
    fit = _STEPS * min(rows, SAMPLE, width) ** 2 * width
    return rows > 0 and rows * width**2 + fit >= WORTH_KEEPING
