"""What pairs that stay have in common with those to be forgotten: that is not theirs alone.

Five captions of one photo share its address, a whole source its license. Such texts stay wherever
they stand; a text that only the forgotten pairs had is sought everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.forgetting.content import list_texts, list_values, unlist
from asif_lance.forgetting.survey import Survey, read_physical_rows
from asif_lance.progress import track
from asif_lance.verifier import list_leaves

_COLUMNS = ("caption", "captions", "image_uri", "image_sha256", "source", "license")


def find_shared(found: Survey, rows: pa.Table) -> frozenset[str]:
    """Those texts of the forgotten rows that a pair which stays has in any version.

    Args:
        found: the states that stay, and the ids of the pairs.
        rows: the forgotten ones, with the columns of `pairs`.
    """
    sought = {*list_texts(rows, *_COLUMNS), *list_values(rows)}
    shared: set[str] = set()
    wanted = pa.array(sorted(sought), pa.string())
    for batch in _read_others(found):
        for name in batch.schema.names:
            if name == "attributes":
                leaves = (leaf for a in list_texts(batch, name) for leaf in list_leaves(a))
                shared.update(leaf for leaf in leaves if leaf in sought)
            else:
                values = unlist(batch[name])
                shared.update(values.filter(pc.is_in(values, wanted)).unique().to_pylist())
    return frozenset(shared - {None})


def _read_others(found: Survey) -> Iterator[pa.RecordBatch]:
    """Texts of all rows that stay, each fragment once."""
    by_state: dict[int, list[int]] = {}
    for version, fragment_id in found.fragments.values():
        by_state.setdefault(version, []).append(fragment_id)
    for version, fragment_ids in track("compare with other pairs", by_state.items()):
        state = found.open(version)
        there = [name for name in (*_COLUMNS, "attributes") if name in state.schema.names]
        fragments = [state.get_fragment(one) for one in fragment_ids]
        for batch in read_physical_rows(state, fragments, ["pair_id", *there]):
            others = pc.invert(pc.is_in(batch["pair_id"], found.wanted))
            yield batch.filter(others).select(there)
