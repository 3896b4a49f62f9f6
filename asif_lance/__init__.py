"""ASIF models on LanceDB: image-text pairs are the model, versions are rows, forgetting is exact.

    import asif_lance
    model = asif_lance.open("pairs.lancedb", model="v3")
    labels = model.labels(["cat", "dog"])
    for p in model.classify(["photo.jpg"], labels):
        print(p.label, p.score, p.attributions(10))

Importing this package is cheap: torch and Lance load when something is opened.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asif_lance.errors import AsifError
    from asif_lance.evaluation.classifier import AsifClassifier
    from asif_lance.ingest import Attached, IngestReport, attach, ingest_sources
    from asif_lance.model import Model, Together
    from asif_lance.model import open_model as open
    from asif_lance.model.reranker import AsifReranker
    from asif_lance.object_stores import use_storage_options
    from asif_lance.progress import show_progress
    from asif_lance.store import PairStore

__version__ = "0.1.0"

# fmt: off
__all__ = [
    "AsifClassifier", "AsifError", "AsifReranker", "Attached", "IngestReport", "Model", "PairStore",
    "Together", "attach", "ingest_sources", "open", "show_progress", "use_storage_options",
]
# fmt: on

_HOMES = {
    "AsifClassifier": ("asif_lance.evaluation.classifier", "AsifClassifier"),
    "AsifError": ("asif_lance.errors", "AsifError"),
    "AsifReranker": ("asif_lance.model.reranker", "AsifReranker"),
    "Attached": ("asif_lance.ingest.attaching", "Attached"),
    "IngestReport": ("asif_lance.ingest.pipeline", "IngestReport"),
    "Model": ("asif_lance.model.model", "Model"),
    "PairStore": ("asif_lance.store.pair_store", "PairStore"),
    "Together": ("asif_lance.model.joint", "Together"),
    "attach": ("asif_lance.ingest.attaching", "attach"),
    "ingest_sources": ("asif_lance.ingest.pipeline", "ingest_sources"),
    "open": ("asif_lance.model.opening", "open_model"),
    "show_progress": ("asif_lance.progress", "show_progress"),
    "use_storage_options": ("asif_lance.object_stores", "use_storage_options"),
}


def __getattr__(name: str) -> Any:
    """Load a public name's module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'asif_lance' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """The public names, which are not there before they are asked for."""
    return [*globals(), *__all__]
