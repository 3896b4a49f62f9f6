"""Damage is looked for: every file against its digest, every table and version by opening it.

A file without a digest (of an earlier release, of another program, of a command that was killed) is
decoded instead, told as not known before, and gets its digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from lance.file import LanceFileReader

from asif_lance.database.digests import Digest, explain_failure, read_digests, read_tag
from asif_lance.database.fragments import data_files
from asif_lance.database.integrity import (
    CHANGED,
    LOST,
    deletion_file,
    find_lost,
    in_threads,
    list_files,
    manifest_file,
    manifest_version,
    name_surface,
    record_digests,
)
from asif_lance.database.lease import LeaseState
from asif_lance.database.lock import WriteLock
from asif_lance.database.migrate import check_migrated
from asif_lance.database.registry import TABLES, find_missing_columns
from asif_lance.database.schemas import CHECKS
from asif_lance.database.tables import append_rows, read_table
from asif_lance.errors import (
    DatabaseError,
    DatabaseNotFoundError,
    MigrationNeededError,
    StorageError,
)
from asif_lance.object_stores import fetch_file, is_there, open_path
from asif_lance.progress import step, track
from asif_lance.verifier import (
    CONTENT_FILE,
    JOURNAL_FILE,
    LEASE_FILE,
    find_lost_receipts,
    find_problems,
    read_receipts,
)


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is damaged or missing, by its path in the database, and how that shows."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class CheckedSurface:
    """What was found in one part of a database.

    Attributes:
        name: of the table; `search indices` for those of all.
        files: how many were read.
        bytes: their size.
        ok: files that are as they were.
        damaged: files that are not, or are missing.
        unknown: files that had no digest yet, and can be decoded.
    """

    name: str
    files: int
    bytes: int
    ok: int
    damaged: int
    unknown: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        checked_at: when it was done.
        surfaces: each part of the database.
        damage: each damaged file.
        recorded: whether the database could be written: then new files got their digests.
        forgetting: whether a forget has begun and not ended; what it has changed is no damage.
    """

    checked_at: datetime
    surfaces: tuple[CheckedSurface, ...]
    damage: tuple[Damage, ...]
    recorded: bool
    forgetting: bool = False

    @property
    def ok(self) -> bool:
        """Whether no damage was found."""
        return not self.damage


def check(uri: str) -> CheckReport:
    """Compares all files with their digests, and opens and decodes what has none.

    Raises:
        DatabaseNotFoundError: there is none.
        MigrationNeededError: it was made by an older release.
        DatabaseError: it cannot be opened, and no damage explains that.
    """
    refusal = _find_refusal(uri)
    found = _Findings(open_path(uri))
    found.compare()
    found.decode()
    found.look_at_receipts()
    found.look_at_journal()
    found.look_at_lease()
    if refusal is not None and not found.damage:
        raise refusal
    done = datetime.now(UTC)
    surfaces = tuple(found.sum_up())
    recorded = _record(uri, done, surfaces)
    damage = tuple(Damage(*item) for item in sorted(found.damage.items()))
    return CheckReport(done, surfaces, damage, recorded, found.forgetting)


def _find_refusal(uri: str) -> DatabaseError | None:
    """Why the database cannot be opened, if that may come from damage."""
    try:
        check_migrated(uri)
    except (DatabaseNotFoundError, MigrationNeededError):
        raise
    except DatabaseError as error:
        return error
    return None


def _record(uri: str, done: datetime, surfaces: Iterable[CheckedSurface]) -> bool:
    """Keeps when it was checked, and digests of new files; says whether that was possible."""
    columns = ("files", "bytes", "damaged", "unknown")
    row = {name: sum(getattr(one, name) for one in surfaces) for name in columns}
    rows = pa.Table.from_pylist([{"checked_at": done, **row}], schema=CHECKS)
    with suppress(DatabaseError), WriteLock(uri).hold("check"):
        if not row["damaged"]:  # a digest of damage would hide it
            record_digests(uri)
        append_rows(uri, "checks", rows)
        return True
    return False


@dataclass
class _Findings:
    """What is known so far of the files in a database's directory."""

    root: Path
    sizes: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    damage: dict[str, str] = field(default_factory=dict)
    index_files: list[str] = field(default_factory=list)
    forgetting: bool = False

    def compare(self) -> None:
        """Reads every file, and compares those with a digest."""
        known, files = read_digests(self.root), list_files(self.root)
        results = in_threads(lambda file: _compare(self.root / file, known.get(file)), files)
        for file, result in zip(files, track("check files", results, len(files)), strict=True):
            if result is None:
                continue  # upkeep took it away meanwhile
            self.sizes[file], verdict = result
            if verdict is None:
                self.unknown.append(file)
            elif not verdict:
                self.damage[file] = CHANGED
        self.index_files = [file for file in known if "/_indices/" in file]
        self.damage |= dict.fromkeys(find_lost(self.root, known), LOST)

    def decode(self) -> None:
        """Decodes files without a digest, and opens every table and version."""
        for file in track("decode new files", self.unknown):
            reader = _READERS.get(Path(file).suffix)
            if reader is not None:
                self._try(file, partial(_read_fetched, reader, self.root / file))
        with step("open tables"):
            for table in TABLES:
                self._open_table(table.name)
            self._open_versions()

    def look_at_receipts(self) -> None:
        """Receipts come after the last digests of a forget; hashes and signatures tell of them."""
        if not any(map(self._is_damaged, ("receipts", "sealed_hashes"))):
            stored, broken = read_receipts(self.root)
            lost = [f"receipt {one} is missing" for one in find_lost_receipts(self.root)]
            problems = broken + (lost or find_problems(stored))
            if problems:
                self.damage["receipts.lance"] = "; ".join(problems)

    def look_at_journal(self) -> None:
        """Of a forget that was killed: without its journal it could not be finished."""
        journal, content = self.root / JOURNAL_FILE, self.root / CONTENT_FILE
        for path, read in ((journal, _read_journal), (content, _read_content)):
            with suppress(FileNotFoundError):  # it ended meanwhile
                self.sizes[path.name] = path.stat().st_size
                self._try(path.name, partial(read, path))

    def look_at_lease(self) -> None:
        """In an object store: without one that can be read nobody writes."""
        with suppress(FileNotFoundError):  # nobody has written yet, or it is a folder
            data = (self.root / LEASE_FILE).read_bytes()
            self.sizes[LEASE_FILE] = len(data)
            try:
                LeaseState.decode(data)
            except StorageError as error:
                self.damage[LEASE_FILE] = str(error)

    def sum_up(self) -> Iterator[CheckedSurface]:
        """The findings of each part of the database."""
        missing = dict.fromkeys(self.damage.keys() - self.sizes.keys(), 0)
        by_name: dict[str, dict[str, int]] = {}
        for file, size in (*self.sizes.items(), *missing.items()):
            by_name.setdefault(name_surface(file), {})[file] = size
        for name, sizes in sorted(by_name.items()):
            damaged = sum(file in self.damage for file in sizes)
            unknown = sum(file in sizes and file not in self.damage for file in self.unknown)
            ok = len(sizes) - damaged - unknown
            yield CheckedSurface(name, len(sizes), sum(sizes.values()), ok, damaged, unknown)

    def _try(self, file: str, read: Callable[[], object]) -> bool:
        reason = explain_failure(read)
        if reason is not None and is_there(self.root / file):
            self.damage.setdefault(file, reason)
        return reason is None

    def _is_damaged(self, table: str) -> bool:
        return any(file.split("/")[0] == f"{table}.lance" for file in self.damage)

    def _open_table(self, name: str) -> None:
        """Decodes a table as it is now, but for vectors and captions, which have digests."""
        path = self.root / f"{name}.lance"
        if self._is_damaged(name):
            return
        if not path.is_dir():
            self.damage[path.name] = "missing"
            return
        opened: list[lance.LanceDataset] = []
        self._try(path.name, lambda: opened.append(lance.dataset(str(path))))
        for dataset in opened:
            # Old states of pairs may lack columns of today.
            lacks = find_missing_columns(name, dataset.schema.names) if name != "pairs" else []
            if lacks:
                self.damage[path.name] = f"it has no column {lacks[0]!r}"
            self._find_missing(name, dataset)
            if name != "pairs" and not self._is_damaged(name):
                self._try(path.name, partial(_decode_rows, dataset))

    def _open_versions(self) -> None:
        """Opens the version of every tag, and counts the pairs of those that are published."""
        expected: dict[str, int] = {}
        # A forget changes a version first, and later what the table says that it counts.
        self.forgetting = is_there(self.root / JOURNAL_FILE)
        if not self._is_damaged("versions"):
            table = lance.dataset(str(self.root / "versions.lance")).to_table()
            expected = dict(zip(*(table[c].to_pylist() for c in ("name", "pairs")), strict=True))
        path = self.root / "pairs.lance"
        tags = {tag.stem: tag for tag in sorted((path / "_refs" / "tags").glob("*.json"))}
        for name in expected.keys() - tags.keys():
            self.damage[f"pairs.lance/_refs/tags/{name}.json"] = "missing"
        for name, tag in tags.items():
            file = tag.relative_to(self.root).as_posix()
            version = read_tag(tag)
            if version is None:
                self.damage[file] = "it is no tag of Lance"
            else:
                self._open_version(name, file, version, expected.get(name))

    def _open_version(self, name: str, tag: str, version: int, pairs: int | None) -> None:
        path = self.root / "pairs.lance"
        manifest = f"pairs.lance/{manifest_file(path, version)}"
        if manifest in self.damage:
            return
        if not is_there(self.root / manifest):
            self.damage[tag] = f"it names Lance version {version}, which is not there"
            return
        opened: list[lance.LanceDataset] = []
        if self._try(manifest, lambda: opened.append(lance.dataset(str(path), version=version))):
            self._find_missing("pairs", opened[0])
            if pairs is not None and not self.forgetting and not self._is_damaged("pairs"):
                counted = opened[0].count_rows()
                if counted != pairs:
                    self.damage[tag] = f"{name} has {pairs:,} pairs, what it names {counted:,}"

    def _find_missing(self, table: str, dataset: lance.LanceDataset) -> None:
        """Looks for the files that a state of a table needs; of indices, those with a digest."""
        needed = {s.uuid for index in dataset.describe_indices() for s in index.segments}
        for file in self.index_files:
            owner, _, segment, *_ = file.split("/")
            is_needed = owner == f"{table}.lance" and segment in needed
            if is_needed and not is_there(self.root / file):
                self.damage[file] = "missing"
        for fragment in dataset.get_fragments():
            files = [f"data/{name}" for name in data_files(fragment)]
            deletions = deletion_file(fragment)
            for file in (f"{table}.lance/{one}" for one in (*files, *filter(None, [deletions]))):
                if not is_there(self.root / file):
                    self.damage[file] = "missing"


def _compare(path: Path, digest: Digest | None) -> tuple[int, bool | None] | None:
    """A file's size and whether it is as it was, None if not known; None if it is gone."""
    try:
        return path.stat().st_size, None if digest is None else digest.fits(path)
    except FileNotFoundError:
        return None
    except OSError:  # the disk itself reports the damage
        return 0, False


def _read_fetched(reader: Callable[[Path], None], path: Path) -> None:
    if path.suffix == ".manifest":  # it is read with its table
        reader(path)
        return
    with fetch_file(path) as file:
        reader(file)


def _read_lance(path: Path) -> None:
    reader = LanceFileReader(str(path))
    if reader.num_rows():
        for _ in reader.read_all().to_batches():
            pass


def _read_arrow(path: Path) -> None:
    with pa.OSFile(str(path)) as file:
        pa.ipc.open_file(file).read_all()


def _read_journal(path: Path) -> list[str]:
    """The ids that the journal of a forget names; its last line may be cut."""
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    entries = [json.loads(line) for line in whole]
    if not entries or not all(isinstance(e, dict) and "event" in e for e in entries):
        raise ValueError("it is no journal of a forget")
    return list(entries[0].get("pair_ids", []))


def _read_content(path: Path) -> None:
    """The rows that are being forgotten, which are those that the journal names."""
    rows = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
    journal = path.with_name(JOURNAL_FILE)
    is_whole = is_there(journal) and explain_failure(partial(_read_journal, journal)) is None
    if is_whole and set(rows["pair_id"].to_pylist()) != set(_read_journal(journal)):
        raise ValueError("its rows are not those that the journal names")


def _read_manifest(path: Path) -> None:
    table = str(path.parent.parent)
    lance.dataset(table, version=manifest_version(path)).get_fragments()


#: How files are decoded that have no digest.
_READERS: dict[str, Callable[[Path], None]] = {
    ".lance": _read_lance,
    ".idx": _read_lance,
    ".arrow": _read_arrow,
    ".manifest": _read_manifest,
}


def _decode_rows(dataset: lance.LanceDataset) -> None:
    for _ in dataset.scanner().to_batches():
        pass


def last_check(uri: str) -> dict[str, Any] | None:
    """The newest row of the table `checks`, or None."""
    rows = read_table(uri, "checks").sort_by("checked_at").to_pylist()
    return rows[-1] if rows else None
