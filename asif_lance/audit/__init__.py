"""Recorded predictions, and SQL over the whole database through a guarded DuckDB.

Promises: SQL from anyone reads this database and nothing else; a run is listed once all of it is
there. `audit.recorder` and `audit.replay` write and read predictions and are imported by name,
because they need torch and the rest does not.
"""

from asif_lance.audit.predicates import (
    find_other_spellings,
    matching_ids,
    matching_ids_anywhere,
)
from asif_lance.audit.reports import REPORTS, CannedReport, report
from asif_lance.audit.runs import (
    RetentionRule,
    Run,
    find_run,
    list_runs,
    prune_runs,
    retention_rule,
    set_retention,
)
from asif_lance.audit.sql import HEAD, Audit

# fmt: off
__all__ = [
    "HEAD", "REPORTS", "Audit", "CannedReport", "RetentionRule", "Run", "find_other_spellings",
    "find_run", "list_runs", "matching_ids", "matching_ids_anywhere", "prune_runs", "report",
    "retention_rule", "set_retention",
]
# fmt: on
