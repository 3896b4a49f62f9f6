"""What names a fragment of the pairs table in every state: its files."""

from __future__ import annotations

from typing import Any

FragmentKey = tuple[str, ...]


def data_files(fragment: Any) -> FragmentKey:
    """The names of a Lance fragment's data files: equal names are equal rows, deleted ones too."""
    return name_files(fragment.metadata)


def name_files(metadata: Any) -> FragmentKey:
    """The same, of a fragment's metadata."""
    # Lance's own `path` makes a class each time that it is asked, 10 µs.
    return tuple(getattr(file, "_path", None) or file.path for file in metadata.files)


def live_rows_key(fragment: Any) -> tuple[FragmentKey, str | None]:
    """Names a Lance fragment's files and deletions: equal keys are equal live rows."""
    return data_files(fragment), fragment.deletion_file()
