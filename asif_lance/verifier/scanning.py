"""Looks through every file of a database for forgotten content.

Data and index files of Lance are decoded column by column (on disk texts are compressed, so
searching the bytes proves nothing); Parquet and Arrow files too; logs, manifests and everything
else are searched as bytes. Values that a pair that stays has as well (five captions of one photo
share its vector) are no finding; they are listed as held.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lance.file import LanceFileReader

from asif_lance.progress import track
from asif_lance.records import Float32Array
from asif_lance.verifier.fingerprints import ContentMatcher, as_matrix, is_text, is_vector

_LANCE = {".lance", ".idx"}
_DECODED = _LANCE | {".parquet", ".arrow", ".feather"}
_ZIP_MAGIC = b"PK\x03\x04"
# A table with these columns is the pairs table: the content of its rows is their own.
_PAIR_COLUMNS = {"pair_id", "caption", "image_vector"}
# Labels and templates that users ask with may read like a caption, and are still their own words.
_WORDS_OF_USERS = {"label", "label_set", "templates", "truth"}
_SQ_LEVELS = 255
_FRAGMENT_BITS = 32


@dataclass(frozen=True, slots=True)
class Hit:
    """Forgotten content that is still there.

    Attributes:
        file: path within the database.
        where: the column, or how it was found.
        key: the fingerprint of what was found; empty where nothing was decoded.
    """

    file: str
    where: str
    key: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that was searched.

    Attributes:
        path: within the database, with `/`.
        bytes: its size.
        sha256: of its bytes.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan saw.

    Attributes:
        hits: forgotten content.
        doubtful: what cannot be decided: unreadable files, codes of rows that no state has.
        held: values sought that pairs which stay have too, with the first place of each.
        record: the files that were read.
    """

    hits: tuple[Hit, ...]
    doubtful: tuple[Hit, ...]
    held: dict[str, Hit]
    record: tuple[FileRecord, ...]

    @property
    def files(self) -> int:
        """How many files were read."""
        return len(self.record)

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.bytes for file in self.record)


@dataclass
class _Findings:
    """Collected over all files; only at the end is it known which values survivors hold."""

    loose: list[Hit] = field(default_factory=list)
    certain: list[Hit] = field(default_factory=list)
    doubtful: list[Hit] = field(default_factory=list)
    held: dict[str, Hit] = field(default_factory=dict)


def scan(database: str | Path, matcher: ContentMatcher, ignore: Iterable[str] = ()) -> ScanReport:
    """Reads every file in a database's directory.

    Args:
        database: the directory.
        matcher: finds what is sought.
        ignore: names of files at its top that are left out.
    """
    root = Path(database)
    findings, record = _Findings(), []
    for path in track("search files", list_files(root, ignore)):
        with contextlib.suppress(FileNotFoundError):  # upkeep took it away meanwhile
            record.append(record_file(root, path))
            _scan_file(findings, root, path, matcher)
    for table in track("search indices", sorted(root.glob("*.lance"))):
        _scan_codes(findings, root, table, matcher)
    return _report(findings, record)


def scan_files(database: str | Path, files: Iterable[Path], matcher: ContentMatcher) -> ScanReport:
    """Reads some files in a database's directory as `scan` reads all; codes are not compared."""
    root = Path(database)
    findings, record = _Findings(), []
    for path in track("search files that are not ours", list(files)):
        with contextlib.suppress(FileNotFoundError):  # somebody took it away meanwhile
            record.append(record_file(root, path))
            _scan_file(findings, root, path, matcher)
    return _report(findings, record)


def list_findings(hits: Iterable[Hit]) -> tuple[str, ...]:
    """Findings as people are told of them: where, not what; each place once."""
    return tuple(dict.fromkeys(f"{hit.file}: {hit.where}" for hit in hits))


def name_surface(path: str) -> str:
    """Which part of a database a file belongs to: a table, its indices, a folder of caches."""
    parts = path.split("/")
    if "_indices" in parts:
        return "search indices"
    return parts[0].removesuffix(".lance") if len(parts) > 1 else "other files"


def list_files(root: Path, ignore: Iterable[str] = ()) -> list[Path]:
    """All files below a directory, those behind links too, each directory once."""
    skipped = {root / name for name in ignore}
    files: list[Path] = []
    seen: set[str] = set()
    for folder, below, names in os.walk(root, followlinks=True):
        real = {os.path.realpath(Path(folder, name)): name for name in below}
        below[:] = [name for path, name in real.items() if path not in seen]
        seen.update(real)
        files += [path for name in names if (path := Path(folder, name)).is_file()]
    return sorted(set(files) - skipped)


def record_file(root: Path, path: Path) -> FileRecord:
    """What a receipt says of a file that was read."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(path.relative_to(root).as_posix(), file.tell(), digest)


def _report(findings: _Findings, record: Iterable[FileRecord]) -> ScanReport:
    return ScanReport(
        hits=tuple(findings.certain + [h for h in findings.loose if h.key not in findings.held]),
        doubtful=tuple(findings.doubtful),
        held=findings.held,
        record=tuple(record),
    )


def _scan_file(findings: _Findings, root: Path, path: Path, matcher: ContentMatcher) -> None:
    name = path.relative_to(root).as_posix()
    way = "columns" if path.suffix in _DECODED else "bytes"
    try:
        VERIFIERS[way](findings, name, path, matcher)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        findings.doubtful.append(Hit(name, f"unreadable: {type(error).__name__}", ""))
        _scan_bytes(findings, name, path.read_bytes(), matcher)


def _scan_columns(findings: _Findings, name: str, path: Path, matcher: ContentMatcher) -> None:
    """Decodes a file of rows; what a Lance file holds beside them is searched as bytes."""
    if path.suffix not in _LANCE:
        for batch in _decode(path):
            _scan_batch(findings, name, batch, matcher)
        return
    reader = LanceFileReader(str(path))
    if reader.num_rows():
        for batch in reader.read_all().to_batches():
            _scan_batch(findings, name, batch, matcher)
    for buffer in _read_buffers(path, reader):
        _scan_bytes(findings, name, buffer, matcher)


def _scan_whole(findings: _Findings, name: str, path: Path, matcher: ContentMatcher) -> None:
    _scan_bytes(findings, name, path.read_bytes(), matcher)


#: How files are read, by the names that the registry of tables uses.
VERIFIERS = {"columns": _scan_columns, "bytes": _scan_whole}


def _decode(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet or Arrow file."""
    if path.suffix == ".parquet":
        yield from pq.ParquetFile(path).iter_batches()
    else:
        with pa.OSFile(str(path)) as file:
            yield from pa.ipc.open_file(file).read_all().to_batches()


def _read_buffers(path: Path, reader: LanceFileReader) -> Iterator[bytes]:
    """What a Lance file holds beside its columns: centroids, codebooks, dictionaries."""
    # `read_global_buffer` keeps the interpreter lock while it waits for Lance's workers, and
    # stands still for ever when those wait for the lock because other threads read too.
    with path.open("rb") as file:
        for buffer in reader.metadata().global_buffers:
            file.seek(buffer.position)
            yield file.read(buffer.size)


def _scan_bytes(findings: _Findings, name: str, data: bytes, matcher: ContentMatcher) -> None:
    findings.loose.extend(Hit(name, "bytes", key) for key in matcher.match_bytes(data))
    if data.startswith(_ZIP_MAGIC):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                _scan_bytes(findings, f"{name}:{member}", archive.read(member), matcher)


def _scan_batch(
    findings: _Findings, name: str, batch: pa.RecordBatch, matcher: ContentMatcher
) -> None:
    """Rows that name their pair count by it: content of a pair that stays is its own."""
    names = set(batch.schema.names)
    owners = batch["pair_id"].to_pylist() if "pair_id" in names else None
    gone = None if owners is None else np.array([matcher.is_forgotten(o or "") for o in owners])
    if gone is not None and gone.any():
        findings.certain.append(Hit(name, "pair_id", ""))
    for column, where in _find_leaves(batch):
        for row, key in _match(column, matcher):
            if gone is None or len(column) != len(gone):
                findings.loose.append(Hit(name, where, key))
            elif gone[row]:
                findings.certain.append(Hit(name, where, key))
            elif names >= _PAIR_COLUMNS:
                findings.held.setdefault(key, Hit(name, where, key))
        if gone is None and is_text(column.type):
            _scan_text(findings, f"{name}:{where}", column, matcher)


def _scan_text(findings: _Findings, name: str, column: pa.Array, matcher: ContentMatcher) -> None:
    """A text that nobody owns may quote forgotten ones: a message, a reason."""
    values = [v for v in column.cast(pa.large_binary()).to_pylist() if v is not None]
    findings.loose.extend(
        Hit(name, "quoted", key) for key in matcher.match_bytes(b"\0".join(values))
    )


def _match(column: pa.Array, matcher: ContentMatcher) -> Iterator[tuple[int, str]]:
    if is_vector(column.type):
        return matcher.match_vectors(as_matrix(column).astype(np.float32))
    return matcher.match_values(column)


def _find_leaves(batch: pa.RecordBatch) -> Iterator[tuple[pa.Array, str]]:
    """Texts, binaries and vectors of a batch, those inside lists and structs too."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in _WORDS_OF_USERS:
            yield from _unfold(column, name)


def _unfold(column: pa.Array, where: str) -> Iterator[tuple[pa.Array, str]]:
    kind = column.type
    if is_text(kind) or is_vector(kind):
        yield column, where
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            inner = column.field(index)
            yield from _unfold(inner, f"{where}.{kind.field(index).name}")
    elif pa.types.is_map(kind):
        yield from _unfold(column.keys, where)
        yield from _unfold(column.items, where)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _unfold(column.flatten(), where)
    elif pa.types.is_dictionary(kind):
        yield from _unfold(column.dictionary_decode(), where)


def _scan_codes(findings: _Findings, root: Path, table: Path, matcher: ContentMatcher) -> None:
    """Codes cannot be read back, but each belongs to a row, and that row has to exist."""
    files = [path for path in table.rglob("*") if path.suffix in _LANCE]
    indices = [path for path in files if "_indices" in path.parts]
    fragments = _read_fragment_ids(table) if indices else set()
    for path in indices:
        try:
            codes = LanceFileReader(str(path)).read_all().to_table()
        except (OSError, ValueError, RuntimeError):
            continue  # already among the doubtful
        name = str(path.relative_to(root))
        if "__sq_code" in codes.schema.names:
            found = matcher.match_vectors(_dequantise(codes))
            findings.loose.extend(Hit(name, "__sq_code", key) for _, key in found)
        rows = codes["_rowid"].to_numpy() if "_rowid" in codes.schema.names else []
        stale = set((np.asarray(rows, np.uint64) >> np.uint64(_FRAGMENT_BITS)).tolist()) - fragments
        if stale:
            findings.doubtful.append(Hit(name, "codes of rows that no state has", ""))


def _read_fragment_ids(table: Path) -> set[int]:
    """Ids of the fragments of all states that a table still has."""
    head = lance.dataset(str(table))
    states = (lance.dataset(str(table), version=v["version"]) for v in head.versions())
    return {fragment.fragment_id for state in states for fragment in state.get_fragments()}


def _dequantise(codes: pa.Table) -> Float32Array:
    """Scalar-quantised vectors, about as they were: 256 levels between two bounds."""
    metadata = json.loads(codes.schema.metadata[b"storage_metadata"])[0]
    bounds = json.loads(metadata)["bounds"]
    column = codes["__sq_code"].combine_chunks()
    levels = column.flatten().to_numpy().reshape(len(column), -1).astype(np.float32)
    step = (bounds["end"] - bounds["start"]) / _SQ_LEVELS
    return np.asarray(bounds["start"] + levels * step, np.float32)
