"""Pairs physically gone from every version, and the proof of it, by a database's address.

Promises: a forget that was begun is finished, whatever kills it: the journal is written before the
first change, and `recover` goes on from there. Receipts are signed and linked; the keys never lie
in the database. What checks a receipt is `verifier`, which knows nothing of the code that removes.
Assumes: the caller holds the write lock, except for `recover` and what changes a receipt.
"""

from asif_lance.forgetting.copies import Copy
from asif_lance.forgetting.execution import execute, recover, verify_receipt
from asif_lance.forgetting.forgotten_pairs import LOOKED_UP_COLUMNS, ForgottenPairs
from asif_lance.forgetting.journal import interrupted
from asif_lance.forgetting.keys import Keys, find_keys, find_keys_folder, obtain_keys
from asif_lance.forgetting.page import receipt_page
from asif_lance.forgetting.planning import ForgetPlan, PlannedPair
from asif_lance.forgetting.receipts import (
    attach_timestamp,
    load_document,
    load_receipt,
    load_receipts,
    sign_receipt,
)
from asif_lance.forgetting.twins import Twins
from asif_lance.forgetting.waivers import Waiver, WaiverRecord, list_waivers
from asif_lance.verifier import Document, Receipt, Report, ScanReport, scan

# fmt: off
__all__ = [
    "LOOKED_UP_COLUMNS", "Copy", "Document", "ForgetPlan", "ForgottenPairs", "Keys", "PlannedPair",
    "Receipt", "Report", "ScanReport", "Twins", "Waiver", "WaiverRecord", "attach_timestamp",
    "execute", "find_keys", "find_keys_folder", "interrupted", "list_waivers", "load_document",
    "load_receipt", "load_receipts", "obtain_keys", "receipt_page", "recover", "scan",
    "sign_receipt", "verify_receipt",
]
# fmt: on
