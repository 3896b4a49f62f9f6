"""Vectors on an accelerator, which the processor stands for: side by side, shared, in limits."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from pairs_at_hand import names, new_store, pairs

from asif_lance.anchors import Anchors, device_rows, version_rows
from asif_lance.search import Blocks, blocks, candidates, fast_products
from asif_lance.store import PairStore

WIDTH = 64


@pytest.fixture(autouse=True)
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (version_rows, blocks, candidates, fast_products):
        monkeypatch.setattr(module, "is_accelerator", lambda device: True)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """Versions of a fragment each, and one that deletes."""
    store = new_store(tmp_path, image=WIDTH, text=WIDTH)
    for first in range(0, 300, 100):
        add(store, first, first + 100)
    store.delete(names(50, 60))
    store.publish(command="delete")
    return store


def add(store: PairStore, first: int, last: int) -> None:
    store.add(pairs(names(first, last), image=WIDTH, text=WIDTH))
    store.publish(command="ingest")


def memories(anchors: Anchors, side: str = "image") -> int:
    return len(Blocks(getattr(anchors, side)).blocks)


def test_a_side_lies_in_one_memory_and_versions_share_it(store: PairStore) -> None:
    newest = Anchors(store.dataset("latest"))
    assert [len(block) for block in newest.image] == [100, 100, 100]
    assert (memories(newest), memories(newest, "text")) == (1, 1)
    older = Anchors(store.dataset("v2"))
    assert [a.data_ptr() for a in older.image] == [a.data_ptr() for a in newest.image[:2]]
    add(store, 300, 310)
    next_one = Anchors(store.dataset("latest"))
    assert next_one.image[0].data_ptr() == newest.image[0].data_ptr()
    assert memories(next_one) == 2


def test_answers_are_those_of_main_memory_and_of_any_version(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = Anchors(store.dataset("latest"))
    for side in ("image", "text"):
        queries = newest.vectors(side, np.arange(5))
        found = newest.top_k(side, queries, 20, measure="centred")
        with monkeypatch.context() as patch:
            for module in (version_rows, blocks, candidates, fast_products):
                patch.setattr(module, "is_accelerator", lambda device: False)
            expected = Anchors(store.dataset("latest")).top_k(side, queries, 20, measure="centred")
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.similarities, expected.similarities)


def test_vectors_that_nobody_uses_leave_the_device(store: PairStore) -> None:
    anchors = Anchors(store.dataset("latest"))
    assert len(anchors.image) == 3
    before = len(device_rows._held)
    del anchors
    gc.collect()
    assert len(device_rows._held) == before - 3


def test_many_memories_of_versions_that_came_one_by_one_are_laid_together(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_rows, "_MOST_MEMORIES", 3)
    kept = []
    for i in range(5):
        kept.append(Anchors(store.dataset("latest")))
        assert memories(kept[-1]) <= 3
        add(store, 300 + 10 * i, 310 + 10 * i)
    assert torch.equal(torch.cat(kept[0].image), torch.cat(kept[-1].image)[:300])


@pytest.mark.parametrize("room", [None, 0, 300 * WIDTH * 2 - 1])
def test_what_does_not_fit_stays_in_main_memory(
    store: PairStore, monkeypatch: pytest.MonkeyPatch, room: int | None
) -> None:
    monkeypatch.setattr(device_rows, "room_on", lambda device: room)
    limit = 300 * WIDTH * 2 - (room is None)
    anchors = Anchors(store.dataset("latest"), memory_limit=limit)
    first = anchors.image[0]
    mapped = anchors.stored._fragments[0]._vectors["image_vector"]
    assert first.data_ptr() == mapped.data_ptr()
    assert memories(anchors) == 3
    assert (anchors.stored.release_of("image") is None) == (room is not None)
