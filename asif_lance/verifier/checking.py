"""A receipt checked against a database: its signature, its chain, the files, the content.

Nothing here is taken on trust from the code that forgets. With the key of the fingerprints every
file is searched. Without it, a file can only be compared with those that were searched when the
receipt was made: what is unchanged was searched then, and what came later cannot be judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import SSlibKey

from asif_lance.errors import InputError, format_count
from asif_lance.object_stores import fetch_file
from asif_lance.verifier.chain import (
    StoredReceipt,
    find_lost_receipts,
    find_problems,
    find_strangers,
    holds_only,
    read_receipts,
)
from asif_lance.verifier.documents import (
    ERASED,
    NO_BASELINE,
    NOT_COVERED,
    RESIDUAL,
    Document,
    Receipt,
    Surface,
    public_key,
)
from asif_lance.verifier.files import FileRecord, list_files, name_surface, record_file
from asif_lance.verifier.fingerprints import Fingerprints, name_key
from asif_lance.verifier.report import Check, Report, judge
from asif_lance.verifier.scanning import PICTURE_COLUMNS, Hit, ScanReport, list_findings, scan
from asif_lance.verifier.timestamps import check_timestamp
from asif_lance.verifier.vocabulary import LEASE_FILE

# What every receipt changes itself: its table, and the lock, which has the last command's name.
_RECEIPTS_DATA = "receipts.lance/data/"
_RECEIPTS_LOGS = tuple(f"receipts.lance/{n}/" for n in ("_versions", "_transactions", "_deletions"))
_LOCKS, _LOCK_BYTES = {".asif-lock", LEASE_FILE}, 600
# What somebody would carry over to pass one database's receipts for another's.
_MOVABLE = ("receipts.lance/", "sealed_hashes.lance/", "digests.lance/")
_KEY_DIGITS = 16
_SHOWN = 3  # findings and files that are named


@dataclass(frozen=True, slots=True)
class _Seen:
    """What reading the files brought.

    Attributes:
        record: the files that are there.
        later: those of them that are not as they were when the receipt was made.
        hits: forgotten content.
        doubtful: what cannot be decided.
        searched: whether there was a key to search with.
    """

    record: Sequence[FileRecord]
    later: tuple[str, ...]
    hits: tuple[Hit, ...]
    doubtful: tuple[Hit, ...]
    searched: bool


def verify(
    database: Path,
    receipt: str,
    *,
    key: bytes | None = None,
    public_keys: Sequence[SSlibKey] = (),
    timestamp: bytes | None = None,
    authorities: Sequence[Path] = (),
) -> Report:
    """Checks a receipt against a database or a copy of it; changes nothing.

    Args:
        database: its directory.
        receipt: an id in the database, or a file that was handed out.
        key: of the fingerprints.
        public_keys: whose signatures count.
        timestamp: an RFC 3161 response; by default the one that the database has.
        authorities: files in PEM with the certificates of who may have signed the timestamp.

    Raises:
        InputError: there is no such receipt, or no database.
        ReceiptError: the file is no receipt.
    """
    if not database.is_dir():
        raise InputError(f"{database}: not a directory")
    if not any(database.glob("*.lance")):
        raise InputError(f"{database}: no database: there are no tables in it")
    stored, broken = read_receipts(database)
    broken += [f"receipt {lost} is missing" for lost in find_lost_receipts(database)]
    document, here = _find(database, receipt, stored)
    seen = _look(database, document.receipt, key, stored)
    checks = [
        _check_signature(document, public_keys),
        _check_chain(document, here, (stored, broken), public_keys),
        _check_counts(document.receipt),
        *_check_record(document.receipt, seen),
        _check_content(document.receipt, key, seen),
    ]
    timestamp = timestamp or (here.row.get("timestamp") if here else None)
    if timestamp:
        checks.append(check_timestamp(document, timestamp, authorities))
    return _make_report(document.receipt, checks, seen)


def _make_report(receipt: Receipt, checks: list[Check], seen: _Seen) -> Report:
    return Report(
        receipt_id=receipt.receipt_id,
        verdict=judge(checks),
        checks=tuple(checks),
        surfaces=tuple(_judge_surfaces(receipt, seen)),
        findings=list_findings(seen.hits + seen.doubtful),
        files=len(seen.record),
        bytes=sum(file.bytes for file in seen.record),
    )


def _find(
    database: Path, receipt: str, stored: Sequence[StoredReceipt]
) -> tuple[Document, StoredReceipt | None]:
    """The receipt, and the row that the database has under its id."""
    rows = {one.row["receipt_id"]: one for one in stored}
    if Path(receipt).is_file():
        document = Document.read(Path(receipt))
        return document, rows.get(document.receipt.receipt_id)
    if receipt not in rows:
        raise InputError(f"no receipt {receipt!r} in {database}")
    return rows[receipt].document, rows[receipt]


def _look(
    database: Path, receipt: Receipt, key: bytes | None, stored: Sequence[StoredReceipt]
) -> _Seen:
    """Reads every file, and searches it if there is the right key."""
    if receipt.salt:
        key = bytes.fromhex(receipt.salt)
    elif key is not None and name_key(key) != receipt.key_id:
        key = None
    if key is None:
        record = tuple(_record_files(database))
        later = _find_later(database, receipt, record, stored)
        return _Seen(record, later, (), (), searched=False)
    prints = (frozenset(receipt.ids), frozenset(receipt.values), frozenset(receipt.vectors))
    report = scan(database, Fingerprints(key, *prints))
    hits = report.hits + tuple(_find_returned(receipt, report))
    later = _find_later(database, receipt, report.record, stored)
    return _Seen(report.record, later, hits, report.doubtful, searched=True)


def _record_files(database: Path) -> Iterator[FileRecord]:
    for path in list_files(database):
        with fetch_file(path) as file:
            yield record_file(path.relative_to(database).as_posix(), file)


def _find_later(
    database: Path, receipt: Receipt, record: Sequence[FileRecord], stored: Sequence[StoredReceipt]
) -> tuple[str, ...]:
    """Files that are not as they were, except for what every receipt changes itself."""
    known = {(file.path, file.sha256) for file in receipt.record}

    def expected(file: FileRecord) -> bool:
        if file.path.startswith(_RECEIPTS_DATA):
            return holds_only(database / file.path, stored)
        own = file.path.startswith(_RECEIPTS_LOGS)
        return own or (file.path in _LOCKS and file.bytes <= _LOCK_BYTES)

    later = [file for file in record if (file.path, file.sha256) not in known]
    return tuple(file.path for file in later if not expected(file))


def _find_returned(receipt: Receipt, report: ScanReport) -> Iterator[Hit]:
    """What a pair of another id has now, and none had when the receipt was made.

    That is a picture; or a caption, beside a picture that others had, too. A caption alone is no
    sign: two people may write the same.
    """
    shared = receipt.shared
    if not isinstance(shared, tuple) and shared:
        return  # it was only counted what was shared
    pictures = {k: hit for k, hit in report.held.items() if hit.where in PICTURE_COLUMNS}
    for digest, hit in (pictures | report.together).items():
        if digest not in (shared or ()):
            yield Hit(hit.file, f"{hit.where} of another pair", digest)


def _check_signature(document: Document, keys: Sequence[SSlibKey]) -> Check:
    name = "signature"
    if document.envelope is None:
        return Check(
            name,
            None,
            "not signed, of an earlier format: whoever has the database could alter it and test "
            "guesses against its fingerprints",
        )
    if not document.signed:
        return Check(
            name,
            None,
            "not signed: the signing key was missing when it was finished, or signatures were "
            "taken off",
        )
    if not document.signed_by_its_signer():
        return Check(name, False, "it was altered after it was signed")
    told = f"made with the key {public_key(document.receipt.signer).keyid[:_KEY_DIGITS]}"
    if not keys:
        return Check(name, None, f"{told}; without a public key nobody can say whose that is")
    if any(map(document.signed_by, keys)):
        return Check(name, True, told)
    given = ", ".join(key.keyid[:_KEY_DIGITS] for key in keys)
    return Check(name, False, f"{told}, not with the one that was given, {given}")


def _check_chain(
    document: Document,
    here: StoredReceipt | None,
    read: tuple[Sequence[StoredReceipt], Sequence[str]],
    keys: Sequence[SSlibKey],
) -> Check:
    name, (stored, broken) = "chain", read
    problems = [*broken, *find_problems(stored)]
    if here is None:
        problems = [
            "the database does not list this receipt: it was taken out, or this is another or "
            "an older database",
            *problems,
        ]
    elif here.document.link("") != document.link(""):
        problems = ["the database has another receipt under this id", *problems]
    if problems:
        return Check(name, False, _list_first(problems))
    if all(one.document.envelope is None for one in stored):
        return Check(name, None, "receipts of the earlier format are not linked")
    strangers = find_strangers(stored, keys) if keys else []
    if strangers:
        return Check(name, None, f"whole, but signed by others: {_list_first(strangers)}")
    number = document.receipt.number or "an unsigned one"
    return Check(name, True, f"{number} of {len(stored)} receipts, each linked to the one before")


def _check_counts(receipt: Receipt) -> Check:
    """What an alteration may have left behind even where nothing is signed."""
    pairs = {receipt.pairs, len(receipt.ids)}
    files = {
        receipt.files_scanned,
        len(receipt.record) if receipt.number else receipt.files_scanned,
    }
    if len(pairs) > 1 or len(files) > 1 or not receipt.vectors:
        told = f"{receipt.pairs:,} pairs, but fingerprints of {len(receipt.ids):,} ids and "
        return Check("counts", False, f"{told}{len(receipt.vectors):,} vectors")
    return Check(
        "counts", True, f"{format_count(receipt.pairs, 'pair')}, with a fingerprint of each"
    )


def _check_record(receipt: Receipt, seen: _Seen) -> list[Check]:
    """Whether the files are those that were searched; the earlier format does not list them.

    A database keeps some of them for good, if only those of its first migration.
    """
    if not receipt.number:
        return []
    there = {file.path: file.sha256 for file in seen.record}
    if not any(there.get(f.path) == f.sha256 for f in receipt.record if _belongs_to_one(f.path)):
        told = "none of the files that were searched is here: it is of another database, or all of"
        return [Check("files", None, f"{told} it was written anew")]
    gone = sum(file.path not in there for file in receipt.record)
    told = f"{len(receipt.record) - gone:,} of {len(receipt.record):,} files are still there"
    if seen.later:
        told += f"; {len(seen.later):,} came later or changed: {_list_first(seen.later)}"
    return [Check("files", True if seen.searched or not seen.later else None, told)]


def _belongs_to_one(file: str) -> bool:
    """Whether a file tells databases apart whose receipts may have been swapped.

    Data files have names that are drawn; small files of others may say the same in two databases.
    """
    return "/data/" in file and not file.startswith(_MOVABLE)


def _check_content(receipt: Receipt, key: bytes | None, seen: _Seen) -> Check:
    name = "content"
    if seen.hits:
        return Check(name, False, f"found: {_list_first(list_findings(seen.hits))}")
    if seen.doubtful:
        return Check(name, None, f"cannot be read: {_list_first(list_findings(seen.doubtful))}")
    if seen.searched:
        return Check(name, True, f"none of it in {len(seen.record):,} files")
    if not receipt.clean:
        return Check(name, False, f"the receipt itself says: {_list_first(receipt.findings)}")
    why = "without the key" if key is None else f"with another key ({name_key(key)})"
    told = f"not searched {why}; the receipt needs {receipt.key_id}"
    if seen.later:
        return Check(name, None, told)
    return Check(name, True, f"{told}; all files were searched when it was made")


def _list_first(names: Sequence[str]) -> str:
    """Some of a list that may be long; a program gets all of it."""
    return "; ".join(names[:_SHOWN]) + ("; …" if len(names) > _SHOWN else "")


def _judge_surfaces(receipt: Receipt, seen: _Seen) -> Iterator[Surface]:
    """What the receipt said, unless something was found since or cannot be told."""
    said = {one.name: one.verdict for one in receipt.surfaces} or {"pairs": ERASED}
    residual = {name_surface(hit.file) for hit in seen.hits}
    unknown = {name_surface(hit.file) for hit in seen.doubtful}
    if not seen.searched:
        unknown |= {name_surface(path) for path in seen.later}
    new = dict.fromkeys(
        sorted({name_surface(f.path) for f in seen.record} - said.keys()), NO_BASELINE
    )
    for name, verdict in {**said, **new, **dict.fromkeys(receipt.not_covered, NOT_COVERED)}.items():
        if name in residual:
            yield Surface(name, RESIDUAL)
        elif name in unknown:
            yield Surface(name, NOT_COVERED)
        else:
            found_before = verdict == RESIDUAL and seen.searched
            yield Surface(name, ERASED if found_before else verdict)
