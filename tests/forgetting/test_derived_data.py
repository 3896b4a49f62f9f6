"""Content planted in every table and cache that can hold some is found, and gone when forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pairs_at_hand import names, neutral, new_store, pairs

from asif_lance.database import CACHES, TABLES
from asif_lance.database.registry import PURGE, Stored, Table
from asif_lance.forgetting.content import Content
from asif_lance.store.forget import forget
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import scan

IMAGE, TEXT = 64, 32
GONE = names(3, 4)[0]

#: In which column of each table what of a pair is planted.
PLANTED = {
    "rejects": ("reason", lambda pair: f"same as {pair['pair_id']}"),
    "versions": ("message", lambda pair: f"without {pair['caption']}"),
    "predictions": ("image", lambda pair: pair["image_uri"]),
    "queries": ("vector", lambda pair: pair["image_vector"]),
    "attributions": ("pair_id", lambda pair: pair["pair_id"]),
    "prompts": ("vector", lambda pair: pair["text_vector"]),
}
DERIVED = [stored for stored in (*TABLES, *CACHES) if stored.holds_content]
DERIVED = [stored for stored in DERIVED if stored.eraser != PURGE]


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(pairs(names(0, 10), image=IMAGE, text=TEXT))
    store.publish(command="ingest")
    return store


def plant(store: PairStore, stored: Stored, pair: dict[str, Any]) -> None:
    if stored.name == "receipts":
        forget(store, names(8, 9), reason=f"as it is with {pair['caption']}")
    elif isinstance(stored, Table):
        column, value = PLANTED[stored.name]
        schema = stored.schema(IMAGE, TEXT)
        row = {field.name: neutral(field) for field in schema} | {column: value(pair)}
        rows = pa.Table.from_pylist([row], schema=schema)
        lance.write_dataset(rows, f"{store.uri}/{stored.name}.lance", mode="append")
        pairs_table = lance.dataset(f"{store.uri}/pairs.lance")
        pairs_table.tags.create("neutral", pairs_table.version)  # what a row of `versions` names
    else:
        directory = Path(store.uri) / stored.name
        directory.mkdir()
        np.savez(directory / "planted.npz", of=np.array(pair["image_vector"], np.float32))


@pytest.mark.parametrize("stored", DERIVED, ids=lambda stored: str(stored.name))
def test_content_of_a_pair_is_found_where_it_can_lie_and_forgotten(
    store: PairStore, stored: Stored
) -> None:
    rows = store.read().filter(pc.field("pair_id") == GONE)
    content = Content(b"some salt", rows)
    plant(store, stored, rows.to_pylist()[0])
    place = stored.name if stored in CACHES else f"{stored.name}.lance"
    assert place in {hit.file.split("/")[0] for hit in scan(store.uri, content).hits}
    receipt = forget(store, [GONE], reason="asked to")
    assert receipt.clean, receipt.findings
    assert not scan(store.uri, content).hits
    assert stored.eraser in receipt.elsewhere
