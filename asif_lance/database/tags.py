"""Lance's tags of the pairs table: the names of its states.

In an object store Lance would replace a tag whatever has become of it meanwhile. So it is replaced
here, in the format that Lance states for it, and only as it was read before the lease was checked:
a writer who was overtaken since then moves no tag.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import lance

from asif_lance.database.commits import committing
from asif_lance.database.integrity import manifest_file
from asif_lance.database.lease import confirm_lease
from asif_lance.errors import StorageError
from asif_lance.object_stores import (
    create_object,
    is_remote,
    list_sizes,
    open_path,
    read_marked,
    replace_object,
)

_FOLDER = "_refs/tags"


def set_tag(table: lance.LanceDataset, tag: str, lance_version: int) -> None:
    """Makes a tag name this Lance version.

    Raises:
        StorageError: the lease has run out.
    """
    if is_remote(table.uri):
        manifest = open_path(table.uri) / manifest_file(open_path(table.uri), lance_version)
        size = manifest.stat().st_size
        _replace_tag(table.uri, tag, version=lance_version, manifestSize=size)
        return
    with committing(table.uri):
        try:
            table.tags.update(tag, lance_version)
        except ValueError as error:
            if "does not exist" not in str(error):
                raise
            table.tags.create(tag, lance_version)


def drop_tag(table: lance.LanceDataset, tag: str) -> None:
    """Drops a tag, if it is there."""
    with committing(table.uri):
        try:
            table.tags.delete(tag)
        except ValueError as error:
            if "does not exist" not in str(error):
                raise


def touch_tags(uri: str) -> None:
    """Gives all tags of a table in an object store a new state in which they name the same."""
    for file in list_sizes(open_path(uri), _FOLDER):
        _replace_tag(uri, PurePosixPath(file).stem)


def _replace_tag(uri: str, tag: str, **changes: Any) -> None:
    name = f"{_FOLDER}/{tag}.json"
    found = read_marked(uri, name)
    now = datetime.now(UTC).isoformat()
    content = {"branch": None, "createdAt": now, "metadata": {}, **_read(found and found[0])}
    data = json.dumps({**content, **changes, "updatedAt": now}).encode()
    with committing(uri):
        done = (
            replace_object(uri, name, data, found[1]) if found else create_object(uri, name, data)
        )
    if done is None:
        confirm_lease(uri)
        raise StorageError(f"{uri}: somebody else has changed the tag {tag} meanwhile")


def _read(data: bytes | None) -> dict[str, Any]:
    """What a tag says; nothing if it is damaged."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
