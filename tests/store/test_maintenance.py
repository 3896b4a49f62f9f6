from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import lance
import pytest
from pairs_at_hand import IMAGE, TEXT, names, new_store, pairs

from asif_lance.database import check, pair_rows
from asif_lance.database.versions import Ledger
from asif_lance.errors import InputError, VersionNotFoundError
from asif_lance.records import Reject
from asif_lance.store.forget import forget
from asif_lance.store.maintenance import info, optimize, prunable_versions, prune_versions
from asif_lance.store.pair_store import PairStore


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1 … v6, ten pairs each; v2 is prod."""
    store = new_store(tmp_path)
    for number in range(6):
        store.delete(names(0, 100))
        store.add(pairs(names(number * 10, number * 10 + 10)))
        store.publish(command="ingest", message=str(number))
    store.tag("prod", "v2")
    return store


def ids(store: PairStore, version: str) -> list[str]:
    return sorted(store.read(version, ["pair_id"])["pair_id"].to_pylist())


def size(store: PairStore) -> int:
    return sum(path.stat().st_size for path in Path(store.uri).rglob("*") if path.is_file())


def head(store: PairStore) -> lance.LanceDataset:
    return lance.dataset(f"{store.uri}/pairs.lance")


def test_pruning_keeps_the_newest_and_the_tagged(store: PairStore) -> None:
    assert prunable_versions(store, keep_last=2) == ["v1", "v3", "v4"]
    before = size(store)
    report = prune_versions(store, keep_last=2)
    assert report.dropped == ("v1", "v3", "v4")
    # The lock file names its holder, so that it changes by some bytes, too.
    assert report.bytes_freed == pytest.approx(before - size(store), abs=50)
    assert report.bytes_freed > before / 4
    assert [v.name for v in store.versions()] == ["v2", "v5", "v6"]
    for name, start in (("v2", 10), ("prod", 10), ("v5", 40), ("v6", 50), ("latest", 50)):
        assert ids(store, name) == names(start, start + 10)
    with pytest.raises(VersionNotFoundError, match="there are: v2, v5, v6"):
        store.read("v1")


def test_pruned_pairs_are_off_the_disk(store: PairStore) -> None:
    prune_versions(store, keep_last=1, keep_tagged=False)
    assert len(list((Path(store.uri) / "pairs.lance" / "data").iterdir())) == 1
    assert sorted(head(store).tags.list()) == ["latest", "v6"]


def test_young_versions_are_not_pruned(store: PairStore) -> None:
    assert prunable_versions(store, older_than=timedelta(days=1)) == []
    assert prune_versions(store, older_than=timedelta(days=1)).dropped == ()
    third = store.version("v3").created_at
    fourth = store.version("v4").created_at
    age = store.version("v6").created_at - third
    assert "v1" in prunable_versions(store, older_than=age - (fourth - third) / 2)


def test_the_newest_version_always_stays(store: PairStore) -> None:
    with pytest.raises(InputError, match="at least the newest version"):
        prune_versions(store, keep_last=0)


def test_numbers_go_on_after_pruning(store: PairStore) -> None:
    prune_versions(store, keep_last=1)
    store.add(pairs(names(70, 71)))
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.name, version.added) == ("v7", 1)


def test_a_pruning_cut_short_is_completed_by_the_next_upkeep(
    store: PairStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "mend", killed)
        with pytest.raises(KeyboardInterrupt):
            prune_versions(store, keep_last=1)
    assert [v.name for v in store.versions()] == ["v2", "v6"]
    assert "v4" in head(store).tags.list()
    optimize(store)
    assert sorted(head(store).tags.list()) == ["latest", "prod", "v2", "v6"]


def test_unpublished_pairs_survive_pruning(store: PairStore) -> None:
    store.add(pairs(names(80, 85)))
    prune_versions(store, keep_last=1)
    assert store.existing(names(80, 85)) == set(names(80, 85))


def test_optimizing_joins_small_fragments_for_readers_of_latest(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for start in range(0, 60, 20):
        store.add(pairs(names(start, start + 20)))
    store.publish(command="ingest")
    store.tag("prod", "v1")
    report = optimize(store)
    assert (report.fragments_before, report.fragments_after) == (3, 1)
    assert len(store.dataset("latest").get_fragments()) == 1
    assert store.version("prod") == store.version("v1")
    assert ids(store, "v1") == names(0, 60)
    assert head(store).tags.get_version("prod") == head(store).tags.get_version("v1")
    assert optimize(store).fragments_before == 1


def test_fragments_grow_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [pair_rows.fragment_rows(rows) for rows in (0, 10**7, 10**8, 10**9)] == [
        *(10_000, 10_000, 25_000, 250_000)
    ]
    store = new_store(tmp_path)
    store.add(pairs(names(0, 30_000)))
    store.publish(command="ingest")
    assert optimize(store).fragments_after == 3
    monkeypatch.setattr(pair_rows, "_MOST_FRAGMENTS", 1)
    assert optimize(store).fragments_after == 1
    assert store.version().pairs == 30_000


def test_optimizing_leaves_unpublished_pairs_unpublished(store: PairStore) -> None:
    store.add(pairs(names(80, 85)))
    optimize(store)
    assert ids(store, "latest") == names(50, 60)
    assert info(store).unpublished == 5


def test_optimizing_removes_what_kills_left(store: PairStore) -> None:
    optimize(store)
    files = {path for path in Path(store.uri).rglob("*") if path.is_file()}
    data = Path(store.uri) / "pairs.lance" / "data"
    (data / "0123456789.lance").write_bytes(next(data.iterdir()).read_bytes())
    for draft in ("_versions/7.manifest#1", "_versions/.tmpLCY0zF", "_refs/tags/.tmp0a1B2c"):
        (Path(store.uri) / "pairs.lance" / draft).write_bytes(b"draft")
    optimize(store)
    assert {path for path in Path(store.uri).rglob("*") if path.is_file()} == files


def test_what_kills_left_is_in_nobodys_way(store: PairStore) -> None:
    (Path(store.uri) / "pairs.lance" / "_versions" / ".tmpLCY0zF").write_bytes(b"draft")
    store.add(pairs(names(80, 85)))
    assert store.publish(command="ingest") is not None
    assert check(store.uri).ok


def test_indices_reach_readers_of_latest_and_follow_new_pairs(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.add(pairs(names(0, 50)))
    store.publish(command="ingest")
    head(store).create_scalar_index("pair_id", "BTREE")
    assert store.dataset().describe_indices() == []
    assert store.adopt_head()
    assert not store.adopt_head()
    assert [index.name for index in store.dataset().describe_indices()] == ["pair_id_idx"]
    store.add(pairs(names(50, 60)))
    store.publish(command="ingest")
    assert store.dataset().stats.index_stats("pair_id_idx")["num_unindexed_rows"] == 10
    optimize(store)
    assert store.dataset().stats.index_stats("pair_id_idx")["num_unindexed_rows"] == 0
    assert ids(store, "v1") == names(0, 50)


def test_forgetting_builds_the_indices_of_head_again(tmp_path: Path) -> None:
    store = new_store(tmp_path, 64, 32)
    store.add(pairs(names(0, 400), image=64, text=32))
    store.publish(command="ingest")
    table = head(store)
    table.create_index(
        "image_vector", "IVF_PQ", metric="cosine", num_partitions=2, num_sub_vectors=4
    )
    table.create_index("text_vector", "IVF_HNSW_SQ", metric="cosine", num_partitions=1)
    table.create_scalar_index("caption", "INVERTED", with_position=True, stem=False)
    store.adopt_head()
    before = {index.name: index.details for index in store.dataset().describe_indices()}
    receipt = forget(store, names(3, 4), reason="asked to")
    assert receipt.clean
    after = {index.name: index.details for index in store.dataset().describe_indices()}
    assert after.keys() == before.keys() == set(receipt.indices)
    assert after["caption_idx"] == before["caption_idx"]
    assert after["image_vector_idx"]["compression"] == before["image_vector_idx"]["compression"]
    found = store.dataset().to_table(columns=["pair_id"], full_text_query="000003")
    assert len(found) == 0


def test_info_tells_what_is_there(store: PairStore) -> None:
    store.add(pairs(names(80, 82)))
    store.delete(names(50, 51))
    store.add_rejects("one", [Reject("s", "row 1", "no image")])
    told = info(store)
    assert (told.uri, told.image, told.text) == (store.uri, IMAGE, TEXT)
    assert (told.versions, told.latest, told.unpublished) == (6, store.version("v6"), 3)
    assert (told.rejects, told.receipts, told.indices) == (1, 0, ())
    assert told.fragments == 2
    assert told.bytes == size(store)
    assert told.bytes_reclaimable == 0
    assert 0 < told.bytes_waiting < told.bytes
    freed = told.bytes - size_after_cleaning(store)
    assert abs(freed - told.bytes_waiting) < 0.5 * told.bytes_waiting


def size_after_cleaning(store: PairStore) -> int:
    prune_versions(store, keep_last=100)
    return size(store)


def test_an_empty_database_has_info_too(tmp_path: Path) -> None:
    told = info(new_store(tmp_path))
    assert (told.versions, told.latest, told.fragments) == (0, None, 0)
