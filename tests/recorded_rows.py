"""Runs that one process records, and the rows of any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from asif_lance.audit.recorder import Recorder
from asif_lance.database import read_table
from asif_lance.model import Model, Prompts


def record_alone(model: Model, prompts: Prompts, vectors: Path, **how: Any) -> str:
    table = pq.read_table(vectors)
    matrix = np.array(table["vector"].to_pylist(), dtype="f4")
    labels = model.compile(prompts)
    with Recorder(model.store, labels, model.recipe, **how) as recorder:
        for found in model.classify_vectors(table["id"].to_pylist(), matrix, labels):
            recorder.add(found)
    return recorder.run_id


def recorded(uri: Path, run_id: str) -> dict[str, list[dict]]:
    """All rows of a run in their order, without what tells it from others."""
    found = {}
    for table in ("predictions", "queries", "attributions", "prompts", "runs"):
        rows = read_table(str(uri), table).to_pylist()
        key = "prediction_id" if table in ("queries", "attributions") else "run_id"
        own = [one for one in rows if one[key].startswith(run_id)]
        for one in own:
            one.pop("created_at", None)
            for name in ("run_id", "prediction_id"):
                one[name] = one.get(name, "").removeprefix(run_id)
        found[table] = own
    return found
