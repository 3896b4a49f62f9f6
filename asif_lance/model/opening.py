"""Opens a model version of a database, with the settings that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from asif_lance.anchors import SearchKind, choose_approximation
from asif_lance.errors import InputError
from asif_lance.model.labels import (
    DEFAULT_TEMPLATES,
    Ensemble,
    parse_ensemble,
)
from asif_lance.model.model import Model
from asif_lance.model.stored_settings import load_setting
from asif_lance.relative import DEFAULT, make_recipe
from asif_lance.store import PairStore


def open_model(
    uri: str | Path,
    model: str | None = None,
    *,
    as_of: datetime | None = None,
    recipe: str | None = None,
    k: int | tuple[int, int] | None = None,
    p: float | tuple[float, float] | None = None,
    device: str = "auto",
    memory_limit: int | None = None,
    search: SearchKind = "exact",
) -> Model:
    """Bind a database's model version: the newest, a named one, or the one of a point in time.

    Args:
        uri: the database.
        model: `v3`, an alias, or nothing for `latest`.
        as_of: the newest version made at or before this time; not together with `model`.
        recipe: the recipe that k and p refine. Where none of the three is given, what
            `tune --store` stored with the version, else the default recipe.
        k: anchors kept, for both sides or (image, text).
        p: power of similarities, for both sides or (image, text).
        device: `auto`, `cpu`, `cuda` or `mps`.
        memory_limit: bytes that the vectors of one side may occupy; see `Anchors`.
        search: `exact`, or the approximate search that `indexing.build` chose for this version:
            through an `index`, or with the anchors that the labels depend on and a sample of the
            others (`sampled`).

    Raises:
        DatabaseNotFoundError, MigrationNeededError, NewerDatabaseError: nothing to open here.
        VersionNotFoundError: no such version.
        SearchUnavailableError: nothing was measured for such a search of this version.
        InputError: both `model` and `as_of`, or an unusable recipe.
    """
    if model is not None and as_of is not None:
        raise InputError("give a model version or a time, not both")
    chosen = make_recipe(recipe or DEFAULT, k=k, p=p)
    ensemble: Ensemble = "max"
    templates: str | Sequence[str] = DEFAULT_TEMPLATES
    store = PairStore.open(str(uri))
    version = store.version_as_of(as_of) if as_of else store.version(model or "latest")
    if recipe is None and k is None and p is None:
        stored = load_setting(store, version.name)
        if stored is not None:
            chosen, ensemble = stored.recipe, parse_ensemble(stored.ensemble)
            templates = stored.templates or DEFAULT_TEMPLATES
    approximate = None
    if search != "exact":
        approximate = choose_approximation(
            search, store.dataset(version.name), version.name, chosen
        )
    return Model(
        store,
        version,
        chosen,
        ensemble=ensemble,
        templates=templates,
        device=device,
        memory_limit=memory_limit,
        approximate=approximate,
    )
