"""The key of a fragment of the pairs table, by its files: the same in all versions that have it."""

from __future__ import annotations

from typing import Any

from asif_lance.database.attached import AttachedState
from asif_lance.database.schemas import PAIR_COLUMNS

FragmentKey = tuple[str, ...]


def data_files(fragment: Any) -> FragmentKey:
    """The names of a Lance fragment's data files: equal names are equal rows, deleted ones too."""
    return name_files(fragment.metadata)


def name_files(metadata: Any) -> FragmentKey:
    """The same, of a fragment's metadata."""
    # Lance's own `path` makes a class each time that it is asked, 10 µs.
    return tuple(getattr(file, "_path", None) or file.path for file in metadata.files)


def content_files(state: Any) -> dict[int, FragmentKey]:
    """The names of each fragment's files that hold columns of ours, by the fragments' ids.

    Another program may add columns of its own: that adds files and changes no pair.
    """
    if isinstance(state, AttachedState):
        return {one.fragment_id: data_files(one) for one in state.get_fragments()}
    ours = {f.id() for f in state.lance_schema.fields() if f.name() in PAIR_COLUMNS}
    found = {}
    for fragment in state.get_fragments():
        files = [one for one in fragment.metadata.files if ours & set(one.fields)]
        found[fragment.fragment_id] = tuple(getattr(f, "_path", None) or f.path for f in files)
    return found


def live_rows_key(fragment: Any) -> tuple[FragmentKey, str | None]:
    """Names a Lance fragment's files and deletions: equal keys are equal live rows."""
    return data_files(fragment), fragment.deletion_file()
