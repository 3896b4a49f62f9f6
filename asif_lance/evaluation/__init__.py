"""How good a model is: accuracy, tuning, scaling, adaptation, diagnosis, with intervals.

Promises: every figure states its number of pictures and its uncertainty; seeds make it repeatable.
`evaluation.figures` and `evaluation.clip_baseline` are imported by name: they need matplotlib and a
trained CLIP. Writes only what `store_best`, `add_pairs` and `prove_equivalence` are asked to keep.
"""

from asif_lance.evaluation.accuracy import (
    Accuracy,
    Evaluation,
    PairedComparison,
    compare,
    evaluate,
    predict,
)
from asif_lance.evaluation.adaptation import Adaptation, TrialAccuracy, adapt, captions_of
from asif_lance.evaluation.diagnosis import Diagnosis, diagnose
from asif_lance.evaluation.duplicates import Duplicates, find_duplicates
from asif_lance.evaluation.equivalence import Proof, load_proofs, prove_equivalence
from asif_lance.evaluation.labelled_pictures import (
    Labelled,
    check_classes,
    encode_labelled,
    hold_out,
    read_labelled,
)
from asif_lance.evaluation.scaling_curve import choose_sizes, scaling
from asif_lance.evaluation.statistics import bootstrap_mean, mcnemar_test, share_interval
from asif_lance.evaluation.tuning import Confirmation, Grid, TriedSetting, Tuning, tune

# fmt: off
__all__ = [
    "Accuracy", "Adaptation", "Confirmation", "Diagnosis", "Duplicates", "Evaluation", "Grid",
    "Labelled", "PairedComparison", "Proof", "TrialAccuracy", "TriedSetting", "Tuning", "adapt",
    "bootstrap_mean", "captions_of", "check_classes", "choose_sizes", "compare", "diagnose",
    "encode_labelled", "evaluate", "find_duplicates", "hold_out", "load_proofs", "mcnemar_test",
    "predict", "prove_equivalence", "read_labelled", "scaling", "share_interval", "tune",
]
# fmt: on
