"""Settings that belong to a model version because tuning chose them: table `tuned`.

A choice is its version's alone: one that comes after has other pairs, and answers with the default
until it is tuned itself. What a user gives (a recipe, k, p, ensemble or templates) always
goes first.
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
    """What was chosen for a version, and on what evidence.

    Attributes:
        version: the model version's name.
        recipe: with its k and p.
        ensemble: how a class's prompts become one score.
        templates: a named set of prompt templates, or the templates, as results call them; empty
            where they had no say (label vectors were brought, or an older release tuned).
        top_1: share right of the pictures that made the choice: optimistic.
        pictures: how many those were.
        comparisons: how many choices were compared.
        held_out: share right of pictures that had no say; None if none were held out.
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
    """Keep a choice with its version, in place of an earlier one.

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
    with store.writing("tune"):
        rows = pa.Table.from_pylist([row], schema=schemas.TUNED)
        upsert_rows(store.uri, "tuned", rows, "version")


def load_setting(store: PairStore, version: str) -> StoredSetting | None:
    """What was chosen for a version, if anything.

    Raises:
        InputError: a recipe that this release does not know.
    """
    for row in read_table(store.uri, "tuned").to_pylist():
        if row["version"] == version:
            own = make_recipe(row["recipe"], k=tuple(row["k"]), p=tuple(row["p"]))
            evidence = (row["top_1"], row["pictures"], row["comparisons"], row["held_out"])
            return StoredSetting(version, own, row["ensemble"], row["templates"] or "", *evidence)
    return None
