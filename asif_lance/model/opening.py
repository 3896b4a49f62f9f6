"""Opens a model version of a database, with the settings that belong to it."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from asif_lance.anchors import SearchKind, choose_approximation
from asif_lance.arguments import PATH, Kind, instance_of, is_natural, takes
from asif_lance.encoders import ImageEncoder, TextEncoder, by_name
from asif_lance.errors import InputError
from asif_lance.model.labels import (
    DEFAULT_TEMPLATES,
    parse_ensemble,
)
from asif_lance.model.model import Model
from asif_lance.model.stored_settings import load_setting
from asif_lance.object_stores import use_storage_options
from asif_lance.records import ModelVersion
from asif_lance.relative import DEFAULT, Recipe, make_recipe
from asif_lance.store import PairStore


@takes(
    uri=PATH,
    model=instance_of("the name of a version, such as 'v3'", str).or_none,
    as_of=instance_of("a datetime", datetime).or_none,
    recipe=instance_of("the name of a recipe, such as 'white'", str).or_none,
    memory_limit=Kind("a number of bytes", is_natural).or_none,
)
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
    image_encoder: str | ImageEncoder | None = None,
    text_encoder: str | TextEncoder | None = None,
    storage_options: Mapping[str, str] | None = None,
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
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        memory_limit: bytes that the vectors of one side may occupy; see `Anchors`.
        search: `exact`, or the approximate search that `indexing.build_index` chose for this
            version: through an `index`, or with the anchors that the labels depend on and a
            sample of the others (`sampled`).
        image_encoder: the encoder of one's own that made the image vectors, or one that is
            loaded already, or its name; by default the pinned one is loaded.
        text_encoder: likewise.
        storage_options: for an object store, as Lance takes them; see `use_storage_options`.

    Raises:
        DatabaseNotFoundError, MigrationNeededError, NewerDatabaseError: nothing to open here.
        VersionNotFoundError: no such version.
        SearchUnavailableError: nothing was measured for such a search of this version.
        EncoderMismatchError: an encoder that did not make the vectors.
        InputError: both `model` and `as_of`, or an unusable recipe.
    """
    if model is not None and as_of is not None:
        raise InputError("give a model version or a time, not both")
    make_recipe(recipe or DEFAULT, k=k, p=p)
    use_storage_options(str(uri), storage_options)
    store = PairStore.open(str(uri))
    version = store.version_as_of(as_of) if as_of else store.version(model or "latest")
    opened = bind_version(
        store, version, recipe, k, p, device=device, memory_limit=memory_limit, search=search
    )
    _give_encoders(opened, image_encoder, text_encoder)
    return opened


def bind_version(
    store: PairStore,
    version: ModelVersion,
    recipe: str | None = None,
    k: int | tuple[int, int] | None = None,
    p: float | tuple[float, float] | None = None,
    *,
    device: str = "auto",
    memory_limit: int | None = None,
    search: SearchKind = "exact",
) -> Model:
    """The same for a version of a database that is open; arguments are those of `open_model`."""
    chosen = make_recipe(recipe or DEFAULT, k=k, p=p)
    stored = load_setting(store, version.name) if (recipe, k, p) == (None, None, None) else None
    chosen = stored.recipe if stored else chosen
    approximate = None
    if search != "exact":
        approximate = choose_approximation(
            search, store.dataset(version.name), version.name, chosen
        )
    return Model(
        store,
        version,
        chosen,
        ensemble=parse_ensemble(stored.ensemble) if stored else "max",
        templates=(stored and stored.templates) or DEFAULT_TEMPLATES,
        device=device,
        memory_limit=memory_limit,
        approximate=approximate,
    )


def _give_encoders(
    model: Model, image: str | ImageEncoder | None, text: str | TextEncoder | None
) -> None:
    pins = {"image": model.store.image, "text": model.store.text}
    load: dict[str, Any] = {"image": by_name.image_encoder, "text": by_name.text_encoder}
    for side, encoder in (("image", image), ("text", text)):
        if encoder is not None:
            made = load[side](encoder, device=str(model._device))
            pins[side] = made.pin
            setattr(model, f"{side}_encoder", made)
    model.store.check_encoders(**pins)


def _reduce(model: Model) -> tuple[Any, ...]:
    """What pickling keeps of a model: which version it is and how it compares."""
    if model.approximate is not None:
        raise InputError("a model with approximate search is not pickled: open it there anew")
    how: dict[str, Any] = {"ensemble": model.ensemble, "templates": model.templates}
    how |= {"device": str(model._device), "memory_limit": model._memory_limit}
    return _reopen, (model.store.uri, model.version.name, model.recipe, how)


def _reopen(uri: str, version: str, recipe: Recipe, how: dict[str, Any]) -> Model:
    store = PairStore.open(uri)
    return Model(store, store.version(version), recipe, **how)


copyreg.pickle(Model, _reduce)  # so that processes of joblib, say, have their own
