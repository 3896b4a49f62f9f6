"""Whatever a database went through, forgetting leaves every version as it was, less the pairs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_at_hand import new_store, pairs

from asif_lance.database import open_table, read_transaction
from asif_lance.forgetting import obtain_keys
from asif_lance.store.forget import forget
from asif_lance.store.maintenance import optimize
from asif_lance.store.pair_store import PairStore

_PAIRS = 6

# Few pairs and small changes: fragments that keep their ids, equal numbers of deleted rows,
# versions that begin without the first fragment, and fragments that lose all their rows.
pair_ids = st.integers(0, _PAIRS - 1).map(lambda number: f"pair-{number:06d}-id")
chosen = st.sets(pair_ids, min_size=1, max_size=4).map(sorted)
changes = st.one_of(
    st.tuples(st.just("add"), chosen),
    st.tuples(st.just("delete"), chosen),
    st.tuples(st.just("rollback"), st.integers(0, 5)),
)


def apply(store: PairStore, change: tuple[str, Any]) -> None:
    """Makes one change and a version of it."""
    kind, what = change
    if kind == "add":
        store.add(pairs(what))
    elif kind == "delete":
        store.delete(what)
    elif versions := store.versions():
        store.rollback(versions[what % len(versions)].name)
    store.publish(command=kind)


def read(store: PairStore) -> dict[str, pa.Table]:
    """The rows of every version."""
    tables = {version.name: store.read(version.name) for version in store.versions()}
    return {name: table.sort_by("pair_id") for name, table in tables.items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(changes, min_size=1, max_size=8), chosen)
def test_every_version_keeps_just_its_other_pairs(
    history: list[tuple[str, Any]], forgotten: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as where:
        store = new_store(Path(where))
        store.add(pairs(["pair-that-is-never-touched"]))
        store.publish(command="ingest")
        for change in history:
            apply(store, change)
        before = read(store)
        there = {i for table in before.values() for i in table["pair_id"].to_pylist()}
        if not there & set(forgotten):
            return
        receipt = forget(store, forgotten, reason="asked", keys=obtain_keys("", Path(where, "k")))
        assert receipt.clean
        for name, table in read(store).items():
            keep = [i not in forgotten for i in before[name]["pair_id"].to_pylist()]
            assert table.equals(before[name].filter(pa.array(keep, pa.bool_()))), name


def test_a_version_that_was_compacted_together_with_an_index_is_forgotten_from(
    tmp_path: Path,
) -> None:
    # Lance's Python cannot read what it wrote down of such a change.
    ids = [f"pair-{number:06d}-id" for number in range(40)]
    store = new_store(tmp_path)
    store.add(pairs(ids))
    store.publish(command="ingest")
    open_table(store.uri, "pairs").create_scalar_index("pair_id", "BTREE")
    store.publish(command="publish")
    store.delete(ids[:30])
    store.publish(command="delete")
    optimize(store)
    head = open_table(store.uri, "pairs")
    assert store.version().lance_version == head.version
    assert read_transaction(head, head.version) is None
    assert forget(store, ids[35:36], reason="asked", keys=obtain_keys("", tmp_path / "k")).clean
    assert [version.pairs for version in store.versions()] == [39, 9]
