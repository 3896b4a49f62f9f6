"""Label sets are found once and brought up to date: always the same as a fresh search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.shards import SharedAnchors
from asif_lance.database import LABEL_SETS, cache_files
from asif_lance.model.label_compiler import find_cached_neighbors, find_prompt_neighbors
from asif_lance.records import Neighbors
from asif_lance.search.query_grid import unit_queries
from asif_lance.store import forget
from asif_lance.store.pair_store import PairStore

K, MEASURE = 20, "cosine"
PROMPTS = unit_queries(np.random.default_rng(5).normal(size=(7, 32)))


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    store = new_store(tmp_path, image=32, text=32)
    add(store, 0, 4000)
    return store


@pytest.fixture(params=["cosine", "centred"], autouse=True)
def measure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds for both kinds of similarity that recipes compare captions by."""
    chosen: str = request.param
    monkeypatch.setitem(globals(), "MEASURE", chosen)
    return chosen


def add(store: PairStore, start: int, stop: int) -> None:
    store.add(pairs(names(start, stop), image=32, text=32))
    store.publish(command="ingest")


def delete(store: PairStore, ids: list[str]) -> None:
    store.delete(ids)
    store.publish(command="delete")


def found_in(store: PairStore, version: str = "latest", k: int = K) -> Neighbors:
    return find_prompt_neighbors(
        Anchors(store.dataset(version)), PROMPTS, k, measure=MEASURE, cached_from=0
    )


def check(store: PairStore, version: str = "latest", k: int = K) -> None:
    fresh = Anchors(store.dataset(version)).top_k("text", PROMPTS, k, measure=MEASURE)
    found = found_in(store, version, k)
    np.testing.assert_array_equal(found.indices, fresh.indices)
    np.testing.assert_array_equal(found.similarities, fresh.similarities)


def files(store: PairStore) -> list[Path]:
    return sorted((Path(store.uri) / LABEL_SETS).glob("*"))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each search over all captions had."""
    done: list[int] = []
    search = Anchors.top_k

    def noted(
        self: Anchors, side: str, queries: np.ndarray, k: int, *, measure: str = "cosine"
    ) -> Neighbors:
        done.append(len(queries))
        return search(self, side, queries, k, measure=measure)

    monkeypatch.setattr(Anchors, "top_k", noted)
    return done


def test_a_label_set_is_searched_for_once(store: PairStore, searches: list[int]) -> None:
    first, second = found_in(store), found_in(store)
    assert searches == [len(PROMPTS)]
    np.testing.assert_array_equal(first.indices, second.indices)
    np.testing.assert_array_equal(first.similarities, second.similarities)
    assert len(files(store)) == 1


def test_added_and_deleted_pairs_are_all_that_is_compared_anew(
    store: PairStore, searches: list[int]
) -> None:
    anchors = Anchors(store.dataset("latest"))
    nearest = anchors.ids(found_in(store).indices[0][:3])
    add(store, 4000, 4050)
    delete(store, [*nearest, *names(700, 720)])
    found_in(store)
    assert searches == [len(PROMPTS)]
    check(store)


def test_only_prompts_that_lost_too_many_neighbors_are_searched_again(
    store: PairStore, searches: list[int]
) -> None:
    found_in(store)
    gone = (
        Anchors(store.dataset("latest")).top_k("text", PROMPTS[:1], 75, measure=MEASURE).indices[0]
    )
    delete(store, Anchors(store.dataset("latest")).ids(gone))
    searches.clear()
    found_in(store)
    assert len(searches) == 1
    assert searches[0] < len(PROMPTS)
    check(store)


def test_any_history_gives_what_a_fresh_search_gives(store: PairStore) -> None:
    rng = np.random.default_rng(1)
    check(store)
    for step in range(8):
        add(store, 4000 + 40 * step, 4000 + 40 * step + int(rng.integers(1, 40)))
        check(store)
        delete(store, [names(0, 4000)[i] for i in rng.integers(4000, size=30)])
        check(store, k=int(rng.integers(1, 60)))
    for version in rng.permutation([v.name for v in store.versions()]):
        check(store, str(version))
    store.rollback("v3")
    check(store)


def test_all_that_is_sure_to_spare_is_what_a_fresh_search_gives(
    store: PairStore, searches: list[int]
) -> None:
    found_in(store)
    add(store, 4000, 5500)
    anchors = Anchors(store.dataset("latest"))
    kept = find_cached_neighbors(anchors, PROMPTS, K, measure=MEASURE, cached_from=0)
    assert searches == [len(PROMPTS)]
    fresh = anchors.top_k("text", PROMPTS, kept.indices.shape[1], measure=MEASURE)
    sure = np.arange(kept.indices.shape[1]) < kept.complete[:, None]
    assert (kept.complete > K).all()
    np.testing.assert_array_equal(kept.indices[sure], fresh.indices[sure])
    np.testing.assert_array_equal(kept.similarities[sure], fresh.similarities[sure])


def test_a_larger_k_is_searched_for_again(store: PairStore) -> None:
    check(store)
    check(store, k=400)
    check(store, k=5000)


def test_forgetting_leaves_nothing_of_a_label_set(store: PairStore) -> None:
    nearest = Anchors(store.dataset("latest")).ids(found_in(store).indices[0][:2])
    receipt = forget.forget(store, nearest, reason="licence withdrawn")
    assert receipt.clean
    assert receipt.elsewhere["label sets"] == 1
    assert files(store) == []
    check(store)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file", b"no archive at all"])
def test_a_damaged_file_is_made_again(store: PairStore, damage: bytes) -> None:
    check(store)
    (path,) = files(store)
    path.write_bytes(damage)
    check(store)
    assert path.read_bytes() != damage


def test_while_another_writes_nothing_is_kept_and_nobody_waits(store: PairStore) -> None:
    with store.writing("ingest"):
        check(store)
    assert files(store) == []


def keep(store: PairStore, prompts: list[int]) -> None:
    anchors = Anchors(store.dataset("latest"))
    for i in prompts:
        find_prompt_neighbors(anchors, PROMPTS[i : i + 1], K, cached_from=0)


def test_the_label_sets_used_last_stay(store: PairStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files, "FILES_KEPT", 3)
    keep(store, [0, 1, 2])
    (first,) = (file for file in files(store) if file.stat().st_mtime_ns == oldest(store))
    keep(store, [0, 3, 4])
    assert len(files(store)) == 3
    assert first in files(store)


def oldest(store: PairStore) -> int:
    return min(file.stat().st_mtime_ns for file in files(store))


def test_label_sets_stay_within_their_bytes(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, [0])
    (size,) = (file.stat().st_size for file in files(store))
    monkeypatch.setattr(cache_files, "BYTES_KEPT", 2 * size)
    keep(store, [1, 2, 3])
    assert len(files(store)) == 2
    monkeypatch.setattr(cache_files, "BYTES_KEPT", 100)
    before = files(store)
    keep(store, [4])
    assert files(store) == before


def test_small_label_sets_are_not_worth_a_file(store: PairStore) -> None:
    find_prompt_neighbors(Anchors(store.dataset("latest")), PROMPTS, K)
    assert files(store) == []


def test_a_new_caption_that_equals_an_old_one_takes_its_place_by_its_id(store: PairStore) -> None:
    check(store)
    twins = store.dataset("latest").to_table(columns=["text_vector"]).slice(0, 40)["text_vector"]
    same = pairs([f"a-{i:03d}-twin" for i in range(40)], image=32, text=32)
    at = same.schema.names.index("text_vector")
    store.add(same.set_column(at, "text_vector", twins))
    store.publish(command="ingest")
    check(store, k=300)
    check(store)


def test_raw_and_centred_neighbors_of_the_same_prompts_lie_beside_each_other(
    store: PairStore, searches: list[int]
) -> None:
    anchors = Anchors(store.dataset("latest"))
    found = [
        find_prompt_neighbors(anchors, PROMPTS, K, measure=kind, cached_from=0)
        for kind in ("cosine", "centred") * 2
    ]
    assert len(searches) == len(files(store)) == 2
    np.testing.assert_array_equal(found[0].similarities, found[2].similarities)
    np.testing.assert_array_equal(found[1].similarities, found[3].similarities)
    assert (found[0].similarities != found[1].similarities).any()


def test_whitened_captions_are_searched_anew(
    store: PairStore, searches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "MEASURE", "white")
    found_in(store)
    add(store, 4000, 4050)
    check(store)
    assert searches == [len(PROMPTS)] * 3


def test_a_mean_that_moved_far_is_searched_for_again(store: PairStore, searches: list[int]) -> None:
    if MEASURE == "cosine":
        pytest.skip("raw similarities know no mean")
    found_in(store)
    searches.clear()
    left = Anchors(store.dataset("latest"))
    one_side = np.flatnonzero(left.vectors("text", np.arange(4000))[:, 0] > 0)
    delete(store, left.ids(one_side))
    check(store)
    assert searches == [len(PROMPTS)] * 2  # once more only to compare with


@pytest.mark.parametrize("shared_first", [True, False])
def test_what_shards_found_and_what_one_process_found_serve_each_other(
    store: PairStore, searches: list[int], shared_first: bool
) -> None:
    alone = Anchors(store.dataset())
    both: list[Anchors] = [SharedAnchors(alone, map, 3), alone]
    first, second = both if shared_first else reversed(both)
    for anchors in (first, second, first):
        find_prompt_neighbors(anchors, PROMPTS, K, measure=MEASURE, cached_from=0)
    assert searches == [len(PROMPTS)]
    delete(store, names(5, 9))  # where one process goes on from what shards found, it searches all
    check(store)
    shared = SharedAnchors(Anchors(store.dataset()), map, 3)
    searches.clear()
    add(store, 4000, 4010)
    found = find_prompt_neighbors(shared, PROMPTS, K, measure=MEASURE, cached_from=0)
    np.testing.assert_array_equal(found.indices, found_in(store, "v2").indices)
