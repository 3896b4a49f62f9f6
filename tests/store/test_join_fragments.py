"""Many small commits end in fragments of ten thousand rows, and no version loses any."""

from __future__ import annotations

from pathlib import Path

import lance
import pyarrow.compute as pc
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.store import PairStore, info


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    return new_store(tmp_path)


def fragments(store: PairStore) -> list[int]:
    state = lance.dataset(f"{store.uri}/pairs.lance")
    return [fragment.count_rows() for fragment in state.get_fragments()]


def add_by(store: PairStore, start: int, stop: int, step: int) -> None:
    for first in range(start, stop, step):
        store.add(pairs(names(first, min(first + step, stop))))


def test_small_fragments_become_fragments_of_ten_thousand_rows(store: PairStore) -> None:
    add_by(store, 0, 23_000, 4_480)
    store.join_fragments()
    assert fragments(store) == [10_000, 10_000, 3_000]
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.pairs, version.added) == (23_000, 23_000)
    assert store.read(columns=["pair_id"])["pair_id"].to_pylist() == names(0, 23_000)
    assert info(store).bytes_reclaimable < 100_000


def test_fragments_that_a_version_has_stay_as_they_are(store: PairStore) -> None:
    add_by(store, 0, 40, 20)
    store.publish(command="ingest")
    add_by(store, 40, 100, 20)
    store.delete(names(10, 11) + names(50, 51))
    store.join_fragments()
    assert fragments(store) == [19, 20, 59]
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.pairs, version.added, version.removed) == (98, 59, 1)
    assert store.read("v1").num_rows == 40
    before = lance.dataset(f"{store.uri}/pairs.lance").version
    store.join_fragments()
    assert lance.dataset(f"{store.uri}/pairs.lance").version == before


def test_replaced_pairs_are_there_once_with_their_new_content(store: PairStore) -> None:
    store.add(pairs(names(0, 10)))
    store.publish(command="ingest")
    changed = pairs(names(8, 12), caption=["corrected"] * 4)
    assert store.add(changed, replace=True) == 2
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.pairs, version.added, version.removed) == (12, 4, 2)
    assert store.read().filter(pc.field("caption") == "corrected")["pair_id"].to_pylist() == names(
        8, 12
    )
    assert store.read("v1").filter(pc.field("caption") == "corrected").num_rows == 0
    assert store.diff("v1", "v2").changes.changed == tuple(names(8, 10))
