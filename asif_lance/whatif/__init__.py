"""Hypothetical states of the pairs: which predictions would change, and which pairs can go.

Promises: the answer is exactly that of really deleting or adding, and nothing is written.
Assumes: the model's version stays as it was opened. Safe from several threads.
"""

from asif_lance.whatif.changes import (
    Influence,
    PredictionChange,
    compare_models,
    compare_states,
)
from asif_lance.whatif.fewest_flips import FewestFlip, find_fewest_flip
from asif_lance.whatif.hypothetical import with_pairs, without_pairs
from asif_lance.whatif.pruning import Pruning, prunable_pairs
from asif_lance.whatif.recorded_flips import RecordedFlips, find_recorded_flips

# fmt: off
__all__ = [
    "FewestFlip", "Influence", "PredictionChange", "Pruning", "RecordedFlips", "compare_models",
    "compare_states", "find_fewest_flip", "find_recorded_flips", "prunable_pairs", "with_pairs",
    "without_pairs",
]
# fmt: on
