"""Vectors are mapped from Lance's own files: they must be the numbers that Lance would read."""

from __future__ import annotations

import re
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.fragments import Fragment
from asif_lance.errors import StaleModelError
from asif_lance.store import forget, optimize, prune_versions
from asif_lance.store.pair_store import PairStore

WIDE, NARROW = 384, 4


def store_of(where: Path, ids: list[str], width: int = WIDE) -> PairStore:
    store = new_store(where, image=width, text=width)
    add(store, ids, width)
    return store


def add(store: PairStore, ids: list[str], width: int = WIDE) -> None:
    store.add(pairs(ids, image=width, text=width))
    store.publish(command="ingest")


def read_by_lance(store: PairStore, column: str, version: str = "latest") -> np.ndarray:
    table = store.dataset(version).to_table(columns=["pair_id", column]).sort_by("pair_id")
    return np.stack(table[column].to_numpy())


def in_order_of_ids(anchors: Anchors, column: str) -> np.ndarray:
    side = anchors.image if column == "image_vector" else anchors.text
    rows = np.concatenate([block.numpy() for block in side])[anchors.live]
    ids = anchors.pair_ids.filter(pa.array(anchors.live)).to_numpy()
    return rows[np.argsort(ids)]


@pytest.mark.parametrize("column", ["image_vector", "text_vector"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_vectors_are_those_that_lance_reads(tmp_path: Path, width: int, column: str) -> None:
    store = store_of(tmp_path, names(0, 700), width)
    add(store, names(700, 701), width)
    store.delete(names(10, 20))
    store.publish(command="delete")
    anchors = Anchors(store.dataset("latest"))
    np.testing.assert_array_equal(
        in_order_of_ids(anchors, column), read_by_lance(store, column), strict=True
    )
    assert anchors.count == 691


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")
def test_wide_vectors_are_not_copied_into_memory(tmp_path: Path) -> None:
    anchors = Anchors(store_of(tmp_path, names(0, 700)).dataset("latest"))
    path = str(next((tmp_path / "db" / "pairs.lance" / "data").iterdir()))
    assert path not in Path("/proc/self/maps").read_text()
    assert len(anchors.image) == 1
    assert path in Path("/proc/self/maps").read_text()


def test_a_layout_that_is_not_known_is_read_by_lance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, names(0, 50))
    layout = "asif_lance.anchors.fragments._PLAIN"
    monkeypatch.setattr(layout, re.compile("no page is described like this"))
    anchors = Anchors(store.dataset("latest"))
    np.testing.assert_array_equal(
        in_order_of_ids(anchors, "image_vector"), read_by_lance(store, "image_vector")
    )


def test_the_next_version_brings_only_its_own_rows(tmp_path: Path) -> None:
    store = store_of(tmp_path, names(0, 100))
    old = Anchors(store.dataset("v1"))
    add(store, names(100, 105))
    store.delete(names(3, 4))
    store.publish(command="delete")
    new = Anchors(store.dataset("latest"))
    assert new.image[0].data_ptr() == old.image[0].data_ptr()
    assert [len(block) for block in new.image] == [100, 5]
    assert (old.count, new.count) == (100, 104)
    assert old.state != new.state


def test_versions_of_equal_content_have_equal_states(tmp_path: Path) -> None:
    store = store_of(tmp_path, names(0, 100))
    store.delete(names(3, 4))
    store.publish(command="delete")
    store.rollback("v1")
    states = [Anchors(store.dataset(v.name)).state for v in store.versions()]
    assert states[0] == states[2] != states[1]


def test_vectors_in_use_stay_while_upkeep_removes_their_files(tmp_path: Path) -> None:
    store = store_of(tmp_path, names(0, 100))
    store.delete(names(70, 100))
    store.publish(command="delete")
    prune_versions(store, keep_last=1)
    anchors = Anchors(store.dataset("latest"))
    queries = read_by_lance(store, "image_vector")[:3].astype(np.float32)
    before = anchors.top_k("image", queries, 20)
    optimize(store)
    after = anchors.top_k("image", queries, 20)
    np.testing.assert_array_equal(after.indices, before.indices)
    np.testing.assert_array_equal(after.similarities, before.similarities)
    forget.forget(store, names(0, 50), reason="licence withdrawn")
    with pytest.raises(StaleModelError):
        anchors.top_k("image", queries, 20)


def test_a_memory_limit_changes_no_answer_and_gives_back_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(tmp_path, names(0, 300))
    add(store, names(300, 600))
    queries = read_by_lance(store, "image_vector")[::40].astype(np.float32)
    free = Anchors(store.dataset("latest")).top_k("image", queries, 50)
    released = set()
    release = Fragment.release

    def note(fragment: Fragment) -> None:
        released.add(fragment.key)
        release(fragment)

    monkeypatch.setattr(Fragment, "release", note)
    bounded = Anchors(store.dataset("latest"), memory_limit=1000)
    found = bounded.top_k("image", queries, 50)
    np.testing.assert_array_equal(found.indices, free.indices)
    np.testing.assert_array_equal(found.similarities, free.similarities)
    assert len(released) == len(store.dataset("latest").get_fragments()) == 2


def test_ties_go_to_the_smaller_id_wherever_the_rows_lie(tmp_path: Path) -> None:
    store = new_store(tmp_path, image=WIDE, text=WIDE)
    one = pairs(["z"] * 1, image=WIDE, text=WIDE)["image_vector"].combine_chunks()
    for ids in (["c", "a"], ["d", "b"]):
        rows = pairs(ids, image=WIDE, text=WIDE)
        same = pa.FixedSizeListArray.from_arrays(pa.concat_arrays([one.values] * 2), WIDE)
        store.add(rows.set_column(rows.schema.names.index("image_vector"), "image_vector", same))
    store.publish(command="ingest")
    anchors = Anchors(store.dataset("latest"))
    found = anchors.top_k("image", np.array([one.to_pylist()[0]], dtype=np.float32), 3)
    assert anchors.ids(found.indices[0]) == ["a", "b", "c"]


def test_the_layout_that_mapping_relies_on_is_what_lance_writes(tmp_path: Path) -> None:
    store = store_of(tmp_path, names(0, 20))
    (fragment,) = lance.dataset(f"{store.uri}/pairs.lance").get_fragments()
    (data,) = fragment.data_files()
    raw = (tmp_path / "db" / "pairs.lance" / "data" / data.path).read_bytes()
    first = fragment.to_table(columns=["image_vector"])["image_vector"].combine_chunks().flatten()
    assert first.to_numpy().tobytes() in raw
