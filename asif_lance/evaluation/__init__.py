"""How good a model is: accuracy, tuning, scaling, adaptation, diagnosis, with intervals.

Promises: every figure states its number of pictures and its uncertainty; seeds make it repeatable.
`evaluation.figures` and `evaluation.clip_baseline` are imported by name: they need matplotlib and a
trained CLIP. Writes only what `store_best`, `add_pairs` and `prove_equivalence` are asked to keep.
"""

from typing import TYPE_CHECKING

from asif_lance.on_demand import import_on_demand

if TYPE_CHECKING:
    from asif_lance.evaluation.accuracy import (
        Accuracy,
        Evaluation,
        PairedComparison,
        compare,
        count_overlap,
        evaluate,
        predict,
    )
    from asif_lance.evaluation.adaptation import Adaptation, TrialAccuracy, adapt, captions_of
    from asif_lance.evaluation.confidence import (
        Calibration,
        Confidence,
        calibrate_by_pictures,
        calibrate_by_self_test,
        compare_kinds,
    )
    from asif_lance.evaluation.confidence_report import ConfidenceReport, report_confidence
    from asif_lance.evaluation.diagnosis import Diagnosis, diagnose
    from asif_lance.evaluation.duplicates import Duplicates, find_duplicates
    from asif_lance.evaluation.equivalence import Proof, load_proofs, prove_equivalence
    from asif_lance.evaluation.label_forecast import Forecast, forecast_labels
    from asif_lance.evaluation.labelled_pictures import (
        Labelled,
        check_classes,
        check_enough_pictures,
        encode_labelled,
        hold_out,
        read_labelled,
    )
    from asif_lance.evaluation.rivals import check_rivals
    from asif_lance.evaluation.scaling_curve import choose_sizes, scaling
    from asif_lance.evaluation.self_test import SelfTest, build_self_test, check_enough_pairs
    from asif_lance.evaluation.self_tuning import SelfTriedSetting, SelfTuning, tune_by_self_test
    from asif_lance.evaluation.statistics import bootstrap_mean, mcnemar_test, share_interval
    from asif_lance.evaluation.tuning import Confirmation, Grid, TriedSetting, Tuning, tune
else:
    __getattr__ = import_on_demand(
        __name__,
        {
            "accuracy": (
                "Accuracy Evaluation PairedComparison compare count_overlap evaluate predict"
            ),
            "adaptation": "Adaptation TrialAccuracy adapt captions_of",
            "confidence": (
                "Calibration Confidence calibrate_by_pictures calibrate_by_self_test compare_kinds"
            ),
            "confidence_report": "ConfidenceReport report_confidence",
            "diagnosis": "Diagnosis diagnose",
            "duplicates": "Duplicates find_duplicates",
            "equivalence": "Proof load_proofs prove_equivalence",
            "label_forecast": "Forecast forecast_labels",
            "labelled_pictures": (
                "Labelled check_classes check_enough_pictures encode_labelled hold_out "
                "read_labelled"
            ),
            "rivals": "check_rivals",
            "scaling_curve": "choose_sizes scaling",
            "self_test": "SelfTest build_self_test check_enough_pairs",
            "self_tuning": "SelfTriedSetting SelfTuning tune_by_self_test",
            "statistics": "bootstrap_mean mcnemar_test share_interval",
            "tuning": "Confirmation Grid TriedSetting Tuning tune",
        },
    )

# fmt: off
__all__ = [
    "Accuracy", "Adaptation", "Calibration", "Confidence", "ConfidenceReport", "Confirmation",
    "Diagnosis", "Duplicates", "Evaluation", "Forecast", "Grid", "Labelled",
    "PairedComparison", "Proof", "SelfTest", "SelfTriedSetting", "SelfTuning", "TrialAccuracy",
    "TriedSetting", "Tuning", "adapt", "bootstrap_mean", "build_self_test", "calibrate_by_pictures",
    "calibrate_by_self_test", "captions_of", "check_classes", "check_enough_pairs",
    "check_enough_pictures", "check_rivals", "choose_sizes", "compare", "compare_kinds",
    "count_overlap", "diagnose", "encode_labelled", "evaluate", "find_duplicates",
    "forecast_labels", "hold_out", "load_proofs", "mcnemar_test", "predict", "prove_equivalence",
    "read_labelled", "report_confidence", "scaling", "share_interval", "tune", "tune_by_self_test",
]
# fmt: on
