"""Receipts of forgetting checked by whoever has a copy of the database, and by nobody's leave.

Promises: reads files and changes none; takes nothing on trust from the code that forgets, of which
it imports no line, nor of the store. Needs lance, pyarrow, numpy, securesystemslib, rfc8785 and
rfc3161-client; no torch. `documents` is what a receipt says, `chain` how receipts are linked,
`scanning` and `fingerprints` how files are searched, `inputs` the keys that are given, `checking`
puts all to one receipt.
"""

from asif_lance.verifier.chain import read_receipts
from asif_lance.verifier.checking import verify
from asif_lance.verifier.documents import (
    ERASED,
    NO_BASELINE,
    NOT_COVERED,
    RESIDUAL,
    Document,
    Receipt,
    RewrittenVersion,
    Surface,
)
from asif_lance.verifier.fingerprints import (
    KEY_BYTES,
    SHORTEST_TEXT,
    ContentMatcher,
    Fingerprints,
    Found,
    as_binary,
    as_matrix,
    find_texts,
    hash_value,
    is_text,
    is_vector,
    name_key,
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
    FileRecord,
    Hit,
    ScanReport,
    list_files,
    list_findings,
    name_surface,
    scan,
    scan_files,
)
from asif_lance.verifier.timestamps import check_timestamp, make_request

# fmt: off
__all__ = [
    "CONFIRMED", "ERASED", "KEY_BYTES", "NOT_COVERED", "NO_BASELINE", "REFUTED", "RESIDUAL",
    "SHORTEST_TEXT", "STATUSES", "UNDECIDED", "VERIFIERS", "Check", "ContentMatcher",
    "Document", "FileRecord", "Fingerprints", "Found", "Hit", "Receipt", "Report",
    "RewrittenVersion", "ScanReport", "Surface", "as_binary", "as_matrix", "check_timestamp",
    "describe", "find_texts", "hash_value", "is_text", "is_vector", "list_files",
    "list_findings", "make_request", "name_key", "name_surface", "read_file", "read_key",
    "read_public_key", "read_receipts", "scan", "scan_files", "verify",
]
# fmt: on
