"""When digests are made and compared: at the end of a command, and when a version is opened.

They are made under the write lock, of the files that are there then and have none yet. Damage in
files that are small and say much is noticed at opening; `checking` looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import lance
from lance import LanceOperation
from lance.fragment import write_fragments

from asif_lance.database.attached import find_attachment
from asif_lance.database.cleanup import clean_up, is_draft
from asif_lance.database.commits import commit, committing
from asif_lance.database.digests import (
    Digest,
    digests_path,
    explain_failure,
    list_known_manifests,
    read_digests,
    to_rows,
)
from asif_lance.database.registry import TABLES
from asif_lance.database.tables import find_table, local_path, storage_errors
from asif_lance.errors import CorruptDatabaseError, StorageError
from asif_lance.object_stores import is_remote, list_sizes, open_path, remove_folder

#: What is said of a file that differs from its digest.
CHANGED = "not as it was written"
#: What is said of a table whose newest state is gone: Lance would take the one before for it.
LOST = "missing: the newest state of the table"

# The folders of a Lance table whose files never change; tags and the hint of its version do.
_FOLDERS = ("data", "_deletions", "_versions", "_transactions", "_indices")
_CHANGING = "latest_version_hint.json"
_OWN_TABLES = ("digests", "checks")  # they change whenever digests are kept or compared
_COVERED = tuple(table.name for table in TABLES if table.name not in _OWN_TABLES)
_NAMING_TABLES = ("migrations", "versions")  # a changed value there is another model, or none
# Without their newest rows forgotten pairs would be let in again.
_FORGETTING_TABLES = ("receipts", "sealed_hashes")
_THREADS = 2  # one waits for the disk while the other computes
_LAST_MANIFEST = 2**64 - 1  # files of versions are named by what is left up to it

Result = TypeVar("Result")


def list_files(root: Path, tables: Iterable[str] = _COVERED) -> list[str]:
    """The files of our tables that Lance never changes, by their paths in the directory."""
    folders = tuple(f"{table}.lance/{folder}/" for table in tables for folder in _FOLDERS)
    if is_remote(root):
        found = [name for name in list_sizes(root) if name.startswith(folders)]
    else:
        found = [name for folder in folders for name in list_sizes(root, folder)]
    return sorted(name for name in found if _is_lasting(name.rpartition("/")[2]))


def _is_lasting(name: str) -> bool:
    return name != _CHANGING and not is_draft(name)


def record_digests(uri: str) -> int:
    """Makes the digests of files that have none, and drops those of files that are gone.

    The caller holds the write lock. A table of digests that cannot be read is made anew.

    Returns:
        How many digests were dropped; no file of the database holds them any more.

    Raises:
        StorageError: the disk refused.
    """
    root = open_path(uri)
    if not digests_path(root).is_dir():
        return 0
    with storage_errors(uri):
        known, there = read_digests(root), list_files(root)
        # That of a lost state stays, as that alone shows the loss.
        kept = {file: known[file] for file in (*there, *find_lost(root, known)) if file in known}
        new = [file for file in there if file not in known]
        if new or len(kept) < len(known):
            made = dict(zip(new, in_threads(lambda f: Digest.of(root / f), new), strict=True))
            _write_digests(uri, root, kept | made, readable=bool(known))
    return len(known) - len(kept)


def keep_digests(uri: str) -> None:
    """The same after a change that is done: where the disk is full, a later one makes them."""
    with suppress(StorageError):
        record_digests(uri)


def _write_digests(uri: str, root: Path, digests: Mapping[str, Digest], *, readable: bool) -> None:
    path, rows = str(digests_path(root)), to_rows(digests)
    if not readable and explain_failure(lambda: lance.dataset(path).to_table()):
        remove_folder(digests_path(root))
    table = find_table(uri, "digests")
    if table is None or table.schema != rows.schema:
        with committing(uri):
            lance.write_dataset(rows, path, mode="overwrite", data_storage_version="2.2")
    else:
        old = [fragment.fragment_id for fragment in table.get_fragments()]
        new = list(write_fragments(rows, table, mode="append"))
        commit(table, LanceOperation.Update(old, [], new))
    clean_up(uri, "digests")


def check_opened(dataset: Any) -> Any:
    """The dataset, if the files that say which rows it has are as they were: they are small.

    Args:
        dataset: the pairs table, checked out at a version; one that is somebody else's passes.

    Raises:
        CorruptDatabaseError: the version's own file or one with its deletions is damaged.
    """
    uri = str(dataset.uri).removeprefix("file://").rpartition("/")[0]
    root = local_path(uri)
    if root is None or find_attachment(uri):
        return dataset
    deletions = (deletion_file(fragment) for fragment in dataset.get_fragments())
    files = [manifest_file(root / "pairs.lance", dataset.version), *filter(None, deletions)]
    _compare(uri, root, (f"pairs.lance/{file}" for file in files))
    return dataset


def check_manifest(uri: str, version: int) -> None:
    """Passes when the own file of a Lance version of the pairs is as it was, before it is opened.

    Raises:
        CorruptDatabaseError: it is not.
    """
    root = local_path(uri)
    if root is not None and not find_attachment(uri):
        _compare(uri, root, [f"pairs.lance/{manifest_file(root / 'pairs.lance', version)}"])


def check_naming_tables(uri: str) -> None:
    """Passes when the tables that say what the others are have only files as they were.

    These and the tables that keep forgotten pairs out have to be in their newest state, too. The
    newest state of each table is compared before Lance opens it: over damage there Lance would
    panic, and print that.

    Raises:
        CorruptDatabaseError: one is damaged, or its newest state is gone.
    """
    root = local_path(uri)
    if root is None:
        return
    for file in find_lost(root, list_known_manifests(root)):
        if name_surface(file) in (*_NAMING_TABLES, *_FORGETTING_TABLES):
            raise CorruptDatabaseError(uri, file, LOST)
    _compare(uri, root, [*list_files(root, _NAMING_TABLES), *_newest_manifests(root)])


def find_lost(root: Path, known: Iterable[str]) -> Iterator[str]:
    """The own files of newest states that are gone, of those files that have a digest.

    Upkeep removes states, but never the newest, and the number of a table's version only rises: a
    table that is now at a lower one than was recorded has lost a state.
    """
    there = _find_newest(list_files(root)) if is_remote(root) else None  # in one request
    for table, (version, file) in _find_newest(known).items():
        # Listed again: one that another process replaces meanwhile may escape the first time.
        if there is not None:
            lost = there.get(table, (0, ""))[0] < version
        else:
            lost = all(_newest_version(root / table) < version for _ in range(2))
        if lost:
            yield file


def _find_newest(files: Iterable[str]) -> dict[str, tuple[int, str]]:
    """The newest version of each table that files are named for, and its own file."""
    newest: dict[str, tuple[int, str]] = {}
    for file in files:
        table, folder, _ = file.split("/", 2)
        if folder == "_versions" and file.endswith(".manifest"):
            version = manifest_version(Path(file))
            newest[table] = max(newest.get(table, (0, "")), (version, file))
    return newest


def _newest_manifests(root: Path) -> Iterator[str]:
    for name in _COVERED:
        table = root / f"{name}.lance"
        if version := _newest_version(table):
            yield f"{name}.lance/{manifest_file(table, version)}"


def _newest_version(table: Path) -> int:
    files = (file for file in (table / "_versions").glob("*.manifest") if file.stem.isdecimal())
    return max(map(manifest_version, files), default=0)


def _compare(uri: str, root: Path, files: Iterable[str]) -> None:
    for file, digest in read_digests(root, files).items():
        with suppress(FileNotFoundError):  # upkeep took it away meanwhile: whoever reads will see
            if not digest.fits(root / file):
                raise CorruptDatabaseError(uri, file, CHANGED)


def check_file(uri: str, file: str) -> bool | None:
    """Whether a file is as it was; None if it has no digest."""
    root = open_path(uri)
    digest = read_digests(root, [file]).get(file)
    return None if digest is None else digest.fits(root / file)


def in_threads(work: Callable[[str], Result], files: Iterable[str]) -> Iterator[Result]:
    """What some work makes of files, in order; two are read at once."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(work, files)


def name_surface(file: str) -> str:
    """The part of a database that a file belongs to: a table, or the indices of all."""
    parts = file.split("/")
    return "search indices" if "_indices" in parts else parts[0].removesuffix(".lance")


def manifest_file(table: Path, version: int) -> str:
    """The path of a version's own file within its table; Lance has two ways to name it."""
    old = f"_versions/{version}.manifest"
    return old if (table / old).exists() else f"_versions/{_LAST_MANIFEST - version:020d}.manifest"


def manifest_version(file: Path) -> int:
    """The version that a manifest is of."""
    number = int(file.stem)
    return number if number <= _LAST_MANIFEST // 2 else _LAST_MANIFEST - number


def deletion_file(fragment: Any) -> str | None:
    """The path of a fragment's deletions within its table."""
    name = fragment.deletion_file()
    return None if name is None else str(name)
