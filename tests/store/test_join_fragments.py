"""Many small commits end in few fragments, and no version loses any row by that."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import lance
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

from asif_lance.database import Ledger
from asif_lance.store import PairStore, info
from asif_lance.store.forget import forget


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
    told = info(store)
    assert told.bytes_reclaimable + told.bytes_waiting < 100_000


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


def publish_each(store: PairStore, start: int, stop: int, step: int) -> None:
    for first in range(start, stop, step):
        store.add(pairs(names(first, min(first + step, stop))))
        store.publish(command="ingest")


def test_a_history_of_small_versions_has_few_fragments(store: PairStore) -> None:
    publish_each(store, 0, 300, 3)
    assert len(fragments(store)) <= 3 * 9
    assert [version.pairs for version in store.versions()] == list(range(3, 303, 3))
    for number in (1, 40, 99, 100):
        ids = store.read(f"v{number}", ["pair_id"])["pair_id"].to_pylist()
        assert ids == names(0, 3 * number)
    assert store.diff("v33", "v34").changes.added == tuple(names(99, 102))
    assert not store.unpublished()


def test_joined_versions_forget_a_pair_in_every_copy(store: PairStore) -> None:
    publish_each(store, 0, 120, 4)
    store.delete(names(0, 1))
    store.publish(command="delete")
    receipt = forget(store, names(0, 1) + names(50, 51), reason="asked to")
    assert receipt.clean
    assert receipt.fragments == 5  # as added and in 12 rows, each; both in the same 108 rows
    gone = {*names(0, 1), *names(50, 51)}
    for version in store.versions():
        ids = store.read(version.name, ["pair_id"])["pair_id"].to_pylist()
        number = int(version.name[1:])
        assert set(ids) == set(names(0, min(4 * number, 120))) - gone
        assert len(ids) == version.pairs


def test_a_kill_between_joining_and_naming_loses_nothing(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_each(store, 0, 9, 3)
    store.add(pairs(names(9, 12)))
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.publish(command="ingest")
    assert fragments(store) == [12]
    assert store.unpublished().added == tuple(names(9, 12))
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.name, version.pairs, version.added) == ("v4", 12, 3)
    assert store.read("v3").num_rows == 9


def test_fragments_stay_where_an_index_knows_their_rows(store: PairStore) -> None:
    publish_each(store, 0, 6, 2)
    lance.dataset(f"{store.uri}/pairs.lance").create_scalar_index("pair_id", "BTREE")
    publish_each(store, 6, 14, 2)
    assert fragments(store) == [2] * 7


@settings(max_examples=12, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=25))
def test_versions_keep_their_pairs_whatever_is_added_and_deleted(
    steps: list[tuple[int, int]],
) -> None:
    with TemporaryDirectory() as place:
        store, there, expected, new = new_store(Path(place)), set[str](), {}, 0
        for added, deleted in steps:
            store.add(pairs(names(new, new + added)))
            there |= set(names(new, new + added))
            new += added
            gone = sorted(there)[::7][:deleted]
            store.delete(gone)
            there -= set(gone)
            version = store.publish(command="test")
            if version is not None:
                expected[version.name] = set(there)
        for name, ids in expected.items():
            assert set(store.read(name, ["pair_id"])["pair_id"].to_pylist()) == ids
