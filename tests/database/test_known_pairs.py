"""Ids are found again exactly, whatever the table went through in between."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.database import HashTable, KnownPairs
from asif_lance.database import known_pairs as module
from asif_lance.store import PairStore, optimize


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 30)))
    store.publish(command="ingest")
    return store


def head(store: PairStore) -> lance.LanceDataset:
    return lance.dataset(f"{store.uri}/pairs.lance")


def known_of(known: KnownPairs, ids: list[str]) -> list[str]:
    found = known.find(pa.array(ids))
    assert [ids[place] for place in found.places] == found.rows["pair_id"].to_pylist()
    return sorted(found.rows["pair_id"].to_pylist())


def test_entries_of_a_hash_table_are_found_by_their_hash(rng: np.random.Generator) -> None:
    table, expected = HashTable(), dict[int, list[int]]()
    for size in (1, 700, 0, 3, 2_000, 5, 40):
        hashes = rng.integers(0, 1_500, size).astype(np.uint64)
        values = rng.integers(0, 2**63, size).astype(np.uint64)
        table.add(hashes, values)
        for key, value in zip(hashes.tolist(), values.tolist(), strict=True):
            expected.setdefault(key, []).append(value)
    asked = np.arange(1_600, dtype=np.uint64)
    places, values = table.find(asked)
    found: dict[int, list[int]] = {}
    for place, value in zip(places.tolist(), values.tolist(), strict=True):
        found.setdefault(place, []).append(value)
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in expected.items()}


def test_what_is_there_is_found_with_its_content(store: PairStore) -> None:
    found = store.find_known(KnownPairs(), pa.array(["new", *names(5, 7)]), ["caption"])
    captions = dict(zip(*(found.rows[c].to_pylist() for c in ("pair_id", "caption")), strict=True))
    assert captions == {i: f"a caption about {i}" for i in names(5, 7)}
    assert sorted(found.places.tolist()) == [1, 2]


def test_ids_are_known_after_adding_deleting_compacting_and_going_back(store: PairStore) -> None:
    known, asked = KnownPairs(), names(0, 60)

    def look() -> list[str]:
        known.refresh(head(store))
        return known_of(known, asked)

    assert look() == names(0, 30)
    store.add(pairs(names(30, 40)))
    assert look() == names(0, 40)
    store.delete(names(3, 33))
    assert look() == names(0, 3) + names(33, 40)
    optimize(store)
    assert look() == names(0, 3) + names(33, 40)
    store.rollback("v1")
    assert look() == names(0, 30)
    store.add(pairs(names(50, 60)))
    assert look() == names(0, 30) + names(50, 60)


def test_an_id_with_the_hash_of_another_is_not_taken_for_it(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(ids: pl.Series, seed: int = 0) -> np.ndarray:
        return np.zeros(len(ids), np.uint64)

    monkeypatch.setattr(module, "hash_ids", same)
    known = KnownPairs()
    known.refresh(head(store))
    assert known_of(known, ["nobody", *names(29, 31)]) == names(29, 30)
    assert store.add(pairs(names(25, 35)), known=known) == 5
