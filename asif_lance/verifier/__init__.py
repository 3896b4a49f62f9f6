"""Receipts of forgetting checked by whoever has a copy of the database, and by nobody's leave.

Promises: reads files and changes none; takes nothing on trust from the code that forgets, of which
it imports no line, nor of the store. Needs lance, pyarrow, numpy, securesystemslib, rfc8785 and
rfc3161-client; no torch. `documents` is what a receipt says, `chain` how receipts are linked,
`files`, `columns`, `scanning` and `fingerprints` how a database is searched, `inputs` the keys that
are given, `checking` puts all to one receipt.
"""

from asif_lance.verifier.chain import (
    CONTENT_FILE,
    JOURNAL_FILE,
    find_lost_receipts,
    find_problems,
    read_receipts,
)
from asif_lance.verifier.checking import verify
from asif_lance.verifier.documents import (
    ERASED,
    NO_BASELINE,
    NOT_COVERED,
    REDACTED,
    RESIDUAL,
    Document,
    Receipt,
    RewrittenVersion,
    Surface,
    hash_reason,
)
from asif_lance.verifier.files import FileRecord, list_files, name_surface
from asif_lance.verifier.fingerprints import (
    KEY_BYTES,
    LOSSLESS,
    PRINTABLE_RUN,
    SHORTEST_IN_BINARY,
    SHORTEST_TEXT,
    ContentMatcher,
    Fingerprints,
    Found,
    as_binary,
    as_matrix,
    cut_ends,
    find_in_item,
    find_in_path,
    find_quoted,
    find_quotes,
    hash_value,
    is_plain,
    is_text,
    is_vector,
    list_quotable,
    name_key,
    split_words,
)
from asif_lance.verifier.inputs import read_file, read_key, read_public_key
from asif_lance.verifier.report import (
    CONFIRMED,
    REFUTED,
    STATUSES,
    UNDECIDED,
    Check,
    Report,
    describe,
)
from asif_lance.verifier.scanning import (
    VERIFIERS,
    Hit,
    ScanReport,
    list_findings,
    list_leaves,
    scan,
    scan_files,
)
from asif_lance.verifier.timestamps import check_timestamp, make_request
from asif_lance.verifier.vocabulary import LEASE_FILE

# fmt: off
__all__ = [
    "CONFIRMED", "CONTENT_FILE", "ERASED", "JOURNAL_FILE", "KEY_BYTES", "LEASE_FILE", "LOSSLESS",
    "NOT_COVERED", "NO_BASELINE", "PRINTABLE_RUN", "REDACTED", "REFUTED", "RESIDUAL",
    "SHORTEST_IN_BINARY", "SHORTEST_TEXT", "STATUSES", "UNDECIDED", "VERIFIERS", "Check",
    "ContentMatcher", "Document", "FileRecord", "Fingerprints", "Found", "Hit", "Receipt", "Report",
    "RewrittenVersion", "ScanReport", "Surface", "as_binary", "as_matrix", "check_timestamp",
    "cut_ends", "describe", "find_in_item", "find_in_path", "find_lost_receipts", "find_problems",
    "find_quoted", "find_quotes", "hash_reason", "hash_value", "is_plain", "is_text", "is_vector",
    "list_files", "list_findings", "list_leaves", "list_quotable", "make_request", "name_key",
    "name_surface", "read_file", "read_key", "read_public_key", "read_receipts", "scan",
    "scan_files", "split_words", "verify",
]
# fmt: on
