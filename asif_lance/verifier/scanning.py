"""Looks through every file of a database for forgotten content.

Data and index files of Lance are decoded column by column (on disk texts are compressed, so
searching the bytes proves nothing); Parquet and Arrow files too; logs, manifests and everything
else are searched as bytes. Values that a pair that stays has as well (five captions of one photo
share its vector) are no finding; they are listed as held.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lance.file import LanceFileReader

from asif_lance.object_stores import fetch_file, open_path
from asif_lance.progress import track
from asif_lance.records import Float32Array
from asif_lance.verifier.columns import find_leaves
from asif_lance.verifier.files import (
    LANCE,
    FileRecord,
    find_format,
    list_files,
    open_lance,
    panics_as_errors,
    record_file,
)
from asif_lance.verifier.fingerprints import (
    ContentMatcher,
    Found,
    as_binary,
    as_matrix,
    find_in_item,
    find_in_path,
    find_quotes,
    is_text,
    is_vector,
)
from asif_lance.verifier.vocabulary import (
    WORDS_OF_PROGRAM,
    find_own_words,
    is_lock,
    is_named_by_lance,
    is_of_lance,
    is_ours,
)

_DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_ZIP_MAGIC, _GZIP_MAGIC = b"PK\x03\x04", b"\x1f\x8b"
# A table with these columns is the pairs table: the content of its rows is their own.
_PAIR_COLUMNS = {"pair_id", "caption", "image_vector"}
# Which of its columns hold a picture, and which its caption: both in one row are a pair again.
PICTURE_COLUMNS = frozenset({"image_sha256", "thumbnail", "image_vector"})
_CAPTION_COLUMNS = frozenset({"caption", "captions", "text_vector"})
# Paths: a caption's words in one are no quotation.
_PATHS = {("predictions.lance", "image"): find_in_path, ("rejects.lance", "item"): find_in_item}
_SQ_LEVELS, _FRAGMENT_BITS = 255, 32


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
class ScanReport:
    """What a scan saw.

    Attributes:
        hits: forgotten content.
        doubtful: what cannot be decided: unreadable files, codes of rows that no state has.
        held: values sought that pairs which stay have too, with the first place of each.
        together: captions among them that such a pair has with a picture that is sought.
        record: the files that were read.
    """

    hits: tuple[Hit, ...]
    doubtful: tuple[Hit, ...]
    held: dict[str, Hit]
    together: dict[str, Hit]
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
    """Collected over all files; only at the end is it known which values survivors hold.

    `own` are words of the files themselves, which say nothing where Lance or the program put them.
    """

    own: frozenset[str]
    loose: list[Hit] = field(default_factory=list)
    certain: list[Hit] = field(default_factory=list)
    doubtful: list[Hit] = field(default_factory=list)
    held: dict[str, Hit] = field(default_factory=dict)
    together: dict[str, Hit] = field(default_factory=dict)


def scan(database: str | Path, matcher: ContentMatcher, ignore: Iterable[str] = ()) -> ScanReport:
    """Reads every file in a database's directory.

    Args:
        database: the directory.
        matcher: finds what is sought.
        ignore: names of files at its top that are left out.
    """
    root = open_path(database)
    findings, record = _Findings(find_own_words(root, matcher)), []
    unread: list[Path] = []
    folders: list[Path] = []
    files = list_files(root, ignore, unread, folders)
    for path in track("search files", files):
        try:
            record.append(_scan_file(findings, root, path, matcher))
        except FileNotFoundError:
            continue  # upkeep took it away meanwhile
        except OSError:
            unread.append(path)
    filled = {up for path in {Path(f.path).parent for f in record} for up in (path, *path.parents)}
    for folder in (path.relative_to(root) for path in folders):
        if folder not in filled:  # the others are parts of their files' names
            _scan_name(findings, folder.as_posix(), matcher)
    for path in unread:
        findings.doubtful.append(Hit(path.relative_to(root).as_posix(), "unreadable", ""))
    indices = [path for path in files if path.suffix in LANCE and "_indices" in path.parts]
    for table in track("search indices", sorted(root.glob("*.lance"))):
        _scan_codes(findings, root, table, [p for p in indices if p.is_relative_to(table)], matcher)
    return _report(findings, record)


def scan_files(database: str | Path, files: Iterable[Path], matcher: ContentMatcher) -> ScanReport:
    """Reads some files in a database's directory as `scan` reads all; codes are not compared."""
    root = open_path(database)
    findings, record = _Findings(find_own_words(root, matcher)), []
    for path in track("search files that are not ours", list(files)):
        with contextlib.suppress(FileNotFoundError):  # somebody took it away meanwhile
            record.append(_scan_file(findings, root, path, matcher))
    return _report(findings, record)


def list_findings(hits: Iterable[Hit]) -> tuple[str, ...]:
    """Findings as people are told of them: where, not what; each place once."""
    return tuple(dict.fromkeys(f"{hit.file}: {hit.where}" for hit in hits))


def _report(findings: _Findings, record: Iterable[FileRecord]) -> ScanReport:
    return ScanReport(
        hits=tuple(findings.certain + [h for h in findings.loose if h.key not in findings.held]),
        doubtful=tuple(findings.doubtful),
        held=findings.held,
        together=findings.together,
        record=tuple(record),
    )


def _scan_file(findings: _Findings, root: Path, path: Path, matcher: ContentMatcher) -> FileRecord:
    """Searches a file, and says what was read; of an object the same copy is searched."""
    name = path.relative_to(root).as_posix()
    with fetch_file(path) as file:
        record = record_file(name, file)
        _scan_content(findings, name, file, matcher)
    return record


def _scan_content(findings: _Findings, name: str, path: Path, matcher: ContentMatcher) -> None:
    _scan_name(findings, name, matcher)
    way = "columns" if find_format(path) else "bytes"
    try:
        with panics_as_errors():
            VERIFIERS[way](findings, name, path, matcher)
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        findings.doubtful.append(Hit(name, f"unreadable: {type(error).__name__}", ""))
        with contextlib.suppress(*_DAMAGED):
            _scan_bytes(findings, name, path.read_bytes(), matcher)


def _scan_name(findings: _Findings, name: str, matcher: ContentMatcher) -> None:
    """What a file is called, with its folders, may be a pair's id or the name of its picture."""
    if not is_named_by_lance(name):
        texts = (name, Path(name).stem)
        hits = (key for text in texts for key in find_in_path(matcher, text))
        own = findings.own if is_ours(name) else ()
        findings.loose.extend(Hit(name, "its name", key) for key in hits if key not in own)


def _scan_columns(findings: _Findings, name: str, path: Path, matcher: ContentMatcher) -> None:
    """Decodes a file of rows; what a Lance file holds beside them is searched as bytes."""
    kind = find_format(path)
    if kind == "parquet":
        batches: Iterable[pa.RecordBatch] = pq.ParquetFile(path).iter_batches()
    elif kind == "arrow":
        with pa.OSFile(str(path)) as file:
            batches = pa.ipc.open_file(file).read_all().to_batches()
    else:
        reader = open_lance(path)
        batches = reader.read_all().to_batches() if reader.num_rows() else ()
        for buffer in _read_buffers(path, reader):
            _scan_bytes(findings, name, buffer, matcher)
    for batch in batches:
        _scan_batch(findings, name, batch, matcher)


def _scan_whole(findings: _Findings, name: str, path: Path, matcher: ContentMatcher) -> None:
    _scan_bytes(findings, name, path.read_bytes(), matcher)


#: How files are read, by the names that the registry of tables uses.
VERIFIERS = {"columns": _scan_columns, "bytes": _scan_whole}


def _read_buffers(path: Path, reader: LanceFileReader) -> Iterator[bytes]:
    """What a Lance file holds beside its columns: centroids, codebooks, dictionaries."""
    # `read_global_buffer` keeps the interpreter lock while it waits for Lance's workers, and
    # stands still for ever when those wait for the lock because other threads read too.
    with path.open("rb") as file:
        for buffer in reader.metadata().global_buffers:
            file.seek(buffer.position)
            yield file.read(buffer.size)


def _scan_bytes(findings: _Findings, name: str, data: bytes, matcher: ContentMatcher) -> None:
    if is_lock(name, data):
        return
    own = findings.own if is_of_lance(name) else ()
    keys = (key for key in matcher.match_bytes(data) if key not in own)
    findings.loose.extend(Hit(name, "bytes", key) for key in keys)
    if data.startswith(_ZIP_MAGIC):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                _scan_bytes(findings, f"{name}:{member}", archive.read(member), matcher)
    elif data.startswith(_GZIP_MAGIC):
        _scan_bytes(findings, f"{name}:unpacked", gzip.decompress(data), matcher)


def _scan_batch(
    findings: _Findings, name: str, batch: pa.RecordBatch, matcher: ContentMatcher
) -> None:
    """Rows that name their pair count by it: content of a pair that stays is its own."""
    names = set(batch.schema.names)
    owned = "pair_id" in names and is_text(batch["pair_id"].type)
    gone = matcher.find_forgotten(batch["pair_id"]) if owned else None
    if gone is not None and gone.any():
        findings.certain.append(Hit(name, "pair_id", ""))
    words = WORDS_OF_PROGRAM.get(name.split("/")[0], set())
    staying: list[tuple[int, Hit]] = []
    for column, where, rows in find_leaves(batch, words):
        own = findings.own if where in words else frozenset[str]()
        for place, key in _match(column, matcher, own):
            row = rows[place]
            if gone is None or row < 0:
                findings.loose.append(Hit(name, where, key))
            elif gone[row]:
                findings.certain.append(Hit(name, where, key))
            elif names >= _PAIR_COLUMNS:
                staying.append((row, Hit(name, where, key)))
        if gone is None and is_text(column.type):
            _scan_text(findings, (name, where), column, matcher, own)
    _note_held(findings, staying)
    if names >= _PAIR_COLUMNS and gone is not None and "attributes" in names:
        kept = batch["attributes"].filter(pa.array(~gone)).unique().to_pylist()
        for key in matcher.match_texts(leaf for text in kept for leaf in list_leaves(text)):
            findings.held.setdefault(key, Hit(name, "attributes", key))


def _note_held(findings: _Findings, staying: Sequence[tuple[int, Hit]]) -> None:
    """Values sought that pairs of some rows have, which stay."""
    pictures = {row for row, hit in staying if hit.where in PICTURE_COLUMNS}
    for row, hit in staying:
        findings.held.setdefault(hit.key, hit)
        if hit.where in _CAPTION_COLUMNS and row in pictures:
            findings.together.setdefault(hit.key, hit)


def _scan_text(
    findings: _Findings,
    place: tuple[str, str],
    column: pa.Array,
    matcher: ContentMatcher,
    own: frozenset[str],
) -> None:
    """A text that nobody owns may quote forgotten ones: a message, a reason."""
    file, name = place
    find = _PATHS.get((file.split("/")[0], name), find_quotes)
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    for value in as_binary(column).drop_null().unique().to_pylist():
        keys = matcher.match_bytes(value) if binary else find(matcher, value.decode())
        found = (Hit(f"{file}:{name}", "quoted", key) for key in keys if key not in own)
        findings.loose.extend(found)


def list_leaves(attributes: str | None) -> Iterator[str]:
    """The texts in a JSON object, however deep; none in what is no JSON."""
    with contextlib.suppress(ValueError, RecursionError):
        left = [json.loads(attributes or "null")]
        while left:
            value = left.pop()
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict | list):
                left += value.values() if isinstance(value, dict) else value


def _match(column: pa.Array, matcher: ContentMatcher, own: frozenset[str]) -> Found:
    if is_vector(column.type):
        return matcher.match_vectors(as_matrix(column))
    return ((row, key) for row, key in matcher.match_values(column) if key not in own)


def _scan_codes(
    findings: _Findings, root: Path, table: Path, indices: Sequence[Path], matcher: ContentMatcher
) -> None:
    """Codes cannot be read back, but each belongs to a row, and that row has to exist."""
    if not indices:
        return
    try:
        with panics_as_errors():
            fragments = _read_fragment_ids(table)
    except _DAMAGED as error:
        where = f"unreadable: {type(error).__name__}"
        findings.doubtful.append(Hit(table.relative_to(root).as_posix(), where, ""))
        return
    for path in indices:
        try:
            with panics_as_errors(), fetch_file(path) as file:
                codes = open_lance(file).read_all().to_table()
        except _DAMAGED:
            continue  # already among the doubtful
        name = path.relative_to(root).as_posix()
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
