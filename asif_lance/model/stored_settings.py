"""The settings that tuning chose for a model version: table `tuned`.

They are the defaults of that version alone: a later one has other pairs, and the general defaults
until it is tuned itself. A recipe, k, p, ensemble or templates that a user gives take precedence.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from asif_lance.database import read_table, schemas, upsert_rows
from asif_lance.relative import Recipe, make_recipe
from asif_lance.store import PairStore


@dataclass(frozen=True, slots=True)
class StoredSetting:
    """The settings chosen for a version, and the accuracy that they were chosen by.

    Attributes:
        version: the model version's name.
        recipe: with its k and p.
        ensemble: how a class's prompts become one score.
        templates: a named set of prompt templates, or the templates, as results call them; empty
            where none were used (label vectors, or tuned by an older release).
        top_1: share right of the pictures that made the choice: optimistic.
        pictures: how many those were.
        comparisons: how many settings were compared.
        held_out: share right of the held-out pictures; None if none were held out.
    """

    version: str
    recipe: Recipe
    ensemble: str
    templates: str
    top_1: float
    pictures: int
    comparisons: int
    held_out: float | None


def store_setting(store: PairStore, chosen: StoredSetting) -> None:
    """Store a version's settings, in place of earlier ones.

    Raises:
        StorageError, DatabaseBusyError: it cannot be written.
    """
    row = {
        "version": chosen.version,
        "recipe": chosen.recipe.name,
        "k": list(chosen.recipe.k),
        "p": list(chosen.recipe.p),
        "ensemble": chosen.ensemble,
        "templates": chosen.templates or None,
        "top_1": chosen.top_1,
        "pictures": chosen.pictures,
        "comparisons": chosen.comparisons,
        "held_out": chosen.held_out,
        "created_at": datetime.now(UTC),
    }
    with store.writing("tune", beside=True):
        rows = pa.Table.from_pylist([row], schema=schemas.TUNED)
        upsert_rows(store.uri, "tuned", rows, "version")


def load_setting(store: PairStore, version: str) -> StoredSetting | None:
    """The settings chosen for a version, if any were.

    Raises:
        InputError: a recipe that this release does not know.
    """
    for row in read_table(store.uri, "tuned").to_pylist():
        if row["version"] == version:
            recipe = make_recipe(row["recipe"], k=tuple(row["k"]), p=tuple(row["p"]))
            chosen = recipe, row["ensemble"], row["templates"] or ""
            evidence = row["top_1"], row["pictures"], row["comparisons"], row["held_out"]
            return StoredSetting(version, *chosen, *evidence)
    return None
