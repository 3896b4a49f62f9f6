"""One model version that answers: labels, classification, retrieval, several models together.

Promises: every prediction names its version and recipe, and can be taken apart into pairs.
Assumes: the version stays as it was opened. Reading is safe from several threads. Writes nothing
but caches and the settings that `tune --store` stores.
"""

from typing import TYPE_CHECKING

from asif_lance.on_demand import import_on_demand

if TYPE_CHECKING:
    from asif_lance.model.class_files import describe_class_names, read_class_names, split_labels
    from asif_lance.model.joint import JointPrediction, Together
    from asif_lance.model.label_compiler import (
        average_prompts,
        build_label_set,
        find_cached_neighbors,
        find_prompt_neighbors,
        update_neighbors,
    )
    from asif_lance.model.labels import (
        DEFAULT_TEMPLATES,
        ClassNames,
        Ensemble,
        LabelSet,
        Prompts,
        TaughtLabels,
        fill_templates,
        prompts_from_vectors,
        resolve_templates,
    )
    from asif_lance.model.model import BATCH, Model
    from asif_lance.model.opening import bind_version, open_model
    from asif_lance.model.predictions import Contributions, Evidence, Prediction
    from asif_lance.model.prompt_vectors import EncodedTexts
    from asif_lance.model.requirements import name_encoder, to_matrix
    from asif_lance.model.retrieval import Match, retrieve
    from asif_lance.model.sharing import share_model
    from asif_lance.model.stored_settings import StoredSetting, store_setting
    from asif_lance.model.teaching import teach, teach_labels
    from asif_lance.model.templates import TEMPLATE_SETS, template_set
else:
    __getattr__ = import_on_demand(
        __name__,
        {
            "class_files": "describe_class_names read_class_names split_labels",
            "joint": "JointPrediction Together",
            "label_compiler": (
                "average_prompts build_label_set find_cached_neighbors "
                "find_prompt_neighbors update_neighbors"
            ),
            "labels": (
                "DEFAULT_TEMPLATES ClassNames Ensemble LabelSet Prompts TaughtLabels "
                "fill_templates prompts_from_vectors resolve_templates"
            ),
            "model": "BATCH Model",
            "opening": "bind_version open_model",
            "predictions": "Contributions Evidence Prediction",
            "prompt_vectors": "EncodedTexts",
            "requirements": "name_encoder to_matrix",
            "retrieval": "Match retrieve",
            "sharing": "share_model",
            "stored_settings": "StoredSetting store_setting",
            "teaching": "teach teach_labels",
            "templates": "TEMPLATE_SETS template_set",
        },
    )

# fmt: off
__all__ = [
    "BATCH", "DEFAULT_TEMPLATES", "TEMPLATE_SETS", "ClassNames", "Contributions", "EncodedTexts",
    "Ensemble", "Evidence", "JointPrediction", "LabelSet", "Match", "Model", "Prediction",
    "Prompts", "StoredSetting", "TaughtLabels", "Together", "average_prompts", "bind_version",
    "build_label_set", "describe_class_names", "fill_templates", "find_cached_neighbors",
    "find_prompt_neighbors", "name_encoder", "open_model", "prompts_from_vectors",
    "read_class_names", "resolve_templates", "retrieve", "share_model", "split_labels",
    "store_setting", "teach", "teach_labels", "template_set", "to_matrix", "update_neighbors",
]
# fmt: on
