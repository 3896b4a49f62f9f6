"""Pairs physically gone from every version, and the proof of it, by a database's address.

Promises: a forget that was begun is finished, whatever kills it: the journal is written before the
first change, and `recover` goes on from there. `verify` reads files alone and knows nothing of the
code that removes. Assumes: the caller holds the write lock, except for `recover`, which takes it.
"""

from asif_lance.forgetting.execution import VerifyReport, execute, recover, verify_receipt
from asif_lance.forgetting.journal import interrupted
from asif_lance.forgetting.planning import ForgetPlan
from asif_lance.forgetting.receipts import Receipt, load_receipt, load_receipts
from asif_lance.forgetting.verify import ScanReport, scan

# fmt: off
__all__ = [
    "ForgetPlan", "Receipt", "ScanReport", "VerifyReport", "execute", "interrupted", "load_receipt",
    "load_receipts", "recover", "scan", "verify_receipt",
]
# fmt: on
