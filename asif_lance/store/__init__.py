"""An open database: add, delete, publish and read pairs, forget them, upkeep.

Promises: what a reader has under a version's name stays as it is; a failed change leaves nothing
half-written; who passes an `epoch` writes nothing that was read before a forget. `PairStore` is
immutable and may be shared between threads and processes; writers of all processes take turns.
"""

from asif_lance.store.maintenance import (
    Info,
    OptimizeReport,
    PruneReport,
    info,
    moment_before,
    optimize,
    prunable_versions,
    prune_versions,
)
from asif_lance.store.migration import migrate
from asif_lance.store.pair_store import PairStore
from asif_lance.store.unpublished import BadRow

# fmt: off
__all__ = [
    "BadRow", "Info", "OptimizeReport", "PairStore", "PruneReport", "info", "migrate",
    "moment_before", "optimize", "prunable_versions", "prune_versions",
]
# fmt: on
