"""A database of brought vectors, and questions to a service over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from conftest import IMAGE_DIM, TEXT_DIM, entry_point, pairs_frame

PAIRS = 120


def make_database(folder: Path, rng: np.random.Generator) -> Path:
    """A database of 120 pairs with brought vectors: v1."""
    pairs_frame(PAIRS, rng).write_parquet(folder / "pairs.parquet")
    database = folder / "t.lancedb"
    done = CliRunner().invoke(
        entry_point(), ["--db", str(database), "ingest", str(folder / "pairs.parquet")]
    )
    assert done.exit_code == 0, done.output
    return database


def question(rng: np.random.Generator, pictures: int = 1) -> dict[str, Any]:
    """Vectors of pictures and of three labels."""
    texts = rng.standard_normal((3, TEXT_DIM)).astype(np.float32)
    return {
        "vectors": rng.standard_normal((pictures, IMAGE_DIM)).astype(np.float32).tolist(),
        "label_vectors": {name: [row.tolist()] for name, row in zip("abc", texts, strict=True)},
    }


def as_vectors(asked: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The same as the library takes it."""
    labels = {k: np.array(v, dtype=np.float32) for k, v in asked["label_vectors"].items()}
    return np.array(asked["vectors"], dtype=np.float32), labels
