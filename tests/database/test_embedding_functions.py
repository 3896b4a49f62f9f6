"""The pairs name their encoders to LanceDB, through everything that makes a version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pairs_at_hand import IMAGE, TEXT, names, new_store, pairs

from asif_lance.database import open_table
from asif_lance.records import BROUGHT, EncoderPin
from asif_lance.store import PairStore, forget
from asif_lance.store.naming import name_encoders


def functions(store: PairStore, version: int | None = None) -> dict[str, tuple[str, str]]:
    """Vector column -> name of the function and of the encoder."""
    metadata = open_table(store.uri, "pairs", version).schema.metadata or {}
    found = json.loads(metadata.get(b"embedding_functions", b"[]"))
    return {one["vector_column"]: (one["name"], one["model"]["name"]) for one in found}


BOTH = {
    "image_vector": ("asif-timm", IMAGE.name),
    "text_vector": ("asif-sentence-transformers", TEXT.name),
}


def test_every_version_names_both_functions(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 5)))
    store.publish(command="ingest")
    store.delete(names(0, 1))
    store.publish(command="delete")
    store.rollback("v1")
    forget.forget(store, names(1, 2), reason="asked")
    assert [functions(store, v.lance_version) for v in store.versions()] == [BOTH] * 3


def test_functions_of_somebody_else_stay(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    theirs = {"name": "own", "model": {"name": "x"}, "vector_column": "text_vector"}
    open_table(store.uri, "pairs").update_schema_metadata(
        {"embedding_functions": json.dumps([theirs])}
    )
    store.add(pairs(names(0, 5)))
    store.publish(command="ingest")
    assert functions(store) == BOTH | {"text_vector": ("own", "x")}


@pytest.mark.parametrize("told", ["no JSON", "{}", "[1]"])
def test_what_is_not_understood_stays(tmp_path: Path, told: str) -> None:
    store = new_store(tmp_path)
    open_table(store.uri, "pairs").update_schema_metadata({"embedding_functions": told})
    store.add(pairs(names(0, 5)))
    store.publish(command="ingest")
    assert open_table(store.uri, "pairs").schema.metadata[b"embedding_functions"].decode() == told


def test_encoders_without_a_name_have_none_until_they_are_named(tmp_path: Path) -> None:
    unnamed = EncoderPin(BROUGHT, "", 8), EncoderPin(BROUGHT, "", 4)
    store = PairStore.create(str(tmp_path / "db"), image=unnamed[0], text=unnamed[1])
    store.add(pairs(names(0, 5)))
    store.publish(command="ingest")
    assert functions(store) == {}
    name_encoders(store, {"image": IMAGE, "text": TEXT})
    assert functions(store, store.version().lance_version) == BOTH
