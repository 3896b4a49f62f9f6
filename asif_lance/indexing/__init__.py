"""Builds an index for approximate search, and measures what it gives beside exact search.

Promises: a setting is kept only if it agreed often enough with exact search on the given queries.
Takes the write lock while it builds; readers go on meanwhile.
"""

from asif_lance.indexing.agreement import agreement_at_least
from asif_lance.indexing.index_tuning import (
    KINDS,
    IndexStatus,
    build_index,
    drop_index,
    index_status,
)
from asif_lance.indexing.trial_queries import TrialQueries, make_trial_queries, replayed_queries

# fmt: off
__all__ = [
    "KINDS", "IndexStatus", "TrialQueries", "agreement_at_least", "build_index", "drop_index",
    "index_status", "make_trial_queries", "replayed_queries",
]
# fmt: on
