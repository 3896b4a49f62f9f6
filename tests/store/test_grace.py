"""Cleaning up: what plain Lance readers have open stays for a while, what nobody needs goes."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import lance
import lancedb
import pytest
from pairs_at_hand import names, new_store, pairs

from asif_lance.store.maintenance import info, optimize, prune_versions
from asif_lance.store.pair_store import PairStore

AT_ONCE = timedelta(0)
SHORT = timedelta(seconds=0.5)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1 … v4, 500 other pairs each; only the newest has an alias."""
    store = new_store(tmp_path)
    for number in range(4):
        store.delete(names(0, 100_000))
        store.add(pairs(names(number * 500, number * 500 + 500)))
        store.publish(command="ingest")
    store.tag("prod", "v4")
    return store


def head(store: PairStore) -> lance.LanceDataset:
    return lance.dataset(f"{store.uri}/pairs.lance")


def size(store: PairStore) -> int:
    return sum(path.stat().st_size for path in Path(store.uri).rglob("*") if path.is_file())


def test_a_plain_reader_reads_on_while_optimize_replaces_what_it_has_open(
    store: PairStore,
) -> None:
    # LanceDB as it comes: its handle stays at the state that it has opened.
    lancedb_reader = lancedb.connect(store.uri).open_table("pairs")
    lance_reader = head(store)
    store.add(pairs(names(9_000, 9_010)))
    store.delete(names(1_500, 1_800))
    amid = head(store)
    optimize(store)
    optimize(store)
    assert lancedb_reader.count_rows() == len(lancedb_reader.to_arrow()) == 500
    assert len(lance_reader.to_table()) == 500
    assert len(amid.to_table()) == 210


def test_a_state_made_long_ago_stays_when_it_was_head_until_now(store: PairStore) -> None:
    store.add(pairs(names(9_000, 9_010)))
    reader = head(store)
    time.sleep(2 * SHORT.total_seconds())
    store.delete(names(1_500, 1_800))
    optimize(store, grace=SHORT)
    assert len(reader.to_table()) == 510
    time.sleep(2 * SHORT.total_seconds())
    optimize(store, grace=SHORT)
    with pytest.raises((OSError, ValueError), match="ot found"):
        reader.to_table()


def test_what_waits_is_told_and_goes_with_now(store: PairStore) -> None:
    store.delete(names(1_500, 1_800))
    done = optimize(store)
    told = info(store)
    assert told.bytes_reclaimable == 0
    assert 0 < done.bytes_waiting == told.bytes_waiting
    before = size(store)
    assert optimize(store, grace=AT_ONCE).bytes_waiting == 0
    # Each upkeep adds manifests of its own, and replaces digests.
    assert before - size(store) == pytest.approx(told.bytes_waiting, abs=12_000)
    assert info(store).bytes_waiting == 0


def test_leftovers_of_killed_writes_go_within_the_grace_period(store: PairStore) -> None:
    data = Path(store.uri) / "pairs.lance" / "data"
    (data / "0123456789.lance").write_bytes(next(data.iterdir()).read_bytes())
    optimize(store)
    assert not (data / "0123456789.lance").exists()


def test_joining_fragments_of_an_ingest_leaves_what_readers_of_versions_have_open(
    store: PairStore,
) -> None:
    store.add(pairs(names(9_000, 9_010)))
    reader = head(store)
    store.publish(command="ingest")
    optimize(store)
    for start in range(9_100, 9_130, 10):
        store.add(pairs(names(start, start + 10)))
    data = Path(store.uri) / "pairs.lance" / "data"
    files = len(list(data.iterdir()))
    store.join_fragments()
    assert len(list(data.iterdir())) == files - 2
    assert len(reader.to_table()) == 510


# Tags: lance #8516 says that with one present, files of dropped versions stay for good.


@pytest.mark.parametrize("name", ["alias", "tag-of-somebody-else"])
def test_pruning_frees_the_bytes_of_dropped_versions_though_an_older_one_is_tagged(
    store: PairStore, name: str
) -> None:
    if name == "alias":
        store.tag(name, "v1")
    else:
        head(store).tags.create(name, store.version("v1").lance_version)
    data = Path(store.uri) / "pairs.lance" / "data"
    before, sizes = size(store), sorted(path.stat().st_size for path in data.iterdir())
    report = prune_versions(store, keep_last=1)
    assert len(list(data.iterdir())) == 2
    assert report.foreign_tags == (() if name == "alias" else (name,))
    assert report.bytes_freed >= 2 * sizes[0]
    assert before - size(store) == pytest.approx(report.bytes_freed, abs=500)
    assert len(store.read("v4")) == 500
    assert len(head(store).checkout_version(name).to_table()) == 500


def test_after_a_foreign_tag_is_deleted_the_next_pruning_frees_its_bytes(
    store: PairStore,
) -> None:
    head(store).tags.create("somebody", store.version("v2").lance_version)
    prune_versions(store, keep_last=1)
    before = size(store)
    head(store).tags.delete("somebody")
    report = prune_versions(store, keep_last=1)
    assert report.dropped == ()
    assert len(list((Path(store.uri) / "pairs.lance" / "data").iterdir())) == 1
    assert before - size(store) == pytest.approx(report.bytes_freed, abs=500)
    assert report.bytes_freed > 10_000


def test_files_that_plain_lance_left_behind_beside_a_tag_are_freed(store: PairStore) -> None:
    """Its own cleanup, with tags present and without looking at unverified files."""
    head(store).tags.create("somebody", store.version("v1").lance_version)
    for name in ("v2", "v3"):
        head(store).tags.delete(name)
    head(store).cleanup_old_versions(AT_ONCE, error_if_tagged_old_versions=False)
    prune_versions(store, keep_last=1)
    assert len(list((Path(store.uri) / "pairs.lance" / "data").iterdir())) == 2
