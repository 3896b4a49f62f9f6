from __future__ import annotations

from pathlib import Path

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import names, new_store, pairs

from asif_lance.database.diff import find_changes, rows_by_id
from asif_lance.errors import VersionNotFoundError
from asif_lance.store.pair_store import PairStore


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v2 has 2 pairs less, 3 more, and another caption for pair 9."""
    store = new_store(tmp_path)
    store.add(pairs(names(0, 10), license=["CC0"] * 10))
    store.publish(command="ingest")
    store.delete([*names(0, 2), *names(9, 10)])
    store.add(pairs(names(20, 23), source=["web", "web", None], license=["CC-BY"] * 3))
    store.add(pairs(names(9, 10), caption=["quite another"], license=["CC0"]))
    store.publish(command="ingest")
    return store


def test_a_diff_names_what_came_went_and_changed(store: PairStore) -> None:
    diff = store.diff("v1", "v2")
    assert diff.changes.added == tuple(names(20, 23))
    assert diff.changes.removed == tuple(names(0, 2))
    assert diff.changes.changed == tuple(names(9, 10))
    assert diff.by_source == {
        "": {"added": 1, "removed": 0, "changed": 0},
        "test": {"added": 0, "removed": 2, "changed": 1},
        "web": {"added": 2, "removed": 0, "changed": 0},
    }
    assert diff.by_license == {
        "CC-BY": {"added": 3, "removed": 0, "changed": 0},
        "CC0": {"added": 0, "removed": 2, "changed": 1},
    }


def test_a_diff_backwards_is_the_other_way_round(store: PairStore) -> None:
    there, back = store.diff("v1", "v2").changes, store.diff("v2", "v1").changes
    assert (there.added, there.removed, there.changed) == (back.removed, back.added, back.changed)


def test_a_version_does_not_differ_from_itself(store: PairStore) -> None:
    diff = store.diff("v2", "latest")
    assert not diff.changes
    assert (diff.by_source, diff.by_license) == ({}, {})
    with pytest.raises(VersionNotFoundError):
        store.diff("v1", "v7")


def test_compaction_and_coming_back_are_no_change(store: PairStore) -> None:
    table = lance.dataset(f"{store.uri}/pairs.lance")
    table.optimize.compact_files()
    store.delete(names(20, 21))
    store.add(pairs(names(20, 21), source=["web"], license=["CC-BY"]))
    assert not store.unpublished()


def test_rows_on_request_come_in_the_order_asked_for(store: PairStore) -> None:
    asked = [*names(22, 23), "nobody", *names(9, 10)]
    rows = rows_by_id(store.dataset("v2"), asked)
    assert rows["pair_id"].to_pylist() == [*names(22, 23), *names(9, 10)]
    assert rows["caption"].to_pylist()[1] == "quite another"
    assert rows_by_id(store.dataset("v2"), []).num_rows == 0


STATE = st.dictionaries(st.integers(0, 12), st.integers(0, 2))


@settings(max_examples=25, deadline=None)
@given(old=STATE, new=STATE)
def test_changes_are_those_of_plain_dictionaries(
    tmp_path_factory: pytest.TempPathFactory, old: dict[int, int], new: dict[int, int]
) -> None:
    where = tmp_path_factory.mktemp("diff")
    one, other = (
        lance.write_dataset(_table(state), str(where / name))
        for name, state in (("old", old), ("new", new))
    )
    found = find_changes(one, other)
    assert found.added == tuple(sorted(f"{i:02}" for i in new.keys() - old.keys()))
    assert found.removed == tuple(sorted(f"{i:02}" for i in old.keys() - new.keys()))
    both = old.keys() & new.keys()
    assert found.changed == tuple(sorted(f"{i:02}" for i in both if old[i] != new[i]))


def _table(state: dict[int, int]) -> pa.Table:
    ids = [f"{i:02}" for i in state]
    text = pa.array(ids, pa.string())
    captions = pa.array([f"caption {c}" for c in state.values()], pa.string())
    return pairs(ids, caption=captions, image_uri=text, source=text)
