"""The words that a database's own files are made of: names of tables and columns, types, keys.

A caption may be `string`, and an id `pairs`. Where Lance or the program itself writes such a word,
as in each manifest, it is no finding; in everything else it is sought like any other.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import lance
import pyarrow as pa

from asif_lance.object_stores import fetch_file
from asif_lance.verifier.documents import Receipt, RewrittenVersion, Surface
from asif_lance.verifier.files import FileRecord, list_files, open_lance, panics_as_errors
from asif_lance.verifier.fingerprints import SHORTEST_TEXT, ContentMatcher

#: Of a database in an object store, see `database.lease`.
LEASE_FILE = ".asif-lease"
#: What the program makes at the top of a database: tables, and folders of caches and of
#: open ingests.
TABLES = frozenset(
    {"attributions", "checks", "digests", "migrations", "pairs", "predictions", "prompts", "proofs"}
    | {"queries", "receipts", "rejects", "runs", "sealed_hashes", "tuned", "versions", "waivers"}
)
CACHES = frozenset({"label_sets", "distances", "prompt_vectors", "ingests"})
#: Columns with what the program chose, which may read like a short id: only longer texts are sought
#: there, and no words that its files are made of.
WORDS_OF_PROGRAM = {
    "digests.lance": {"file"},
    "versions.lance": {"name", "command", "aliases"},
    "rejects.lance": {"ingest_id"},
    "runs.lance": {"run_id", "model", "recipe"},
    "predictions.lance": {"prediction_id", "run_id", "model", "k", "p"},
    "queries.lance": {"prediction_id"},
    "attributions.lance": {"prediction_id"},
    "prompts.lance": {"run_id", "ensemble"},
    "receipts.lance": {"receipt_id", "body"},
    "tuned.lance": {"version", "recipe", "ensemble"},
    "migrations.lance": {"id", "hash"},
}
# Of Lance's files: their mark, their names, what the types of columns are called there, the keys in
# tags; and the keys around a receipt.
_OTHERS = """
    LANC index auxiliary page_data page_lookup lance idx txn manifest arrow bin
    string binary bool float double halffloat struct list item dictionary timestamp
    branch version createdAt updatedAt manifestSize metadata null
    payload payloadType application vnd in-toto json signatures keyid sig reason text salt
"""
# Punctuation, too: a caption may be `{}`, which Lance writes for nothing.
_WORD = re.compile(r"\w+|[^\w\s]+")
_FOLDERS = "data|_versions|_transactions|_deletions|_refs|_indices"
_OF_LANCE = re.compile(
    rf"[^/]+\.lance/({_FOLDERS})/.*\.(lance|idx|manifest|txn|arrow|bin|json)|[^/]+\.(lance|idx)"
)
# Files of tables are named by numbers, by chance, or by tags, which the table `versions` has, too.
_NAMED_BY_LANCE = re.compile(rf"[^/]+\.lance/({_FOLDERS})(/.*)?")
_LOCKS = {
    ".asif-lock": re.compile(rb'\{"pid": \d+, "command": "[a-z -]{1,20}"\}\s*'),
    LEASE_FILE: re.compile(
        rb'\{"holder": ("[\w.:-]{1,300}"|null), "command": "[a-z ()_-]{0,40}", '
        rb'"epoch": \d+, "allotted": \d+, "renewals": \d+\}'
    ),
}


def is_of_lance(name: str) -> bool:
    """Whether Lance gives files such names: their bytes have words that nobody put there."""
    return _OF_LANCE.fullmatch(name) is not None


def is_named_by_lance(name: str) -> bool:
    """Whether a file or folder lies where Lance names all there is."""
    return _NAMED_BY_LANCE.fullmatch(name) is not None


def is_lock(name: str, data: bytes) -> bool:
    """Whether this is the lock or the lease as the program writes it: it names its holder."""
    return name in _LOCKS and _LOCKS[name].fullmatch(data) is not None


def is_ours(name: str) -> bool:
    """Whether a file or folder lies in a place that the program names."""
    top = name.split("/")[0]
    return top.removesuffix(".lance") in TABLES if top.endswith(".lance") else top in CACHES


def find_own_words(root: Path, matcher: ContentMatcher) -> frozenset[str]:
    """Fingerprints of what is sought and is a word, or a part of one, of the files themselves."""
    words = {*_OTHERS.split(), *TABLES, *CACHES, *_FOLDERS.split("|")}
    for kind in (Receipt, RewrittenVersion, Surface, FileRecord):
        words |= {field.name for field in fields(kind)}
    for table in root.glob("*.lance"):
        words |= set(_read_numbers(table))
        for schema in _read_schemas(table):
            words |= _list_words(schema, named=table.stem in TABLES)
    return frozenset(matcher.match_texts({part for word in words for part in _list_parts(word)}))


def _read_numbers(table: Path) -> Iterator[str]:
    """The numbers of versions, sizes and times in what Lance writes as JSON, and its marks."""
    for path in (*table.glob("_versions/*.json"), *table.glob("_refs/**/*.json")):
        with contextlib.suppress(OSError):
            yield from re.findall(r"\d+|[^\w\s]+", path.read_text(errors="replace"))


def _read_schemas(table: Path) -> Iterator[pa.Schema]:
    """The schema of a table, and those of its indices; none of what cannot be read."""
    with contextlib.suppress(OSError, ValueError, RuntimeError), panics_as_errors():
        yield lance.dataset(str(table)).schema
    for path in list_files(table / "_indices"):
        with contextlib.suppress(OSError, ValueError, RuntimeError), panics_as_errors():
            with fetch_file(path) as file:
                schema = open_lance(file).metadata().schema
            yield schema


def _list_words(schema: pa.Schema, *, named: bool) -> set[str]:
    """The words of types; those of names and metadata only in tables that the program makes."""
    words: set[str] = set()
    left = list(schema)
    told = [schema.metadata or {}]
    while left:
        column = left.pop()
        left += [column.type.field(place) for place in range(column.type.num_fields)]
        if not column.type.num_fields:
            words |= set(_WORD.findall(str(column.type)))
        else:
            words.add(str(column.type).partition("<")[0])
        if named:
            words.add(column.name)
            told.append(column.metadata or {})
    if named:
        pairs = (pair for metadata in told for pair in metadata.items())
        words |= {
            w for pair in pairs for t in pair for w in _WORD.findall(t.decode(errors="replace"))
        }
    return words


def _list_parts(word: str) -> Iterator[str]:
    """What may be found in a word where nothing says where it begins and ends."""
    starts = range(len(word))
    yield from (word[a:b] for a in starts for b in range(a + SHORTEST_TEXT, len(word) + 1))
