from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lance.dataset import DatasetOptimizer, LanceDataset, MergeInsertBuilder, Tags
from lance.fragment import LanceFragment
from pairs_at_hand import AGAIN, names, new_store, pairs

from asif_lance.audit import matching_ids, matching_ids_anywhere
from asif_lance.database.lock import WriteLock
from asif_lance.errors import CorruptDatabaseError, DatabaseError, InputError, PredicateError
from asif_lance.forgetting import purge, receipts
from asif_lance.forgetting.content import Content
from asif_lance.forgetting.execution import recover
from asif_lance.forgetting.journal import Journal
from asif_lance.records import Reject
from asif_lance.store.forget import forget, plan, verify_receipt
from asif_lance.store.pair_store import PairStore
from asif_lance.verifier import CONTENT_FILE, JOURNAL_FILE, scan

# Enough dimensions that no two random vectors point the same way.
IMAGE, TEXT = 64, 32
GONE = names(3, 7) + names(45, 46)


def batch(ids: Sequence[str], **columns: Any) -> pa.Table:
    return pairs(ids, image=IMAGE, text=TEXT, **columns)


@pytest.fixture
def store(tmp_path: Path) -> PairStore:
    """v1: 0-39; v2: 0-79; v3 (prod): without 0-4; v4: without 5, 6; v5: v1 again; head: more."""
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(names(0, 40)))
    store.publish(command="ingest", message="first")
    store.add(batch(names(40, 80)))
    store.publish(command="ingest", message="second")
    store.delete(names(0, 5))
    store.publish(command="delete", message="third")
    store.delete(names(5, 7))
    store.publish(command="delete", message="fourth")
    store.tag("prod", "v3")
    store.rollback("v1")
    store.add(batch(names(90, 95)))
    return store


def head(store: PairStore) -> lance.LanceDataset:
    return lance.dataset(f"{store.uri}/pairs.lance")


def states(store: PairStore) -> dict[str, pa.Table]:
    names_ = [*(v.name for v in store.versions()), "prod", "latest"]
    tables = {name: store.read(name) for name in names_}
    return {name: table.sort_by("pair_id") for name, table in tables.items()}


def without(table: pa.Table, ids: Sequence[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["pair_id"], pa.array(ids, pa.string()))))


def content(store: PairStore, ids: Sequence[str]) -> Content:
    """What to look for, taken before it is forgotten."""
    rows = store.read("v2").filter(pc.field("pair_id").isin(list(ids)))
    return Content(b"some salt", rows)


def test_every_version_answers_as_if_the_pairs_had_never_been(store: PairStore) -> None:
    before, about = states(store), store.versions()
    forget(store, GONE, reason="asked to")
    after = states(store)
    assert after.keys() == before.keys()
    for name, table in before.items():
        assert after[name].equals(without(table, GONE)), name
    for old, new in zip(about, store.versions(), strict=True):
        assert (old.name, old.message, old.command, old.created_at, old.aliases) == (
            new.name,
            new.message,
            new.command,
            new.created_at,
            new.aliases,
        )


def test_nothing_is_left_in_any_file(store: PairStore) -> None:
    sought = content(store, GONE)
    assert scan(store.uri, sought).hits
    receipt = forget(store, GONE, reason="asked to")
    report = scan(store.uri, sought)
    assert (report.hits, report.doubtful) == ((), ())
    assert receipt.clean
    assert receipt.files_scanned == report.files - 3  # the receipt's own file, log and manifest


def test_counts_of_versions_follow(store: PairStore) -> None:
    forget(store, GONE, reason="asked to")
    told = [(v.name, v.pairs, v.added, v.removed) for v in store.versions()]
    assert told == [
        ("v1", 36, 36, 0),
        ("v2", 75, 39, 0),
        ("v3", 72, 0, 3),
        ("v4", 72, 0, 0),
        ("v5", 36, 3, 39),
    ]
    assert all(v.pairs == store.dataset(v.name).count_rows() for v in store.versions())


def test_unpublished_rows_at_head_stay(store: PairStore) -> None:
    forget(store, [*GONE, names(90, 91)[0]], reason="asked to")
    assert store.existing(names(90, 95)) == set(names(91, 95))
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.name, version.added) == ("v6", 4)


def test_the_receipt_tells_all_but_what_was_forgotten(store: PairStore) -> None:
    receipt = forget(store, GONE, reason="licence withdrawn")
    assert receipts.load_receipts(store.uri) == [receipt]
    assert (receipt.reason, receipt.pairs, len(receipt.ids)) == ("licence withdrawn", 5, 5)
    assert [(v.name, v.pairs_before, v.pairs_after) for v in receipt.versions] == [
        ("v1", 40, 36),
        ("v2", 80, 75),
        ("v3", 75, 72),
        ("v4", 73, 72),
        ("v5", 40, 36),
    ]
    assert all(v.lance_after > v.lance_before for v in receipt.versions)
    assert receipt.fragments == 2
    assert "backups" in receipt.not_covered[0]
    text = repr(receipt)
    assert not any(i in text for i in GONE)


def test_a_receipt_can_be_checked_again_and_notices_a_pair_that_came_back(store: PairStore) -> None:
    receipt = forget(store, GONE, reason="asked to")
    assert verify_receipt(store, receipt.receipt_id).clean
    store.add(batch(GONE[:1]), waiver=AGAIN)
    report = verify_receipt(store, receipt.receipt_id)
    assert not report.clean
    assert any(finding.endswith(": image_vector") for finding in report.findings)
    with pytest.raises(InputError, match="no receipt 'f0' in"):
        verify_receipt(store, "f0")


def test_planning_says_what_would_be_touched_and_touches_nothing(store: PairStore) -> None:
    before = head(store).version
    what = plan(store, [*GONE, "nobody"])
    assert what.pairs == tuple(GONE)
    assert what.unknown == ("nobody",)
    assert what.versions == ("v1", "v2", "v3", "v4", "v5")
    assert what.fragments == 2
    assert 0 < what.bytes < 100_000
    assert plan(store, names(50, 51)).versions == ("v2", "v3", "v4")
    assert head(store).version == before


def test_pairs_are_chosen_by_predicate_over_all_versions(store: PairStore) -> None:
    assert matching_ids_anywhere(store, "pair_id < 'pair-000002' OR pair_id > 'pair-000078'") == [
        *names(0, 2),
        *names(78, 80),
        *names(90, 95),
    ]
    with pytest.raises(PredicateError):
        matching_ids_anywhere(store, "nosuch = 1")


def test_forgetting_nobody_is_an_error_and_writes_nothing(store: PairStore) -> None:
    before = head(store).version
    with pytest.raises(InputError, match="none of these pairs is in this database"):
        forget(store, ["nobody"], reason="asked to")
    assert head(store).version == before
    assert receipts.load_receipts(store.uri) == []


def test_a_fragment_that_loses_all_its_rows_goes(store: PairStore) -> None:
    before = states(store)
    forget(store, names(0, 40), reason="asked to")
    assert {name: len(table) for name, table in states(store).items()} == {
        "v1": 0, "v2": 40, "v3": 40, "v4": 40, "v5": 0, "prod": 40, "latest": 0,
    }  # fmt: skip
    assert states(store)["v2"].equals(without(before["v2"], names(0, 40)))


def test_everything_can_be_forgotten_and_the_database_goes_on(store: PairStore) -> None:
    forget(store, names(0, 100), reason="asked to")
    assert all(len(table) == 0 for table in states(store).values())
    assert store.add(batch(names(200, 203))) == 3
    version = store.publish(command="ingest")
    assert version is not None
    assert (version.pairs, version.added) == (3, 3)


def test_forgetting_twice_is_as_forgetting_both(store: PairStore) -> None:
    before = states(store)
    forget(store, GONE[:2], reason="one")
    forget(store, GONE[2:], reason="two")
    for name, table in states(store).items():
        assert table.equals(without(before[name], GONE)), name
    assert [r.reason for r in receipts.load_receipts(store.uri)] == ["one", "two"]
    assert all(verify_receipt(store, r.receipt_id).clean for r in receipts.load_receipts(store.uri))


def test_rows_that_only_soft_deletes_hide_are_forgotten(store: PairStore) -> None:
    store.add(batch(names(95, 96)))
    sought = Content(b"some salt", batch(names(95, 96)))
    store.delete(names(95, 96))
    assert scan(store.uri, sought).hits
    receipt = forget(store, names(95, 96), reason="never published")
    assert receipt.clean
    assert not scan(store.uri, sought).hits


def test_a_fragment_is_written_once_however_many_versions_share_it(tmp_path: Path) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(names(0, 2_000)))
    store.publish(command="ingest")
    for number in range(10):
        store.add(batch(names(5_000 + number, 5_001 + number)))
        store.publish(command="ingest")
    size = sum(f.stat().st_size for f in Path(store.uri).rglob("data/*"))
    receipt = forget(store, names(7, 8), reason="asked to")
    assert receipt.fragments == 1
    assert len(receipt.versions) == 11
    assert receipt.bytes_written < size
    assert sum(f.stat().st_size for f in Path(store.uri).rglob("data/*")) < size * 1.05


def test_search_indices_go_and_new_ones_find_only_what_is_left(store: PairStore) -> None:
    table = head(store)
    table.create_index(
        "image_vector", "IVF_PQ", metric="cosine", num_partitions=1, num_sub_vectors=4
    )
    table = head(store)
    table.create_index("text_vector", "IVF_HNSW_SQ", metric="cosine", num_partitions=1)
    for column, kind in (("pair_id", "BTREE"), ("caption", "INVERTED"), ("source", "BITMAP")):
        table.create_scalar_index(column, kind)
    store.publish(command="ingest")
    sought = content(store, GONE)
    found_in = {hit.file.split("/")[1] for hit in scan(store.uri, sought).hits}
    assert {"data", "_indices"} <= found_in
    receipt = forget(store, GONE, reason="asked to")
    assert len(receipt.indices) == 5
    assert receipt.clean
    assert not scan(store.uri, sought).hits
    assert {index.name for index in head(store).describe_indices()} == set(receipt.indices)


def test_what_plain_lancedb_logged_goes_too(store: PairStore) -> None:
    head(store).delete("caption = 'a caption about pair-000020-id'")
    store.publish(command="delete")
    sought = content(store, names(20, 21))
    kinds = {hit.file.split("/")[1] for hit in scan(store.uri, sought).hits}
    assert {"_transactions", "_versions"} <= kinds
    forget(store, names(20, 21), reason="asked to")
    assert not scan(store.uri, sought).hits


def test_tags_of_others_move_along(store: PairStore) -> None:
    head(store).tags.create("somebody", store.version("v2").lance_version)
    sought = content(store, GONE)
    forget(store, GONE, reason="asked to")
    assert not scan(store.uri, sought).hits
    table = lance.dataset(f"{store.uri}/pairs.lance", version="somebody")
    assert table.count_rows() == 75


def test_versions_from_before_and_after_a_new_column_are_kept(store: PairStore) -> None:
    head(store).add_columns({"rating": "length(caption)"})
    table = head(store)
    table.tags.create("wider", table.version)
    table.delete(f"pair_id = '{names(90, 91)[0]}'")
    before, wide = states(store), lance.dataset(table.uri, version="wider").to_table()
    sought = content(store, GONE)
    forget(store, GONE, reason="asked to")
    assert not scan(store.uri, sought).hits
    for name, rows in states(store).items():
        assert rows.equals(without(before[name], GONE)), name
    after = lance.dataset(table.uri, version="wider").to_table()
    assert after.sort_by("pair_id").equals(without(wide, GONE).sort_by("pair_id"))
    assert "rating" in head(store).schema.names


def test_counts_of_versions_are_as_if_an_updated_pair_had_never_been(store: PairStore) -> None:
    store.publish(command="ingest")
    updated = names(8, 12)
    store.add(batch(updated, caption=["other"] * len(updated)), replace=True)
    newest = store.publish(command="ingest")
    assert newest is not None
    assert (newest.added, newest.removed) == (4, 4)
    forget(store, [updated[0], *GONE[:1]], reason="asked to")
    versions = store.versions()
    for old, new in pairwise(versions):
        changes = store.diff(old.name, new.name).changes
        added, removed = (
            len(ids) + len(changes.changed) for ids in (changes.added, changes.removed)
        )
        assert (new.added, new.removed) == (added, removed), new.name
    assert versions[0].added == versions[0].pairs


def test_rejects_and_messages_that_name_the_pair_let_go(store: PairStore) -> None:
    gone = GONE[0]
    store.add_rejects(
        "one",
        [
            Reject("s.csv", f"photos/{gone}.jpg", "no caption"),
            Reject("s.csv", "row 5", f"same as {gone}"),
            Reject("s.csv", "row 6", "no image"),
        ],
    )
    store.add(batch(names(96, 97)))
    store.publish(command="ingest", message=f"after a caption about {gone} came in")
    sought = content(store, [gone])
    receipt = forget(store, [gone], reason="asked to")
    let_go = {"rejects": 2, "messages": 1, "predictions": 0, "attributions": 0}
    caches = ("label sets", "prompt vectors", "distances", "open ingests")
    untouched = ("receipts", "prompts", *caches)
    assert receipt.elsewhere == {**let_go, **dict.fromkeys(untouched, 0)}
    assert receipt.clean
    assert not scan(store.uri, sought).hits
    assert store.rejects()["item"].to_pylist() == ["row 6"]
    assert store.version().message == "after [forgotten] came in"


def test_a_picture_that_other_pairs_keep_is_shared_not_found(store: PairStore) -> None:
    twins = batch(["twin-one", "twin-two"], image_uri=["same.jpg"] * 2, caption=["one", "two!"])
    vector = twins["image_vector"].combine_chunks().take([0, 0])
    store.add(
        twins.set_column(twins.schema.get_field_index("image_vector"), "image_vector", vector)
    )
    store.publish(command="ingest")
    receipt = forget(store, ["twin-one"], reason="asked to")
    assert receipt.clean
    assert isinstance(receipt.shared, tuple)
    assert len(receipt.shared) == 2  # the picture's vector and its address
    assert verify_receipt(store, receipt.receipt_id).clean


def test_branches_are_refused_before_anything_happens(store: PairStore) -> None:
    head(store).create_branch("experiment")
    with pytest.raises(DatabaseError, match="the pairs table has branches"):
        forget(store, GONE, reason="asked to")
    assert not (Path(store.uri) / JOURNAL_FILE).exists()


def test_a_pair_can_come_back_on_purpose(store: PairStore) -> None:
    forget(store, GONE, reason="asked to")
    assert store.add(batch(GONE), waiver=AGAIN) == len(GONE)
    version = store.publish(command="ingest")
    assert version is not None
    assert matching_ids(store, f"pair_id = '{GONE[0]}'") == GONE[:1]


# Kills


class Killed(BaseException):
    """Nothing after it happens, as in a process that is gone."""


BOUNDARIES: list[tuple[Any, str]] = [
    (LanceDataset, "commit"),
    (LanceDataset, "cleanup_old_versions"),
    (LanceDataset, "drop_index"),
    (LanceFragment, "delete_rows"),
    (Tags, "update"),
    (MergeInsertBuilder, "execute"),
    (DatasetOptimizer, "compact_files"),
    (purge, "write_fragments"),
    (lance, "write_dataset"),
    (Journal, "note"),
    (Path, "replace"),
    (Path, "unlink"),
]


@contextmanager
def killed_at(step: int) -> Iterator[list[int]]:
    """Stops after the step-th call of a boundary, which is before the next call."""
    calls = [0]

    def arm(function: Callable[..., Any]) -> Callable[..., Any]:
        def armed(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            calls[0] += 1
            if calls[0] == step:
                raise Killed
            return result

        return armed

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in BOUNDARIES:
            armed = arm(getattr(owner, name))
            patch.setattr(owner, name, staticmethod(armed) if name == "commit" else armed)
        yield calls


def small(where: Path) -> PairStore:
    """Three versions, two of which have deleted rows of the touched fragment; one has an index."""
    store = new_store(where, IMAGE, TEXT)
    store.add(batch(names(0, 10)))
    store.publish(command="ingest")
    store.delete(names(0, 2))
    store.publish(command="delete", message=f"not {names(4, 5)[0]}")
    head(store).create_scalar_index("pair_id", "BTREE")
    store.add(batch(names(10, 12)))
    store.publish(command="ingest")
    store.tag("prod", "v3")
    store.add(batch(names(12, 13)))
    return store


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_whole_versions_and_is_made_good(tmp_path: Path) -> None:
    origin = small(tmp_path / "origin")
    old = states(origin)
    gone = names(1, 2) + names(4, 5)
    new = {name: without(table, gone) for name, table in old.items()}
    sought = Content(b"some salt", origin.read("v1").filter(pc.field("pair_id").isin(list(gone))))
    step, finished = 0, False
    while not finished:
        step += 1
        uri = str(tmp_path / "db")
        shutil.copytree(origin.uri, uri)
        store = replace(origin, uri=uri)
        finished = not _killed(step, lambda s=store: forget(s, gone, reason="asked to"))
        for name, table in states(store).items():
            assert table.equals(old[name]) or table.equals(new[name]), (step, name)
        begun = (Path(uri) / JOURNAL_FILE).exists()
        again = PairStore.open(uri)
        assert begun == (again.notice is not None), step
        if not begun and not receipts.load_receipts(uri):
            forget(again, gone, reason="asked to")
        _check_made_good(again, new, sought, step)
        shutil.rmtree(uri)
    assert step > 30


def _check_made_good(
    store: PairStore, expected: dict[str, pa.Table], sought: Content, step: int
) -> None:
    assert states(store) == expected, step
    assert store.existing(names(0, 20)) == set(names(2, 4) + names(5, 13)), step
    report = scan(store.uri, sought)
    assert (report.hits, report.doubtful) == ((), ()), step
    [receipt] = receipts.load_receipts(store.uri)
    assert receipt.clean, step


def _killed(step: int, work: Callable[[], object]) -> bool:
    with killed_at(step):
        try:
            work()
        except Killed:
            return True
    return False


def test_recovering_can_be_killed_too(tmp_path: Path) -> None:
    store = small(tmp_path)
    gone = names(4, 5)
    expected = {name: without(table, gone) for name, table in states(store).items()}
    assert _killed(8, lambda: forget(store, gone, reason="asked to"))
    for step in range(1, 20, 2):
        _killed(step, lambda: recover(store.uri))
    assert recover(store.uri) is not None or receipts.load_receipts(store.uri)
    assert states(store) == expected
    assert not (Path(store.uri) / JOURNAL_FILE).exists()


@pytest.mark.parametrize("file", [JOURNAL_FILE, CONTENT_FILE])
@pytest.mark.parametrize("left", [0.0, 0.5])
def test_readers_go_on_beside_a_damaged_journal_and_writers_are_told_of_it(
    tmp_path: Path, file: str, left: float
) -> None:
    store = small(tmp_path)
    assert _killed(12, lambda: forget(store, names(4, 5), reason="asked to"))
    path = Path(store.uri, file)
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    assert f"{file} is damaged" in str(PairStore.open(store.uri).notice)
    with pytest.raises(CorruptDatabaseError) as caught:
        store.add(batch(names(12, 15)))
    assert caught.value.file == file


def test_no_receipt_is_made_where_the_content_to_look_for_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pairs are out of the tables by then: nobody could say what to search the files for."""

    def kill(*_: object) -> None:
        raise Killed

    store = small(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "save_receipt", kill)
        with pytest.raises(Killed):
            forget(store, names(4, 5), reason="asked to")
    Path(store.uri, CONTENT_FILE).unlink()
    with pytest.raises(CorruptDatabaseError, match=CONTENT_FILE):
        recover(store.uri)
    assert receipts.load_receipts(store.uri) == []


def test_a_writer_that_was_open_already_finishes_the_purge_first(tmp_path: Path) -> None:
    store = small(tmp_path)
    assert _killed(12, lambda: forget(store, names(4, 5), reason="asked to"))
    assert store.add(batch(names(12, 15))) == 2
    assert len(receipts.load_receipts(store.uri)) == 1
    version = store.publish(command="ingest")
    assert version is not None
    assert version.pairs == 12


def test_while_a_purge_is_under_way_readers_open_and_go_on(tmp_path: Path) -> None:
    store = small(tmp_path)
    assert _killed(12, lambda: forget(store, names(4, 5), reason="asked to"))
    with WriteLock(store.uri).hold("forget"):
        reader = PairStore.open(store.uri)
        assert str(reader.notice).startswith("a forget is under way")
        assert len(reader.read("v1")) in {9, 10}


def test_readers_never_see_a_half_purged_version(store: PairStore) -> None:
    steps = range(len(GONE) + 1)
    whole = {n: {len(without(t, GONE[:k])) for k in steps} for n, t in states(store).items()}
    stop, seen, errors = threading.Event(), set(), []

    def read() -> None:
        try:
            while not stop.is_set():
                for name, sizes in whole.items():
                    seen.add(len(store.read(name)) in sizes)
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for gone in GONE:
        forget(store, [gone], reason="asked to")
    stop.set()
    for reader in readers:
        reader.join()
    assert (seen, errors) == ({True}, [])


FULL_DISK = """
import resource, signal, sys
from pairs_at_hand import AGAIN, names
from asif_lance.errors import StorageError
from asif_lance.store.forget import forget
from asif_lance.store import PairStore
store = PairStore.open(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    forget(store, names(3, 7), reason="asked to")
except StorageError as error:
    print(error)
print(PairStore.open(sys.argv[1]).notice)
"""


def test_a_full_disk_is_one_line_and_the_purge_is_finished_when_there_is_room(
    tmp_path: Path,
) -> None:
    store = new_store(tmp_path, IMAGE, TEXT)
    store.add(batch(names(0, 500)))
    store.publish(command="ingest")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, store.uri],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    first, second = done.stdout.strip().splitlines()
    assert first == (
        f"{store.uri}: File too large (os error 27); the forget has begun, and is finished when "
        "the database is opened next"
    )
    assert second.startswith("an interrupted forget could not be finished yet: ")
    assert len(store.read("v1")) == 500
    notice = PairStore.open(store.uri).notice
    assert notice is not None
    assert notice.startswith("finished an interrupted forget of 4 pairs: receipt f20")
    assert len(store.read("v1")) == 496
