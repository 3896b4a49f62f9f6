"""Every error a user can meet, in one tree.

    AsifError
    ├── DatabaseError
    │   ├── DatabaseNotFoundError      no database there yet
    │   ├── DatabaseExistsError        a database is there already
    │   ├── MigrationNeededError       made by an older release: `asif-lance migrate`
    │   ├── NewerDatabaseError         made by a newer release: upgrade asif-lance
    │   ├── AttachedDatabaseError      the pairs are those of a table that is not ours
    │   ├── DatabaseBusyError          another writer holds the lock
    │   ├── CorruptDatabaseError       a file is damaged: `asif-lance check`
    │   ├── StaleModelError            what is open is from before a forget: reopen it
    │   ├── ForkedProcessError         Lance or torch was used before a fork
    │   └── StorageError               the disk or object store refused (full, gone, denied)
    ├── VersionNotFoundError           no model version of that name
    ├── SearchUnavailableError         no index, or none for this recipe: `asif-lance index build`
    ├── InvalidNameError               a tag or alias that cannot be used
    ├── AuditError                     SQL that is wrong or not allowed
    ├── PredicateError                 SQL that does not fit the pairs table
    ├── EncoderError
    │   ├── EncoderUnavailableError    not installed, no hub, or a damaged file
    │   └── EncoderMismatchError       the database was filled by other encoders
    ├── SourceError                    a source that cannot be read at all
    │   └── EmptySourceError           a file with nothing in it
    ├── ImageError                     one picture that cannot be used
    ├── PairConflictError              pairs that are there already with other content
    ├── ShardsFailedError              parts of a shared ingest that no worker could do
    ├── ForgottenPairError             pairs that were forgotten, and nobody waived that
    ├── BadRowsError                   rows of another program that cannot be pairs
    └── InputError                     a wrong argument
        ├── DimensionError             vectors of the wrong size
        ├── InvalidVectorError         NaN, infinite or zero vectors
        ├── KeysError                  keys of forgetting that are missing or damaged
        ├── ReceiptError               a document that is no receipt of forgetting
        └── EmptyModelError            a model version without pairs

Errors carry their data as attributes; the message is one line that says what to do. The command
line turns each into that one line and exit status 1. IngestInterruptedError stands apart: it is
the KeyboardInterrupt that came, and says what is kept.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Marks that turn the writing direction can make a name read like another one.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Text as people and terminals may see it: file names, captions, messages of any origin.

    Letters, spaces and emoji of every script stay as they are. Control characters, line ends,
    marks that turn the writing direction, and bytes of names that are not UTF-8 become escapes.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def format_count(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts: `1 pair`, `1,234 pairs`; the plural is the noun and an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'classify'?` if something that is known is spelt nearly so, else nothing."""
    from difflib import get_close_matches  # only who has misspelt something waits for it

    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _shown(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that Python could not decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _TURNING
    return character.encode("unicode_escape").decode() if hidden else character


class AsifError(Exception):
    """Base of all errors of this package; `str()` is one line for a person."""

    def __reduce__(self) -> tuple[object, ...]:
        """What another process makes it anew of: an error may take other arguments than it says."""
        return _restore, (type(self), self.args, vars(self))


def _restore(kind: type[AsifError], args: tuple[object, ...], data: dict[str, object]) -> AsifError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(data)
    return error


class DatabaseError(AsifError):
    """The database as a whole cannot be used as asked."""


class DatabaseNotFoundError(DatabaseError):
    """There is no database at `uri`."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        super().__init__(f"no asif_lance database at {uri}: `asif-lance ingest` makes one")


class DatabaseExistsError(DatabaseError):
    """A database was to be created where one is already."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        super().__init__(f"there is a database at {uri} already")


class MigrationNeededError(DatabaseError):
    """The database was made by an older release."""

    def __init__(self, uri: str, pending: tuple[str, ...]) -> None:
        self.uri, self.pending = uri, pending
        super().__init__(
            f"{uri} was made by an older release "
            f"({format_count(len(pending), 'migration')} behind): "
            f"run `asif-lance --db {uri} migrate`"
        )


class NewerDatabaseError(DatabaseError):
    """The database has migrations that this release does not know."""

    def __init__(self, uri: str, unknown: tuple[str, ...]) -> None:
        self.uri, self.unknown = uri, unknown
        super().__init__(
            f"{uri} was made by a newer release (unknown migration {unknown[0]}): "
            "upgrade asif-lance to open it"
        )


class AttachedDatabaseError(DatabaseError):
    """The database is attached to somebody else's table, which is never changed."""

    def __init__(self, uri: str, table: str, command: str, instead: str) -> None:
        super().__init__(
            f"{uri} is attached to {table}, which is not ours to change: no `{command}` here; "
            f"{instead}"
        )
        self.uri, self.table, self.command = uri, table, command


class DatabaseBusyError(DatabaseError):
    """Another process holds the write lock."""


class StaleModelError(DatabaseError):
    """What is open, or was read, is from before a forget, or its files are gone: reopen it."""

    def __init__(self, uri: str, reason: str) -> None:
        self.uri, self.reason = uri, reason
        super().__init__(f"{uri}: {reason}")


class ForkedProcessError(DatabaseError):
    """Threads of Lance and torch stay behind at a fork: to read or compute would wait for ever."""

    def __init__(self) -> None:
        super().__init__(
            "this process was forked after its parent had read a database or computed, and neither "
            "Lance nor torch works in it: "
            "start processes with multiprocessing's 'spawn' or 'forkserver'"
        )


class StorageError(DatabaseError):
    """The file system or object store refused an operation; nothing was half-written."""


class CorruptDatabaseError(DatabaseError):
    """A file of the database is not as it was written; `file` is its path in the database."""

    def __init__(self, uri: str, file: str, reason: str) -> None:
        self.uri, self.file, self.reason = uri, file, reason
        super().__init__(
            f"{uri}: {file} is damaged ({reason}): take it from a backup; "
            f"`asif-lance --db {uri} check` looks for more"
        )


class VersionNotFoundError(AsifError):
    """No model version (or alias) has this name; `message` tells what was sought otherwise."""

    def __init__(
        self,
        name: str,
        known: tuple[str, ...],
        message: str | None = None,
        *,
        aliases: tuple[str, ...] = (),
    ) -> None:
        self.name, self.known = name, known
        none = "there is no model version yet: `asif-lance ingest` makes one"
        newest = ", ".join(known[-5:])
        others = (
            f"no model version {name!r}; there are: {newest}{suggest(name, (*aliases, *known))}"
        )
        super().__init__(message or (others if known else none))


class SearchUnavailableError(AsifError):
    """The model version cannot be searched in the way that was asked for."""

    def __init__(self, version: str, reason: str) -> None:
        self.version = version
        super().__init__(reason)


class InvalidNameError(AsifError):
    """A tag or alias that cannot be used."""


class AuditError(AsifError):
    """SQL that is wrong, that would change something, or that takes too long."""


class PredicateError(AsifError):
    """A `--where` that is not a predicate over the pairs table."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(f"cannot use --where {where!r}: {reason}")


class EncoderError(AsifError):
    """An encoder cannot be used."""


class EncoderUnavailableError(EncoderError):
    """The encoder's code or weights are not to be had here."""


class EncoderMismatchError(EncoderError):
    """The database pins other encoders than those asked for."""

    def __init__(self, side: str, pinned: str, given: str) -> None:
        self.side, self.pinned, self.given = side, pinned, given
        super().__init__(
            f"this database's {side} vectors come from {pinned}, not {given}: "
            "vectors of different encoders cannot be compared; use another --db for these"
        )


class SourceError(AsifError):
    """A source that cannot be read at all (a single bad item is a rejection, not an error)."""


class EmptySourceError(SourceError):
    """A file with nothing in it."""


class ImageError(AsifError):
    """One picture that cannot be used; `reason` is a short phrase for the rejects list."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class ShardsFailedError(AsifError):
    """Some shards of an ingest failed on every worker that had them; the others are done."""

    def __init__(self, shards: tuple[int, ...], reason: str) -> None:
        self.shards, self.reason = shards, reason
        super().__init__(
            f"{format_count(len(shards), 'shard')} failed ({reason}); what is done stays: run the "
            "same command again to go on"
        )


class PairConflictError(AsifError):
    """Items whose pairs are in the database with other content, where that is not allowed."""

    def __init__(self, count: int, first: tuple[str, ...]) -> None:
        self.count, self.first = count, first
        more = ", …" if count > len(first) else ""
        super().__init__(
            f"{format_count(count, 'pair is', 'pairs are')} in the database with other "
            f"content ({', '.join(first)}{more}): "
            "nothing was written; --on-conflict update replaces them, skip leaves them"
        )


class BadRowsError(AsifError):
    """Rows that another program wrote among the pairs; `first` has ids and reasons of some."""

    def __init__(self, count: int, first: tuple[tuple[str, str], ...]) -> None:
        self.count, self.first = count, first
        named = "; ".join(f"{printable(pair_id)!r}: {reason}" for pair_id, reason in first)
        more = "; …" if count > len(first) else ""
        super().__init__(
            f"{format_count(count, 'row')} that another program wrote cannot be pairs "
            f"({named}{more}): no version was made; `asif-lance publish --drop` takes them out"
        )


class ForgottenPairError(AsifError):
    """Pairs that receipts say were forgotten; `first` has ids and reasons of some of them.

    `at_head` says that somebody put them there without asking.
    """

    def __init__(
        self, count: int, first: tuple[tuple[str, str], ...], *, at_head: bool = False
    ) -> None:
        self.count, self.first, self.at_head = count, first, at_head
        named = "; ".join(f"{pair_id}: {reason}" for pair_id, reason in first)
        more = "; …" if count > len(first) else ""
        where, undone = (" at head", "published") if at_head else ("", "added")
        way_out = "`delete` takes them out, " if at_head else ""
        super().__init__(
            f"{count:,} pairs{where} were forgotten ({named}{more}): nothing was {undone}; "
            f"{way_out}`ingest --allow-forgotten --reason WHY` lets them in"
        )


class IngestInterruptedError(KeyboardInterrupt):
    """An ingest was stopped by a signal; `kept` of its pairs are in the table."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        super().__init__(f"kept {format_count(kept, 'pair')} so far")


class InputError(AsifError):
    """An argument that cannot be used."""


class DimensionError(InputError):
    """Vectors whose size does not fit."""

    def __init__(self, what: str, expected: int, given: int) -> None:
        self.expected, self.given = expected, given
        super().__init__(f"{what}: expected {expected} dimensions, got {given}")


class InvalidVectorError(InputError):
    """NaN, infinite or all-zero vectors where a direction is needed; `row` is the first such."""

    def __init__(self, message: str, row: int | None = None) -> None:
        self.row = row
        super().__init__(message)


class EmptyModelError(InputError):
    """The model version has no ordinary pairs, so nothing can be compared.

    `table` is somebody else's that it reads them from, if it does.
    """

    def __init__(self, version: str, table: str | None = None) -> None:
        self.version, self.table = version, table
        way_out = (
            "ingest some first"
            if table is None
            else f"no row of {table} in that version can be one; a version that LanceDB makes of "
            "it with such rows is the next model"
        )
        super().__init__(
            f"model version {version} has no ordinary pairs to compare with: {way_out}"
        )


class KeysError(InputError):
    """The keys of forgetting are missing or damaged, or cannot be made."""


class ReceiptError(InputError):
    """A document that is no receipt of forgetting, or was damaged."""


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of Rust code, whose class each library makes for itself."""
    return type(error).__name__ == "PanicException"
